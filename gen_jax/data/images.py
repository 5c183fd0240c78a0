"""Images: `load` makes a Dataset of any source, `describe` tells what it would read.

`decode` turns samples of a model into uint8 images, and `write` makes a picture of them.

    tfds       a set of TensorFlow Datasets by name, in `data_dir`           tfds_images.py
    folder     the user's own PNG, JPEG and WebP files under `data_dir`      image_files.py
    embedded   'digits': 1,797 handwritten digits that ship with scikit-learn
    synthetic  soft blobs with the spec of the set that `name` names         synthetic.py

Every batch holds `x`, float32 `[B, H, W, C]` in [-1, 1], and, where there are classes, `label`,
int32 `[B]`. How levels become numbers is in `pixels.py`, how they become two in `binary.py`, how
three images become one in `stacked.py`, and how few of the labels may be known in `labels.py`.
"""

from pathlib import Path

import numpy as np

from gen_jax.data import binary, image_files, labels, pixels, synthetic, tfds_images
from gen_jax.data.dataset import Arrays, Dataset, Description, Split, digest
from gen_jax.data.pixels import Images, ImageSet
from gen_jax.data.stacked import stack, stacked_spec
from gen_jax.errors import InputError
from gen_jax.types import DataSpec

SUFFIXES = ('.png',)
PARTS = ('top', 'bottom', 'left', 'right')  # that may be given, and the rest completed
SOURCES = ('tfds', 'embedded', 'folder', 'synthetic')
_DIGITS = DataSpec((8, 8, 1), levels=17, num_classes=10)


def load(
    *,
    source: str = 'embedded',
    name: str | None = None,
    data_dir: str | None = None,
    image_size: int | None = None,
    channels: int | None = None,
    flip: bool = False,
    dequantize: bool = False,
    binarize: str | None = None,
    stacked: bool = False,
    labels_per_class: int | None = None,
    labels_seed: int = 0,
    labeled_only: bool = False,
) -> Dataset:
    """The images of a source as a Dataset.

    Args:
      source: one of `SOURCES`.
      name: the set: for `tfds` its TFDS name; for `embedded` 'digits' or None; for `synthetic` the
        set whose spec is imitated, or None for squares of `image_size` with 10 classes.
      data_dir: the folder to read; for `tfds` None means TFDS_DATA_DIR or TFDS's own default.
      image_size: side length in pixels; images are resized and cropped to this square. None keeps
        the size of the set, where all its images share one.
      channels: 1 (gray) or 3 (color); None keeps those of the set, 3 for a folder.
      flip: mirror half of the training images, drawn anew each time.
      dequantize: add uniform noise of one level's width, in training and evaluation.
      binarize: how images become black and white, one of the rules in `binary.py`; None: they stay
        what they are.
      stacked: each image is three gray ones of the set, one in each of its colors, and its class is
        that of all three. See `stacked.py`; what else is asked for is done to the stacked images.
      labels_per_class: how many training images of each class keep their label, the others having
        the label -1, unknown; None: all. See `labels.py`.
      labels_seed: of which these are.
      labeled_only: the others are left out.

    Raises:
      InputError: naming the field that is wrong, for everything the user can mend.
    """
    _check(source, name, data_dir, image_size, channels)
    binary.check(binarize, dequantize)
    labels.check(labels_per_class, labels_seed, labeled_only)
    images = _read(source, name, data_dir, image_size, channels)
    if stacked:
        images = stack(images)
    levels = images.spec.levels
    if binarize is not None:
        images = binary.binarized(images, binarize)
    labeled = None
    if labels_per_class is not None:
        images, labeled = labels.few(images, labels_per_class, labels_seed, labeled_only)
    spec = images.spec._replace(dequantized=dequantize)
    train = _split(images.train, spec, flip, levels if binarize == 'dynamic' else None)
    return Dataset(
        train=train._replace(labeled=labeled),
        evaluation=_split(images.evaluation, spec, False),
        spec=spec,
        fingerprint=images.fingerprint,
    )


