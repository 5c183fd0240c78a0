"""Layers: the CPU forms equal the plain ones, in values and gradients, and avoid slow loops."""

import functools
import itertools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gen_jax.errors import InputError
from gen_jax.networks import layers
from tests.networks.naive_loops import naive_convolutions


def normal(seed: int, *shape: int):
    """Float32 Gaussian numbers."""
    return jax.random.normal(jax.random.key(seed), shape)


def value_and_grads(function, *arguments):
    """A function's value and the gradients of its random projection."""
    value, pull_back = jax.vjp(function, *arguments)
    return value, *pull_back(normal(9, *value.shape))


def assert_same(function, plain, *arguments):
    """Both functions have the same value and the same gradients, within float32 error."""
    ours = jax.jit(lambda *a: value_and_grads(function, *a))(*arguments)
    theirs = jax.jit(lambda *a: value_and_grads(plain, *a))(*arguments)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('size', [1, 2, 3, 4])
@pytest.mark.parametrize('shape', [(8, 8, 3), (7, 9, 3), (8, 7, 16)])
def test_conv_equals_the_plain_convolution(shape, size, stride):
    x, kernel = normal(0, 2, *shape), normal(1, size, size, shape[-1], 5)
    assert_same(
        lambda x, kernel: layers.conv(x, kernel, stride),
        lambda x, kernel: layers.plain_conv(x, kernel, stride),
        x,
        kernel,
    )


@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('size', [2, 5])
def test_patches_conv_for_other_kernels(size, stride):
    x, kernel = normal(0, 2, 9, 8, 4), normal(1, size, size, 4, 3)
    assert_same(
        lambda x, kernel: layers.patches_conv(x, kernel, stride),
        lambda x, kernel: layers.plain_conv(x, kernel, stride),
        x,
        kernel,
    )


@pytest.mark.parametrize('size', [2, 3, 5])
def test_taps_conv_equals_the_plain_convolution(size):
    x, kernel = normal(0, 2, 9, 8, 12), normal(1, size, size, 12, 3)
    assert_same(layers.taps_conv, layers.plain_conv, x, kernel)


@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('size', [(2, 3), (1, 3), (2, 1), (9, 8)])
@pytest.mark.parametrize('channels', [3, 16])
def test_window_conv_is_the_convolution_with_no_padding(channels, size, stride):
    x, kernel = normal(0, 2, 9, 8, channels), normal(1, *size, channels, 5)

    def plain(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), 'VALID', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
        )

    assert_same(lambda x, kernel: layers.window_conv(x, kernel, stride), plain, x, kernel)


@pytest.mark.parametrize('to', [(8, 12), (7, 12), (8, 11)])
def test_upsample_conv_equals_the_plain_convolution_of_the_doubled_image(to):
    x, kernel = normal(0, 2, 4, 6, 8), normal(1, 3, 3, 8, 5)
    assert_same(
        lambda x, kernel: layers.upsample_conv(x, kernel, *to),
        lambda x, kernel: layers.plain_conv(layers.upsample(x, *to), kernel),
        x,
        kernel,
    )


def test_upsample_conv_saves_five_ninths_of_the_work():
    x, kernel = normal(0, 2, 16, 16, 8), normal(1, 3, 3, 8, 8)

    def operations(function) -> float:
        return jax.jit(function).lower(x, kernel).cost_analysis()['flops']

    ours = operations(lambda x, k: layers.upsample_conv(x, k, 32, 32))
    theirs = operations(lambda x, k: layers.plain_conv(layers.upsample(x, 32, 32), k))
    assert 0.42 < ours / theirs < 0.48


def test_other_backends_run_the_plain_convolution(monkeypatch):
    monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
    x, kernel = normal(0, 1, 8, 8, 3), normal(1, 3, 3, 3, 4)
    program = jax.jit(lambda x, k: layers.upsample_conv(x, k, 16, 16)).lower(x, kernel).as_text()
    assert program.count('stablehlo.convolution') == 1
    for size, stride in itertools.product((1, 3), (1, 2)):
        shapes = normal(0, 1, 8, 8, 3), normal(1, size, size, 3, 4)
        program = jax.jit(lambda x, k, s=stride: layers.conv(x, k, s)).lower(*shapes).as_text()
        assert program.count('stablehlo.convolution') == 1
        assert 'dot_general' not in program


@pytest.mark.parametrize(
    ('pixels', 'size', 'stride', 'is_plain_naive'),
    [(8, 3, 1, False), (8, 3, 2, True), (8, 4, 2, True), (4, 4, 2, True), (2, 3, 1, True)],
)
def test_no_convolution_runs_in_naive_loops(pixels, size, stride, is_plain_naive):
    """Of the gradients of what games penalize, the squared gradient at x."""
    arguments = normal(0, 2, pixels, pixels, 16), normal(1, size, size, 16, 16)

    def steepness(form, x, kernel):
        value, pull_back = jax.vjp(lambda x: jnp.sin(form(x, kernel, stride)), x)
        return jnp.sum(pull_back(normal(9, *value.shape))[0] ** 2)

    def program(form) -> str:
        gradients = jax.jit(jax.grad(functools.partial(steepness, form), (0, 1)))
        return gradients.lower(*arguments).compile().as_text()

    assert bool(naive_convolutions(program(layers.plain_conv))) == is_plain_naive
    assert not naive_convolutions(program(layers.conv))


def test_gradient_of_a_flat_matmul_transposes_no_activations():
    x, kernel = normal(0, 4, 6, 10, 12), normal(1, 12, 14)

    def transposes(function) -> int:
        grad = jax.jit(lambda x, k: jax.grad(lambda k: jnp.sin(function(x, k)).sum())(k))
        found = re.findall(
            r'f32\[([\d,]*)\]\S* transpose\(', grad.lower(x, kernel).compile().as_text()
        )
        sizes = [np.prod([int(n) for n in shape.split(',')]) for shape in found]
        return sum(size > kernel.size for size in sizes)

    assert transposes(layers.flat_matmul) == 0
    assert transposes(jnp.matmul) > 0
    np.testing.assert_allclose(layers.flat_matmul(x, kernel), x @ kernel, rtol=1e-5, atol=1e-5)


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


def test_upsample_repeats_pixels_and_crops():
    x = normal(0, 2, 4, 4, 3)
    doubled = np.repeat(np.repeat(x, 2, 1), 2, 2)
    np.testing.assert_array_equal(layers.upsample(x, 8, 8), doubled)
    np.testing.assert_array_equal(layers.upsample(x, 7, 8), doubled[:, :7])
