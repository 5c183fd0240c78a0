"""The perceptrons of a game over vectors: what they compute, labels, and what makes no network."""

import jax
import numpy as np
import pytest

from gen_jax.errors import InputError
from gen_jax.networks.gan_mlp import Discriminator, Generator

Z = np.array(jax.random.normal(jax.random.key(0), (5, 4)))
X = np.array(jax.random.normal(jax.random.key(1), (5, 2)))
LABEL = np.array([0, 2, 1, 1, 0])


def randomized(network, *arguments):
    """Variables of which none are zero."""
    shapes = jax.eval_shape(lambda: network.init(jax.random.key(0), *arguments, train=False))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda w: rng.normal(size=w.shape).astype(w.dtype), shapes)


def layers_of(params, h, activation):
    """Those before the last, by numpy."""
    for i in range(2):
        layer = params[f'block_{i}']['Dense_0']
        h = activation(h @ layer['kernel'] + layer['bias'])
    return h


def test_the_generator_is_layers_of_z_and_the_embedding_of_the_label():
    network = Generator(shape=(3, 2), latent_channels=4, num_classes=3, widths=(6, 7))
    variables = randomized(network, Z, LABEL)
    params = variables['params']
    h = np.concatenate([Z, params['label']['embedding'][LABEL]], -1)
    h = layers_of(params, h, lambda h: np.maximum(h, 0))
    wanted = (h @ params['out']['kernel'] + params['out']['bias']).reshape(5, 3, 2)
    x = network.apply(variables, Z, LABEL, train=False)
    np.testing.assert_allclose(x, wanted, rtol=1e-4, atol=1e-4)


def test_the_discriminator_projects_its_features_on_the_label():
    network = Discriminator(num_classes=3, widths=(6, 7), activation='leaky_relu')
    variables = randomized(network, X, LABEL)
    params = variables['params']
    h = layers_of(params, X, lambda h: np.maximum(h, 0.2 * h))
    vectors = params['out']['kernel'][:, 0] + params['label']['embedding'][LABEL]
    logits = network.apply(variables, X, LABEL, train=False)
    wanted = (h * vectors).sum(-1) + params['out']['bias']
    np.testing.assert_allclose(logits, wanted, rtol=1e-4, atol=1e-4)


def test_without_labels_there_is_no_table():
    generator, discriminator = Generator(shape=(2,), latent_channels=4), Discriminator()
    assert set(randomized(generator, Z)['params']) == {'block_0', 'block_1', 'block_2', 'out'}
    assert set(randomized(discriminator, X)['params']) == {'block_0', 'block_1', 'block_2', 'out'}


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        ({'widths': ()}, r'^widths: \(\) must be whole numbers from 1 on'),
        ({'widths': (8, 0)}, r'^widths: \(8, 0\) '),
        ({'activation': 'swish'}, r"^activation: no 'swish'; choose from .*leaky_relu"),
    ],
)
def test_fields_that_make_no_network_are_named(fields, message):
    with pytest.raises(InputError, match=message):
        Generator(shape=(2,), latent_channels=4, **fields)
    with pytest.raises(InputError, match=message):
        Discriminator(**fields)
