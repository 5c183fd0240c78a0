"""Synthetic images: the same from the same seed, and with something to learn."""

import numpy as np
import pytest

from gen_jax.data import synthetic
from gen_jax.types import DataSpec


def pixels_of(images) -> dict[str, np.ndarray]:
    return images.fetch(np.arange(images.num_examples))


@pytest.mark.parametrize('levels', [2, 17, 256])
def test_pixels_are_levels_and_repeat(levels):
    spec = DataSpec((9, 12, 3), levels=levels, num_classes=4)
    first, again, other = (synthetic.load(spec, seed=seed) for seed in (0, 0, 1))
    image = pixels_of(first.train)['image']
    assert image.shape == (synthetic.NUM_TRAIN, 9, 12, 3)
    assert image.dtype == np.uint8
    assert 0.95 * (levels - 1) <= image.max() <= levels - 1
    np.testing.assert_array_equal(image, pixels_of(again.train)['image'])
    assert (image != pixels_of(other.train)['image']).any()
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert (image[:256] != pixels_of(first.evaluation)['image']).any()


def test_classes_can_be_told_apart():
    spec = DataSpec((16, 16, 1), levels=256, num_classes=8)
    data = synthetic.load(spec)
    train, evaluation = pixels_of(data.train), pixels_of(data.evaluation)
    means = np.stack([train['image'][train['label'] == c].mean(axis=0) for c in range(8)])
    distances = ((evaluation['image'][:, None] - means[None]) ** 2).sum(axis=(2, 3, 4))
    assert (distances.argmin(axis=1) == evaluation['label']).mean() > 0.5


def test_no_classes_no_labels():
    assert 'label' not in pixels_of(synthetic.load(DataSpec((8, 8, 1), levels=256)).train)
