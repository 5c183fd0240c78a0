"""Layers: their definitions, and what they say of bad fields."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gen_jax.errors import InputError
from gen_jax.networks import layers
from tests.networks.forms import assert_same, normal


@pytest.mark.parametrize('shape', [(3, 6, 5, 16), (3, 7, 16)])
def test_group_norm_equals_flax(shape):
    x = 3 + 2 * normal(0, *shape)
    params = {'scale': normal(1, 16), 'bias': normal(2, 16)}

    def normalize(module):
        return lambda x, params: module.apply({'params': params}, x)

    ours = normalize(layers.GroupNorm(num_groups=4))
    assert_same(
        lambda x, s, b: ours(x, {'scale': s, 'bias': b}), _flax_group_norm, x, *params.values()
    )


def _flax_group_norm(x, scale, bias):
    variables = {'params': {'scale': scale, 'bias': bias}}
    return nn.GroupNorm(num_groups=4, epsilon=1e-6).apply(variables, x)


def test_group_norm_has_float32_statistics_in_bfloat16():
    x = (100 + normal(0, 2, 16, 16, 8)).astype(jnp.bfloat16)
    module = layers.GroupNorm(num_groups=2)
    out, variables = module.init_with_output(jax.random.key(0), x)
    assert out.dtype == jnp.bfloat16
    exact = module.apply(variables, x.astype(jnp.float32))
    np.testing.assert_allclose(out.astype(jnp.float32), exact, atol=0.02)


def test_group_norm_refuses_uneven_groups():
    with pytest.raises(InputError, match='num_groups'):
        layers.GroupNorm(num_groups=3).init(jax.random.key(0), jnp.zeros((1, 4, 4, 8)))


def dropped(seed: int, rate: float, *shape: int):
    """The mask of what dropout with this key sets to zero in `shape` ones."""
    module = layers.Dropout(rate)
    rngs = {'dropout': jax.random.key(seed)}
    return np.asarray(module.apply({}, jnp.ones(shape), train=True, rngs=rngs)) == 0


@pytest.mark.parametrize('rate', [0.1, 0.5])
def test_dropout_has_its_rate_and_keeps_the_mean(rate):
    x = jnp.full((100, 1000), 2.0)
    rngs = {'dropout': jax.random.key(0)}
    out = np.asarray(layers.Dropout(rate).apply({}, x, train=True, rngs=rngs))
    error = np.sqrt(rate * (1 - rate) / x.size)  # one standard error of the share of zeros
    assert abs((out == 0).mean() - rate) < 4 * error
    np.testing.assert_allclose(out[out != 0], 2 / (1 - rate), rtol=1e-6)


def test_dropout_masks_look_independent():
    # Correlations of 10^6 fair coins with each other lie within 4 standard errors of zero: along
    # both axes, at distances that are powers of two, and between keys.
    signs = [1.0 - 2 * dropped(seed, 0.5, 1000, 1024) for seed in (0, 1)]
    first, second = signs
    pairs = [(first, second)]
    pairs += [(first[:, :-d], first[:, d:]) for d in (1, 2, 4, 256, 512)]
    pairs += [(first[:-d], first[d:]) for d in (1, 2, 64)]
    for a, b in pairs:
        assert abs((a * b).mean()) < 4 / np.sqrt(a.size)


def test_dropout_differs_between_layers_of_one_network():
    class Two(nn.Module):
        @nn.compact
        def __call__(self, x):
            return layers.Dropout(0.5)(x, train=True), layers.Dropout(0.5)(x, train=True)

    a, b = Two().apply({}, jnp.ones((64, 64)), rngs={'dropout': jax.random.key(0)})
    assert 0.4 < np.mean(np.asarray(a) == np.asarray(b)) < 0.6


def test_timestep_embedding_at_a_known_time():
    embedding = np.asarray(layers.timestep_embedding(jnp.array([0.0, 0.002]), 8))
    np.testing.assert_allclose(embedding[0], [0, 0, 0, 0, 1, 1, 1, 1])
    angles = 2 * 10_000.0 ** -(np.arange(4) / 3)
    np.testing.assert_allclose(
        embedding[1], np.concatenate([np.sin(angles), np.cos(angles)]), atol=1e-5
    )
