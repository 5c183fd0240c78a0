"""The same numbers as XLA's convolutions, twice differentiated, for fewer products."""

import functools

import jax
import numpy as np
import pytest

from gen_jax.networks import convolution, transposed, winograd
from tests.networks.forms import assert_same, normal, steepness_grads


def halving(x, kernel):
    """The plain form of `halving_conv`."""
    return convolution.plain_conv(x, kernel, 2)


PAIRS = [
    (winograd.halving_conv, halving),
    (winograd.doubling_conv, transposed.plain_conv_transpose),
]


@pytest.mark.parametrize(('form', 'plain'), PAIRS)
def test_the_plain_form_in_values_gradients_and_gradients_of_gradients(form, plain):
    arguments = normal(0, 2, 4, 8, 5), normal(1, 4, 4, 5, 3)
    assert_same(form, plain, *arguments)
    ours, theirs = (
        jax.jit(functools.partial(steepness_grads, which))(*arguments) for which in (form, plain)
    )
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(('form', 'plain'), PAIRS)
def test_nine_sixteenths_of_the_products(form, plain):
    x, kernel = normal(0, 8, 16, 16, 64), normal(1, 4, 4, 64, 64)

    def products(function) -> int:
        """Multiplications of a function's matrix products."""
        total = 0
        for equation in jax.make_jaxpr(function)(x, kernel).jaxpr.eqns:
            if equation.primitive.name == 'dot_general':
                (rows, inner), (_, columns) = (operand.aval.shape for operand in equation.invars)
                total += rows * inner * columns
        return total

    outputs = jax.eval_shape(plain, x, kernel).size
    # 16 taps of a strided convolution; of a transposed one each output sees a quarter.
    taps = 16 if form is winograd.halving_conv else 4
    assert products(form) == 9 / 16 * outputs * taps * 64


def test_they_are_the_forms_of_a_cpu_where_they_fit():
    def program(function, *shapes, dtype='float32') -> str:
        arguments = [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]
        return jax.jit(function).lower(*arguments).as_text()

    def count(text: str) -> tuple[int, int]:
        return text.count('stablehlo.dot_general'), text.count('stablehlo.convolution')

    def down(x, kernel):
        return convolution.conv(x, kernel, 2)

    kernel = (4, 4, 8, 16)
    assert count(program(down, (1, 8, 8, 8), kernel)) == (9, 0)
    assert count(program(down, (1, 6, 8, 8), kernel)) == (1, 0)  # as patches
    assert count(program(down, (1, 8, 8, 8), kernel, dtype='bfloat16')) == (1, 0)
    assert count(program(down, (1, 8, 8, 3), (4, 4, 3, 16))) == (1, 0)
    assert count(program(transposed.conv_transpose, (1, 4, 4, 8), kernel)) == (36, 0)
    assert count(program(transposed.conv_transpose, (1, 3, 4, 8), kernel)) == (0, 4)  # as phases
