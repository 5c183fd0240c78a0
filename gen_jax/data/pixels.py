"""What is done to pixels: levels to numbers and back, resizing, and the picture of many pictures.

An image is uint8 `[H, W, C]` that counts levels, 0 … L-1 (L = 256 for 8-bit images). A network sees

    x = 2 v / (L - 1) - 1          level v, so that the darkest is -1 and the brightest is 1;
    x = 2 (v + u) / L - 1          dequantized, u uniform in (0, 1): a density of x then bounds the
                                   probability of v (Theis et al., 2016, arXiv:1511.01844).
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gen_jax.data.dataset import digest
from gen_jax.data.folder import read_all
from gen_jax.errors import InputError
from gen_jax.files import replacing
from gen_jax.types import DataSpec

if TYPE_CHECKING:
    from PIL import Image


_CHUNK = 500  # examples that one thread decodes at a time
_FINGERPRINTED = 64  # examples of each split that its fingerprint sees


class Images(NamedTuple):
    """One split as a source of images gives it: levels, before they become numbers for a network.

    `fetch(indices)` returns `image`, uint8 `[B, H, W, C]`, and `label`, int32 `[B]`, if the set
    has classes. `threads` is as in `dataset.Split`. `labels()` returns the labels of all, int32
    `[num_examples]`, without decoding an image; it is None where there are no classes.
    """

    num_examples: int
    fetch: Callable[[np.ndarray], dict[str, np.ndarray]]
    threads: int = 1
    labels: Callable[[], np.ndarray] | None = None


class ImageSet(NamedTuple):
    """Both splits of a source; `spec` is what they are before dequantization."""

    train: Images
    evaluation: Images
    spec: DataSpec
    fingerprint: str


def in_memory(image: np.ndarray, label: np.ndarray | None) -> Images:
    """A split whose examples all lie in memory: image uint8 [N, H, W, C], label int32 [N]."""
    arrays = {'image': image} if label is None else {'image': image, 'label': label}
    return Images(
        len(image),
        lambda indices: {name: a[indices] for name, a in arrays.items()},
        labels=None if label is None else lambda: label,
    )


def assemble(
    train: Images, evaluation: Images, spec: DataSpec, identity: str, title: str
) -> ImageSet:
    """A set of two splits that are read from files, decoded into memory now if they fit there.

    The fingerprint is of `identity` and of examples spread evenly over both splits: the same
    whether or not this machine holds the set in memory.
    """
    spread = []
    for split in (train, evaluation):
        numbers = np.linspace(0, split.num_examples - 1, _FINGERPRINTED).round().astype(int)
        spread.extend(split.fetch(np.unique(numbers)).values())
    fingerprint = digest(f'{identity} {spec}', *spread)
    num_examples = train.num_examples + evaluation.num_examples
    if fits_in_memory(num_examples * int(np.prod(spec.shape))):
        train, evaluation = (_decoded(split, title) for split in (train, evaluation))
    return ImageSet(train, evaluation, spec, fingerprint)


def _decoded(images: Images, title: str) -> Images:
    """The same split with every example in memory."""
    numbers = np.arange(images.num_examples)
    chunks = [numbers[i : i + _CHUNK] for i in range(0, len(numbers), _CHUNK)]
    parts = list(read_all(images.fetch, chunks, f'reading {title}'))
    arrays = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    return in_memory(arrays['image'], arrays.get('label'))


def fits_in_memory(num_bytes: int) -> bool:
    """Whether decoded images may stay in memory: they may take a quarter of the machine's."""
    return num_bytes <= os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') // 4


def levels_to_x(image: np.ndarray, levels: int) -> np.ndarray:
    """Levels 0 … L-1 (uint8) to float32 in [-1, 1]; both ends are reached exactly."""
    x = image.astype(np.float32)
    x /= levels - 1
    x *= 2
    x -= 1
    return x