def describe(
    *,
    source: str = 'embedded',
    name: str | None = None,
    data_dir: str | None = None,
    image_size: int | None = None,
    channels: int | None = None,
    flip: bool = False,
    dequantize: bool = False,
    binarize: str | None = None,
    stacked: bool = False,
    labels_per_class: int | None = None,
    labels_seed: int = 0,
    labeled_only: bool = False,
) -> Description:
    """What `load` with the same arguments would read, found out without reading pixels.

    Raises:
      InputError: as `load`, except that a TFDS set may be absent.
    """
    _check(source, name, data_dir, image_size, channels)
    binary.check(binarize, dequantize)
    labels.check(labels_per_class, labels_seed, labeled_only)
    size = {'image_size': image_size, 'channels': channels}
    if source == 'tfds':
        found = tfds_images.describe(name=name, data_dir=data_dir, **size)
    elif source == 'folder':
        found = image_files.describe(data_dir=data_dir, **size)
    elif source == 'embedded':
        lines = ('digits (ships with scikit-learn)', '1,500 training and 297 evaluation images')
        found = Description(_DIGITS, True, lines)
    else:
        spec = _imitated(name, data_dir, image_size, channels)
        lines = (
            f'synthetic images like {name or "squares"}, made in memory',
            f'{synthetic.NUM_TRAIN:,} training and {synthetic.NUM_EVALUATION:,} evaluation images',
        )
        found = Description(spec, True, lines)
    if stacked:
        found = found._replace(spec=stacked_spec(found.spec))
    three = ['stacked: three gray images on the channels of each'] if stacked else []
    noise = ['uniform noise of one level is added'] if dequantize else []
    mirror = ['half of the training images are mirrored'] if flip else []
    two = [f'black and white, by the rule {binarize!r}'] if binarize else []
    few = labels.lines(found.spec.num_classes, labels_per_class, labels_seed, labeled_only)
    spec = found.spec._replace(dequantized=dequantize)
    spec = spec._replace(levels=2) if binarize else spec
    lines = (*found.lines, *three, *mirror, *two, *few, *noise)
    partly_labeled = labels_per_class is not None and not labeled_only
    return found._replace(spec=spec, lines=lines, partly_labeled=partly_labeled)


def decode(x: np.ndarray, spec: DataSpec) -> np.ndarray:
    """Samples shaped like `x` of a batch to uint8 images `[N, H, W, C]`, 0 to 255."""
    return pixels.x_to_uint8(x, spec)


def write(images: np.ndarray, stem: Path, suffix: str = SUFFIXES[0]) -> Path:
    """Writes uint8 images as one picture, `stem` plus '.png', and returns its path."""
    return pixels.write_grid(images, stem)


def read(path: Path, spec: DataSpec) -> np.ndarray:
    """An image file as an example of this spec: x `[1, H, W, C]`.

    Raises:
      InputError: it is no image.
    """
    from PIL import Image

    height, _, channels = spec.shape
    try:
        with Image.open(path) as image:
            found = pixels.fit_image(image, height, channels)
    except Exception:  # A damaged file makes Pillow raise nearly anything.
        raise InputError(f'--given: {path} cannot be read as an image') from None
    levels = np.rint(found / 255 * (spec.levels - 1)).astype(np.uint8)
    return pixels.levels_to_x(levels[None], spec.levels)


def known(part: str, spec: DataSpec) -> np.ndarray:
    """Which pixels belong to one of `PARTS`, half of an image: bool `[H, W, 1]`."""
    height, width, _ = spec.shape
    rows, columns = np.arange(height)[:, None, None], np.arange(width)[:, None]
    chosen = {
        'top': rows < height // 2,
        'bottom': rows >= height // 2,
        'left': columns < width // 2,
        'right': columns >= width // 2,
    }[part]
    return np.broadcast_to(chosen, (height, width, 1))


