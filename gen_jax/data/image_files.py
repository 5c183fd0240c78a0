"""The user's own images: a folder of PNG, JPEG or WebP files, searched all the way down.

folder/a.png  folder/more/b.jpg          no classes
folder/cat/1.png  folder/dog/2.png       if every image lies in a subfolder, the first one on
                                         its path is its class; labels follow sorted names
"""

import functools
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gen_jax.data.dataset import Description
from gen_jax.data.folder import check_readable, divide, search
from gen_jax.data.pixels import (
    Images,
    ImageSet,
    assemble,
    fit_image,
    fits_in_memory,
)
from gen_jax.errors import InputError
from gen_jax.types import DataSpec

_SUFFIXES = ('.png', '.jpg', '.jpeg', '.webp')


class _Folder(NamedTuple):
    root: Path
    paths: tuple[Path, ...]  # Relative to root, sorted.
    classes: tuple[str, ...]  # Empty if there are none.


def load(*, data_dir: str | None, image_size: int | None, channels: int | None) -> ImageSet:
    """Reads every image under `data_dir`, resized and cropped to `image_size` squared.

    One image in sixteen is held out for evaluation, chosen by a hash of its path, so that the
    choice stays the same when files are added. Files that are no images are named in a warning and
    left out; one that turns out to be damaged when it is decoded is named too, and the next one
    takes its place. Images are decoded into memory once if they fit, else batch by batch.

    Raises:
      InputError: if the folder or `image_size` is missing, or fewer than two images can be read.
    """
    folder = _search(data_dir)
    spec = _spec(folder, image_size, channels)
    paths = _keep_readable(folder)
    train, evaluation = (_split(folder, [paths[i] for i in rows], spec) for rows in divide(paths))
    sizes = ' '.join(str((folder.root / path).stat().st_size) for path in paths)
    names = ' '.join(path.as_posix() for path in paths)
    return assemble(train, evaluation, spec, f'{names} {sizes}', str(folder.root))


def describe(*, data_dir: str | None, image_size: int | None, channels: int | None) -> Description:
    """What `load` would read, from the names and sizes of the files alone.

    Raises:
      InputError: if the folder, its images or `image_size` are missing.
    """
    folder = _search(data_dir)
    spec = _spec(folder, image_size, channels)
    train, evaluation = divide(folder.paths)
    num_bytes = sum((folder.root / path).stat().st_size for path in folder.paths)
    decoded = len(folder.paths) * int(np.prod(spec.shape))
    place = 'held in memory' if fits_in_memory(decoded) else 'decoded batch by batch'
    lines = [
        f'folder {folder.root}',
        f'{len(train):,} training and {len(evaluation):,} evaluation images',
        f'{num_bytes / 2**20:,.1f} MiB on disk, {decoded / 2**20:,.1f} MiB decoded, {place}',
    ]
    if folder.classes:
        lines.append(f'{len(folder.classes)} classes: {", ".join(folder.classes[:20])}')
    return Description(spec, True, tuple(lines))


def _search(data_dir: str | None) -> _Folder:
    root, paths = search(data_dir, _SUFFIXES, 'image')
    tops = sorted({path.parts[0] for path in paths})
    flat = any(len(path.parts) == 1 for path in paths)
    return _Folder(root, tuple(paths), () if flat or len(tops) == 1 else tuple(tops))


def _spec(folder: _Folder, image_size: int | None, channels: int | None) -> DataSpec:
    if image_size is None:
        raise InputError(
            'data.image_size: give the side length in pixels to which the images of the folder are '
            'resized and cropped, such as 64'
        )
    shape = (image_size, image_size, channels or 3)
    return DataSpec(shape, levels=256, num_classes=len(folder.classes) or None)


def _keep_readable(folder: _Folder) -> tuple[Path, ...]:
    """The paths that can be read, after a warning that names those that cannot."""
    readable = {path: _is_image(folder.root / path) for path in folder.paths}
    good = tuple(path for path, ok in readable.items() if ok)
    bad = [path.as_posix() for path, ok in readable.items() if not ok]
    check_readable(folder.root, bad, len(good), 'cannot be read as images')
    return good


def _labels(folder: _Folder, paths: Sequence[Path]) -> np.ndarray | None:
    if not folder.classes:
        return None
    return np.array([folder.classes.index(path.parts[0]) for path in paths], np.int32)


def _split(folder: _Folder, paths: Sequence[Path], spec: DataSpec) -> Images:
    """A split that reads the files it is asked for."""
    labels = _labels(folder, paths)

    @functools.cache  # once for each file
    def report_damage(path: Path) -> None:
        warnings.warn(
            f'{folder.root / path} is damaged; the next one is read instead', stacklevel=2
        )

    def read(index: int) -> tuple[np.ndarray, int]:
        for number in (*range(index, len(paths)), *range(index)):
            image = _read(folder.root / paths[number], spec)
            if image is not None:
                return image, number
            report_damage(paths[number])
        raise InputError(f'data.data_dir: no image in {folder.root} can be read any more')

    def fetch(indices: np.ndarray) -> dict[str, np.ndarray]:
        images, numbers = zip(*(read(int(index)) for index in indices), strict=True)
        arrays = {'image': np.stack(images)}
        return arrays if labels is None else arrays | {'label': labels[list(numbers)]}

    return Images(len(paths), fetch, 8, None if labels is None else lambda: labels)


def _read(path: Path, spec: DataSpec) -> np.ndarray | None:
    """The pixels of a file as the spec wants them; None if they cannot be had."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return fit_image(image, spec.shape[0], spec.shape[-1])
    except Exception:  # A damaged file makes Pillow raise nearly anything.
        return None


def _is_image(path: Path) -> bool:
    """Whether the head of a file is that of an image; a damaged end shows only when it is read."""
    from PIL import Image

    try:
        with Image.open(path):
            return True
    except Exception:
        return False
