"""Stacked images: three gray ones on the channels red, green and blue of one.

Of a set with K classes they have K^3: the label is that of the three as digits of one number,

    label = K^2 red + K green + blue.

Ten digits make 1,000 classes, all about equally common, on which it is tried how many of its
modes a model learns (Metz et al. 2017). A split has as many stacked images as the set has gray
ones. Which three make the n-th depends on n and the split alone: each channel goes through the set
in an order of its own, so that every gray image is used once in each.
"""

import numpy as np

from gen_jax.data.dataset import digest
from gen_jax.data.pixels import Images, ImageSet
from gen_jax.errors import InputError
from gen_jax.types import DataSpec


def stacked_spec(spec: DataSpec) -> DataSpec:
    """Of images that are stacked, from that of single ones.

    Raises:
      InputError: these have colors or no classes.
    """
    height, width, channels = spec.shape
    if channels != 1:
        raise InputError(
            f'data.stacked: these images have {channels} channels, and three gray ones make one; '
            'set it to False, or data.channels to 1'
        )
    if spec.num_classes is None:
        raise InputError('data.stacked: this data has no classes; set it to False')
    return spec._replace(shape=(height, width, 3), num_classes=spec.num_classes**3)


def stack(images: ImageSet) -> ImageSet:
    """The set of stacked images.

    Raises:
      InputError: as `stacked_spec`.
    """
    spec, num_classes = stacked_spec(images.spec), images.spec.num_classes
    train, evaluation = (
        _split(split, number, num_classes)
        for number, split in enumerate((images.train, images.evaluation))
    )
    return ImageSet(train, evaluation, spec, digest(images.fingerprint, 'stacked'))


def _split(images: Images, number: int, num_classes: int) -> Images:
    # RandomState's streams are frozen by NumPy's policy.
    orders = np.stack(
        [
            np.random.RandomState((number, channel)).permutation(images.num_examples)
            for channel in range(3)
        ]
    )
    value = num_classes ** np.arange(2, -1, -1)  # of each channel's class

    def fetch(indices: np.ndarray) -> dict[str, np.ndarray]:
        raw = images.fetch(orders[:, indices].reshape(-1))  # the red ones, the green, the blue
        of_each = {name: a.reshape(3, len(indices), *a.shape[1:]) for name, a in raw.items()}
        return {
            'image': np.concatenate(of_each['image'], axis=-1),
            'label': (value @ of_each['label']).astype(np.int32),
        }

    return images._replace(
        fetch=fetch, labels=lambda: (value @ images.labels()[orders]).astype(np.int32)
    )
