"""Stacked images seen channel by channel: by the shipped net of digits, on real digits."""

import numpy as np
import pytest

from gen_jax import parallel
from gen_jax.data import images
from gen_jax.errors import InputError
from gen_jax.features.extractor import make_embedder
from gen_jax.features.feature_net import feature_net
from gen_jax.features.references import read
from gen_jax.features.stacked import stacked
from gen_jax.metrics.modes import mode_coverage

STACKED = images.describe(stacked=True).spec


def embedded(look, examples: np.ndarray):
    return make_embedder(look, parallel.lay_out(), 100)(examples)


@pytest.fixture(scope='module')
def held_out():
    """Examples, labels, and what they are embedded as."""
    split, numbers = images.load(stacked=True).evaluation, np.arange(297)
    examples = read(split, numbers, images.decode, STACKED)
    return (
        examples,
        split.fetch(numbers)['label'],
        embedded(stacked(STACKED, weights='digits'), examples),
    )


def test_stacked_digits_are_read_as_their_own_labels(held_out):
    _, label, found = held_out
    assert found.probabilities.shape == (297, 1000) and found.probabilities.dtype == np.float32
    np.testing.assert_allclose(found.probabilities.sum(1), 1, rtol=1e-4)
    # The net is right on 99.0 % of single ones: on 97 % of threes.
    assert (found.probabilities.argmax(1) == label).mean() >= 0.95
    coverage = mode_coverage(found.probabilities)
    assert coverage['confident'][0] > 0.85
    assert coverage['modes'][0] == pytest.approx(1000 * (1 - 0.999**297), rel=0.1)


def test_it_is_the_net_of_one_image_on_each_channel(held_out):
    examples, _, found = held_out
    net = feature_net(images.describe().spec, weights='digits')
    red, green, blue = (embedded(net, examples[:20, ..., [c]]) for c in range(3))
    together = np.concatenate([red.features, green.features, blue.features], axis=1)
    np.testing.assert_allclose(found.features[:20], together, rtol=1e-4, atol=1e-5)
    p = np.einsum('bi,bj,bk->bijk', *(part.probabilities for part in (red, green, blue)))
    np.testing.assert_allclose(found.probabilities[:20], p.reshape(20, -1), rtol=1e-3, atol=1e-6)


def test_it_is_another_extractor_than_the_net():
    look, net = (
        stacked(STACKED, weights='digits'),
        feature_net(images.describe().spec, weights='digits'),
    )
    assert look.hash != net.hash and look.suffix == f'-{look.hash[:8]}'
    assert look.frechet == f'FD{look.suffix}'


@pytest.mark.parametrize(
    ('spec', 'weights', 'message'),
    [
        (images.describe().spec, 'digits', r'spec: .*no stacked images.*data\.stacked to True'),
        (STACKED._replace(num_classes=10), 'digits', '10 classes, which make 1000 stacked'),
        (STACKED._replace(num_classes=None), 'digits', 'this data has none'),
        (
            STACKED._replace(shape=(28, 28, 3)),
            'digits',
            r'examples of shape \(8, 8, 1\)',
        ),
        (STACKED, None, "weights: None; give 'digits'"),
    ],
)
def test_what_does_not_fit_is_refused(spec, weights, message):
    with pytest.raises(InputError, match=message):
        stacked(spec, weights=weights)
