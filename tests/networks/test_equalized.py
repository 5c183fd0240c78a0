"""Layers of one learning rate: what they compute, and what a step of an optimizer does to them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gen_jax.networks import resampling
from gen_jax.networks.convolution import plain_conv
from gen_jax.networks.equalized import (
    EqualizedConv,
    EqualizedDense,
    Mapping,
    leaky,
    unit_square,
)


def normal(seed: int, *shape: int):
    """Float32 Gaussian numbers."""
    return jax.random.normal(jax.random.key(seed), shape)


def test_leaky_keeps_the_mean_square_and_its_slopes():
    np.testing.assert_allclose(leaky(jnp.array([2.0, -2.0])), np.sqrt(2) * np.array([2, -0.4]))
    # sqrt(2) x for half of all numbers, and little else.
    assert abs((leaky(normal(0, 100_000)) ** 2).mean() - 1.04) < 0.02


def test_unit_square_has_a_mean_square_of_1_whatever_the_scale():
    x = normal(0, 4, 16)
    y = unit_square(x)
    np.testing.assert_allclose((y**2).mean(-1), 1, rtol=1e-5)
    np.testing.assert_allclose(unit_square(100 * x), y, rtol=1e-5)


@pytest.mark.parametrize('rate', [1.0, 0.01])
def test_a_dense_layer_answers_with_its_variance_and_learns_at_its_rate(rate):
    layer = EqualizedDense(200, rate=rate, bias=3.0)
    x = normal(0, 50, 400)
    y, variables = jax.jit(layer.init_with_output)(jax.random.key(1), x)
    assert abs(y.mean() - 3) < 0.1 and abs(y.std() - 1) < 0.02
    kernel, bias = variables['params']['kernel'], variables['params']['bias']
    assert abs(kernel.std() * rate - 1) < 4 / np.sqrt(2 * kernel.size)
    # Adam moves all parameters by as much: by 1 here, the kernel as the signs of x say.
    moved = {'kernel': kernel + jnp.sign(x[0])[:, None], 'bias': bias + 1}
    change = layer.apply({'params': moved}, x) - y
    wanted = rate * (np.abs(x[0]).sum() / np.sqrt(400) + 1)
    np.testing.assert_allclose(change[0], wanted, rtol=2e-3)


@pytest.mark.parametrize('size', [1, 3])
@pytest.mark.parametrize('down', [False, True])
def test_a_convolution_is_its_equation(size, down):
    layer = EqualizedConv(5, size=size, down=down)
    x = normal(0, 2, 8, 6, 4)
    init = jax.eval_shape(functools.partial(layer.init, jax.random.key(0)), x)
    kernel, bias = normal(1, size, size, 4, 5), normal(2, 5)
    assert jax.tree.map(jnp.shape, init['params']) == {'kernel': kernel.shape, 'bias': (5,)}
    scaled = kernel / np.sqrt(4 * size**2)
    if not down:
        wanted = plain_conv(x, scaled)
    elif size == 1:
        wanted = plain_conv(resampling.filtered_downsample(x), scaled)
    else:
        wanted = resampling.filtered_downsample_conv(x, scaled)
    ours = jax.jit(layer.apply)({'params': {'kernel': kernel, 'bias': bias}}, x)
    np.testing.assert_allclose(ours, wanted + bias, rtol=1e-4, atol=1e-5)


def test_a_convolution_without_bias_has_none():
    layer = EqualizedConv(5, use_bias=False)
    init = jax.eval_shape(layer.init, jax.random.key(0), normal(0, 2, 8, 6, 4))
    assert set(init['params']) == {'kernel'}


def test_a_mapping_sees_directions_of_latents_and_labels():
    mapping = Mapping(16, num_layers=2, num_classes=3, dtype='float32')
    z, label = normal(0, 2, 5), jnp.array([0, 1])
    init = jax.jit(mapping.init)(jax.random.key(0), z, label)
    apply = jax.jit(lambda z, label: mapping.apply(init, z, label))
    w = apply(z, label)
    assert w.shape == (2, 16)
    np.testing.assert_allclose(apply(10 * z, label), w, rtol=1e-4, atol=1e-5)
    other = apply(z, jnp.array([0, 2]))
    np.testing.assert_allclose(other[0], w[0], rtol=1e-6)
    assert np.abs(other[1] - w[1]).max() > 0.1


def test_a_mapping_of_labels_alone():
    mapping = Mapping(16, num_layers=1, num_classes=3, dtype='float32')
    w, _ = mapping.init_with_output(jax.random.key(0), None, jnp.array([0, 1, 0]))
    np.testing.assert_allclose(w[0], w[2], rtol=1e-6)
    assert np.abs(w[0] - w[1]).max() > 0.1