def uniform(shape: tuple[int, ...], keys: np.ndarray) -> np.ndarray:
    """Uniform numbers uint16 `[B, ...]`; those of a row depend on its key, of `[B]`, alone."""
    noise = np.empty(shape, np.uint16)
    for row, key in zip(noise, keys, strict=True):
        generator = np.random.Generator(np.random.Philox(key=int(key)))
        row[...] = np.frombuffer(generator.bytes(row.nbytes), np.uint16).reshape(row.shape)
    return noise


def dequantize(image: np.ndarray, levels: int, bits: np.ndarray) -> np.ndarray:
    """Levels `[B, ...]` plus uniform noise of one level's width, to float32 in (-1, 1).

    `bits` is uint64 `[B]`; the noise of a row depends on its bits alone.
    """
    noise = uniform(image.shape, bits)
    # u is an odd multiple of 2^-16: v + u is exact in float32, and u never rounds up to a level.
    noise |= 1
    x = noise.astype(np.float32)
    x *= 2**-16
    x += image
    x /= levels
    x *= 2
    x -= 1
    return x


def x_to_uint8(x: np.ndarray, spec: DataSpec) -> np.ndarray:
    """Numbers in [-1, 1] to the nearest of the spec's levels, spread over 0 … 255 (uint8)."""
    unit = (np.clip(np.asarray(x, np.float32), -1, 1) + 1) / 2
    top = spec.levels - 1
    level = np.floor(unit * spec.levels) if spec.dequantized else np.rint(unit * top)
    return np.rint(np.minimum(level, top) * (255 / top)).astype(np.uint8)


def fit_image(image: 'Image.Image', size: int | None, channels: int) -> np.ndarray:
    """A Pillow image as uint8 `[size, size, channels]`: upright, and nothing stretched.

    Cameras store a rotation beside the pixels (EXIF); it is applied. The shorter side is resized to
    `size` (Lanczos, which is antialiased) and the middle square is kept; None keeps every pixel.
    Transparent pixels are laid on white.
    """
    from PIL import Image, ImageOps

    ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith('I'):  # 16 bits of gray, which convert() would clip, not scale.
        image = Image.fromarray((np.asarray(image) / 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert('RGBA')
        image = Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image)
    image = image.convert('L' if channels == 1 else 'RGB')
    if size is not None and image.size != (size, size):
        image = ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS)
    return np.asarray(image).reshape(image.height, image.width, channels)


def check_size(image_size: int | None, channels: int | None) -> None:
    """Raises InputError unless the size is positive (or None) and channels are 1, 3 or None."""
    if image_size is not None and image_size < 1:
        raise InputError(f'data.image_size: {image_size}; use a side length in pixels, 1 or more')
    if channels not in (1, 3, None):
        raise InputError(f'data.channels: {channels}; use 3 for color, 1 for gray, or None')


def write_grid(images: np.ndarray, stem: Path) -> Path:
    """Writes uint8 images `[N, H, W, C]` as one PNG, `stem` + '.png', and returns its path.

    The grid is as square as N allows, left to right and then down; small images are enlarged to
    at least 48 pixels without smoothing.
    """
    num, height, width, channels = images.shape
    scale = max(1, -(-48 // min(height, width)))
    gap, columns = 2, int(np.ceil(np.sqrt(num)))
    rows = -(-num // columns)
    tile_height, tile_width = height * scale + gap, width * scale + gap
    canvas = np.full(
        (rows * tile_height + gap, columns * tile_width + gap, channels), 255, np.uint8
    )
    for i, image in enumerate(images):
        top, left = i // columns * tile_height + gap, i % columns * tile_width + gap
        large = image.repeat(scale, axis=0).repeat(scale, axis=1)
        canvas[top : top + height * scale, left : left + width * scale] = large

    return write_picture(canvas.squeeze(-1) if channels == 1 else canvas, stem)


def write_picture(pixels: np.ndarray, stem: Path) -> Path:
    """Writes uint8 `[H, W]` or `[H, W, 3]` as PNG, `stem` + '.png', and returns its path; the file
    appears whole or not at all."""
    from PIL import Image

    path = stem.with_name(stem.name + '.png')
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        Image.fromarray(pixels).save(file, format='PNG')
    return path
