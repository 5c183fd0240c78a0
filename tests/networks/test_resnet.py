"""The classifier's network: shapes, and that an image's features are its own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gen_jax.errors import InputError
from gen_jax.networks.resnet import ResNet


@pytest.fixture(scope='module')
def network():
    return ResNet(num_classes=3, channels=8, channel_multipliers=(1, 2), num_blocks=2)


@pytest.fixture(scope='module')
def variables(network):
    return network.init(jax.random.key(0), jnp.zeros((1, 7, 9, 1)), train=False)


def test_features_are_as_many_as_the_last_level_has_channels(network, variables):
    features, logits = network.apply(variables, jnp.ones((2, 7, 9, 1)), train=False)
    assert features.shape == (2, 16) and logits.shape == (2, 3)


def test_an_image_has_its_features_whatever_stands_beside_it(network, variables):
    x = np.random.default_rng(0).normal(size=(4, 7, 9, 1)).astype(np.float32)
    together, _ = network.apply(variables, x, train=False)
    for i in range(4):
        others = np.concatenate([x[i : i + 1], 10 * x[::-1]])
        alone, _ = network.apply(variables, others, train=False)
        np.testing.assert_allclose(alone[0], together[i], rtol=1e-4, atol=1e-6)
    assert np.abs(together[0] - together[1]).max() > 1e-3


def test_dropout_drops_in_training_only():
    network = ResNet(num_classes=3, channels=8, channel_multipliers=(1,), dropout=0.5)
    x = jnp.ones((2, 8, 8, 1))
    variables = network.init(jax.random.key(0), x, train=False)
    logits = [
        network.apply(variables, x, train=True, rngs={'dropout': jax.random.key(n)})[1]
        for n in range(2)
    ]
    assert np.abs(logits[0] - logits[1]).max() > 1e-3


@pytest.mark.parametrize(
    'fields',
    [
        {'num_blocks': 0},
        {'channels': 12},
        {'num_groups': 0},
        {'channel_multipliers': ()},
        {'channel_multipliers': (1, 0)},
        {'dropout': 1.0},
    ],
)
def test_fields_that_make_no_network_are_refused(fields):
    with pytest.raises(InputError, match=next(iter(fields))):
        ResNet(num_classes=3, **fields)
