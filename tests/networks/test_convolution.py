"""Convolutions: CPU forms equal the plain one, in values and gradients, and avoid slow loops."""

import functools
import itertools

import jax
import numpy as np
import pytest

from gen_jax.networks import convolution, rearrange
from tests.networks.forms import (
    assert_same,
    in_a_branch,
    naive_convolutions,
    normal,
    steepness_grads,
)


@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize(
    ('shape', 'size'),
    [((7, 9, 3), 3), ((8, 12, 16), 1), ((8, 12, 16), 3), ((8, 12, 16), 4), ((2, 3, 16), 3)],
)
def test_conv_equals_the_plain_convolution(shape, size, stride):
    x, kernel = normal(0, 2, *shape), normal(1, size, size, shape[-1], 8)
    assert_same(
        lambda x, kernel: convolution.conv(x, kernel, stride),
        lambda x, kernel: convolution.plain_conv(x, kernel, stride),
        x,
        kernel,
    )


@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('size', [2, 5])
def test_patches_conv_for_other_kernels(size, stride):
    x, kernel = normal(0, 2, 9, 8, 4), normal(1, size, size, 4, 3)
    assert_same(
        lambda x, kernel: convolution.patches_conv(x, kernel, stride),
        lambda x, kernel: convolution.plain_conv(x, kernel, stride),
        x,
        kernel,
    )


@pytest.mark.parametrize('size', [2, 3, 5])
def test_taps_conv_equals_the_plain_convolution(size):
    x, kernel = normal(0, 2, 9, 8, 12), normal(1, size, size, 12, 3)
    assert_same(convolution.taps_conv, convolution.plain_conv, x, kernel)


@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('size', [(2, 3), (1, 3), (2, 1), (9, 8)])
@pytest.mark.parametrize('channels', [3, 16])
def test_window_conv_is_the_convolution_with_no_padding(channels, size, stride):
    x, kernel = normal(0, 2, 9, 8, channels), normal(1, *size, channels, 5)

    def plain(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), 'VALID', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
        )

    assert_same(lambda x, kernel: convolution.window_conv(x, kernel, stride), plain, x, kernel)


@pytest.mark.parametrize('to', [(8, 12), (7, 12), (8, 11)])
def test_upsample_conv_equals_the_plain_convolution_of_the_doubled_image(to):
    x, kernel = normal(0, 2, 4, 6, 8), normal(1, 3, 3, 8, 5)
    assert_same(
        lambda x, kernel: convolution.upsample_conv(x, kernel, *to),
        lambda x, kernel: convolution.plain_conv(rearrange.upsample(x, *to), kernel),
        x,
        kernel,
    )


def test_upsample_conv_saves_five_ninths_of_the_work():
    x, kernel = normal(0, 2, 16, 16, 8), normal(1, 3, 3, 8, 8)

    def operations(function) -> float:
        return jax.jit(function).lower(x, kernel).cost_analysis()['flops']

    ours = operations(lambda x, k: convolution.upsample_conv(x, k, 32, 32))
    theirs = operations(lambda x, k: convolution.plain_conv(rearrange.upsample(x, 32, 32), k))
    assert 0.42 < ours / theirs < 0.48


def test_other_backends_run_the_plain_convolution(monkeypatch):
    monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
    x, kernel = normal(0, 1, 8, 8, 3), normal(1, 3, 3, 3, 4)
    program = (
        jax.jit(lambda x, k: convolution.upsample_conv(x, k, 16, 16)).lower(x, kernel).as_text()
    )
    assert program.count('stablehlo.convolution') == 1
    for size, stride in itertools.product((1, 3), (1, 2)):
        shapes = normal(0, 1, 8, 8, 3), normal(1, size, size, 3, 4)
        program = jax.jit(lambda x, k, s=stride: convolution.conv(x, k, s)).lower(*shapes).as_text()
        assert program.count('stablehlo.convolution') == 1
        assert 'dot_general' not in program


@pytest.mark.parametrize(
    ('pixels', 'size', 'stride', 'is_plain_naive'),
    [(8, 3, 1, False), (8, 3, 2, True), (8, 4, 2, True), (4, 4, 2, True), (2, 3, 1, True)],
)
def test_no_convolution_runs_in_naive_loops(pixels, size, stride, is_plain_naive):
    x, kernel = normal(0, 2, pixels, pixels, 16), normal(1, size, size, 16, 16)

    def naive(form) -> list[str]:
        function = functools.partial(form, stride=stride)
        return naive_convolutions(functools.partial(steepness_grads, function), x, kernel)

    assert bool(naive(convolution.plain_conv)) == is_plain_naive
    assert not naive(convolution.conv)


@pytest.mark.parametrize(('pixels', 'size', 'stride'), [(8, 3, 1), (8, 4, 2), (8, 1, 1), (2, 3, 1)])
def test_nor_does_one_in_a_branch(pixels, size, stride):
    x, kernel = normal(0, 2, pixels, pixels, 16), normal(1, size, size, 16, 16)

    def naive(form) -> list[str]:
        function = functools.partial(form, stride=stride)
        return naive_convolutions(
            in_a_branch(functools.partial(steepness_grads, function)), x, kernel
        )

    assert naive(convolution.plain_conv)
    assert not naive(convolution.conv)


@pytest.mark.parametrize('pads', [((0, 0), (0, 0)), ((1, 1), (0, 2)), ((2, 3), (3, 0))])
def test_gradients_of_padded_conv_of_both_orders(pads):
    x, kernel = normal(0, 2, 6, 7, 4), normal(1, 2, 3, 4, 5)

    def plain(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), pads, dimension_numbers=('NHWC', 'HWIO', 'NHWC')
        )

    def ours(x, kernel):
        return convolution.padded_conv(x, kernel, pads)

    assert_same(ours, plain, x, kernel)
    ours, plain = (
        functools.partial(steepness_grads, function, x, kernel) for function in (ours, plain)
    )
    for a, b in zip(ours(), plain(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