def _check(
    source: str,
    name: str | None,
    data_dir: str | None,
    image_size: int | None,
    channels: int | None,
) -> None:
    if source not in SOURCES:
        raise InputError(f'data.source: {source!r} for images; use one of {", ".join(SOURCES)}')
    pixels.check_size(image_size, channels)
    if source == 'embedded':
        if name not in (None, 'digits'):
            raise InputError(
                f"data.name: {name!r} does not ship with the packages, only 'digits' does; "
                "for other sets use data.source 'tfds' or 'folder'"
            )
        if data_dir is not None:
            raise InputError(
                f"data.data_dir: {data_dir}; data.source 'embedded' reads no folder; set it to "
                "'folder' or 'tfds', or leave data.data_dir None"
            )
        if image_size not in (None, 8) or channels not in (None, 1):
            raise InputError(
                'data.image_size, data.channels: the embedded digits are 8x8 and gray; '
                'leave both None'
            )


def _read(
    source: str,
    name: str | None,
    data_dir: str | None,
    image_size: int | None,
    channels: int | None,
) -> ImageSet:
    size = {'image_size': image_size, 'channels': channels}
    if source == 'tfds':
        return tfds_images.load(name=name, data_dir=data_dir, **size)
    if source == 'folder':
        return image_files.load(data_dir=data_dir, **size)
    if source == 'embedded':
        return _digits()
    return synthetic.load(_imitated(name, data_dir, image_size, channels))


def _digits() -> ImageSet:
    """The 8x8 digits of scikit-learn, 17 levels: 297 for evaluation, in proportion to classes."""
    from sklearn.datasets import load_digits

    image, label = load_digits(return_X_y=True)
    image = image.reshape(-1, 8, 8, 1).astype(np.uint8)
    label = label.astype(np.int32)
    # RandomState's streams are frozen by NumPy's policy, so the split is the same everywhere.
    order = np.random.RandomState(0).permutation(len(image))
    by_class = order[np.argsort(label[order], kind='stable')]
    held_out = np.sort(by_class[np.linspace(0, len(image) - 1, 297).round().astype(int)])
    kept = np.setdiff1d(order, held_out)
    return ImageSet(
        pixels.in_memory(image[kept], label[kept]),
        pixels.in_memory(image[held_out], label[held_out]),
        _DIGITS,
        digest(image[kept], label[kept], image[held_out], label[held_out]),
    )


def _imitated(
    name: str | None, data_dir: str | None, image_size: int | None, channels: int | None
) -> DataSpec:
    """The spec that synthetic images take."""
    if name == 'digits':
        return _DIGITS
    if name is not None:
        return tfds_images.spec_of(
            name, data_dir=data_dir, image_size=image_size, channels=channels
        )
    if image_size is None:
        raise InputError(
            "data.image_size: synthetic images need a size, or data.name ('digits', 'cifar10', …) "
            'whose spec they take'
        )
    return DataSpec((image_size, image_size, channels or 3), levels=256, num_classes=10)


def _split(images: Images, spec: DataSpec, flip: bool, drawn_from: int | None = None) -> Split:
    """A split of a source, with the way from levels to a batch; of `drawn_from` levels two are
    drawn anew each time."""

    def transform(raw: Arrays, bits: np.ndarray) -> Arrays:
        image = raw['image']
        if drawn_from is not None:
            image = binary.draw(image, drawn_from, bits)
        if spec.dequantized:
            x = pixels.dequantize(image, spec.levels, bits)
        else:
            x = pixels.levels_to_x(image, spec.levels)
        if flip:
            mirrored = (bits & 1).astype(bool)
            x[mirrored] = x[mirrored, :, ::-1]
        return {'x': x, 'label': raw['label']} if 'label' in raw else {'x': x}

    return Split(images.num_examples, images.fetch, transform, images.threads)
