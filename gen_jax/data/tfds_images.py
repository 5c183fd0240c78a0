"""Image sets of TensorFlow Datasets, read without TensorFlow (`tfds_sets.py`)."""

import io
from typing import NamedTuple

import numpy as np

from gen_jax.data import tfds_sets
from gen_jax.data.dataset import Description
from gen_jax.data.pixels import Images, ImageSet, assemble, fit_image, fits_in_memory
from gen_jax.errors import InputError
from gen_jax.types import DataSpec


class _Fields(NamedTuple):
    """Which features of a set are used: the image, the class (if any), and all that are images."""

    image: str
    label: str | None
    pictures: tuple[str, ...]


def load(
    *, name: str | None, data_dir: str | None, image_size: int | None, channels: int | None
) -> ImageSet:
    """Reads the set `name` from `data_dir`, after preparing it there if it is absent.

    `data_dir` None means the environment's TFDS_DATA_DIR, else TFDS's own default. Evaluation is
    the split `test`, else `validation`, else the last twentieth of `train`. The images are decoded
    into memory once if they fit there, else batch by batch.

    Raises:
      InputError: if the set is unknown, holds no images or no usable splits, or is neither present
        nor to be had; or if its images differ in size and `image_size` is None.
    """
    builder = _builder(name, data_dir)
    spec = _spec(builder, image_size, channels)
    builder = tfds_sets.ready(name, builder)
    train_name, evaluation_name = _split_names(builder)
    train = _lazy(builder, train_name, spec, image_size)
    evaluation = _lazy(builder, evaluation_name, spec, image_size)

    num_examples = f'{train.num_examples} {evaluation.num_examples}'
    identity = f'{builder.info.full_name} {train_name} {evaluation_name} {num_examples}'
    return assemble(train, evaluation, spec, identity, name)


def describe(
    *, name: str | None, data_dir: str | None, image_size: int | None, channels: int | None
) -> Description:
    """What `load` would read; works for absent sets too (TFDS knows their features).

    Raises:
      InputError: as `load`, except for what only the files could tell.
    """
    builder = _builder(name, data_dir)
    spec = _spec(builder, image_size, channels)
    lines = [f'{builder.info.full_name} (TFDS), {builder.data_path}']
    if not builder.is_prepared():
        return Description(
            spec, False, (*lines, 'absent: training would download and prepare it there')
        )
    tfds_sets.check_format(builder)
    train, evaluation = (builder.info.splits[split].num_examples for split in _split_names(builder))
    num_bytes = (train + evaluation) * int(np.prod(spec.shape))
    place = 'held in memory' if fits_in_memory(num_bytes) else 'decoded batch by batch'
    on_disk, decoded = builder.info.dataset_size, f'{num_bytes / 2**20:,.0f} MiB'
    lines.append(f'{train:,} training and {evaluation:,} evaluation images')
    lines.append(f'{on_disk} on disk, {decoded} decoded, {place}')
    return Description(spec, True, tuple(lines))


def spec_of(
    name: str, *, data_dir: str | None, image_size: int | None, channels: int | None
) -> DataSpec:
    """The spec that `load` would give, from what TFDS knows of the set; needs no files."""
    return _spec(_builder(name, data_dir), image_size, channels)


def _builder(name: str | None, data_dir: str | None):
    return tfds_sets.find(name, data_dir, 'cifar10')


def _fields(builder) -> _Fields:
    import tensorflow_datasets as tfds

    pictures = tfds_sets.features_of(builder, tfds.features.Image)
    classes = tfds_sets.features_of(builder, tfds.features.ClassLabel)
    features = builder.info.features
    pictures = [key for key in pictures if features[key].np_dtype == np.uint8]
    if not pictures:
        raise InputError(f'data.name: the TFDS set {builder.name!r} has no 8-bit images')
    image = 'image' if 'image' in pictures else pictures[0]
    label = 'label' if 'label' in classes else (classes[0] if classes else None)
    return _Fields(image, label, tuple(pictures))


def _spec(builder, image_size: int | None, channels: int | None) -> DataSpec:
    fields = _fields(builder)
    height, width, stored_channels = builder.info.features[fields.image].shape
    if image_size is not None:
        height = width = image_size
    elif height is None or width is None:
        raise InputError(
            f'data.image_size: the images of {builder.name!r} differ in size; give the side length '
            'in pixels to which they are resized and cropped, such as 64'
        )
    if channels is None:
        channels = 1 if stored_channels == 1 else 3
    classes = builder.info.features[fields.label].num_classes if fields.label else None
    return DataSpec((height, width, channels), levels=256, num_classes=classes)


def _split_names(builder) -> tuple[str, str]:
    given = tfds_sets.evaluation_split(builder)
    return ('train', given) if given else ('train[:95%]', 'train[95%:]')


def _lazy(builder, split: str, spec: DataSpec, image_size: int | None) -> Images:
    """A split that reads and decodes the examples it is asked for."""
    import tensorflow_datasets as tfds
    from PIL import Image

    fields = _fields(builder)
    # Pillow decodes below; TFDS would decode with OpenCV where that happens to be installed.
    skip = {key: tfds.decode.SkipDecoding() for key in fields.pictures}
    source = builder.as_data_source(split=split, decoders=skip)

    def fetch(indices: np.ndarray) -> dict[str, np.ndarray]:
        records = source.__getitems__([int(i) for i in indices])
        encoded = (Image.open(io.BytesIO(record[fields.image])) for record in records)
        arrays = {'image': np.stack([fit_image(e, image_size, spec.shape[-1]) for e in encoded])}
        if fields.label:
            arrays['label'] = np.array([record[fields.label] for record in records], np.int32)
        return arrays

    def labels() -> np.ndarray:
        numbers = range(len(source))
        found = (source.__getitems__([number])[0][fields.label] for number in numbers)
        return np.fromiter(found, np.int32, len(source))

    return Images(len(source), fetch, 8, labels if fields.label else None)
