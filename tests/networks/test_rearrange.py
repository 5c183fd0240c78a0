"""Arrays in other shapes: what goes where, and what a gradient does not copy."""

import re

import jax
import jax.numpy as jnp
import numpy as np

from gen_jax.networks import rearrange
from tests.networks.forms import normal


def test_interleave_puts_one_of_each_phase_in_every_square():
    phases = [jnp.full((1, 1, 2, 1), float(i)) for i in range(9)]
    image = rearrange.interleave(*phases)[0, :, :, 0]
    np.testing.assert_array_equal(image, np.tile(np.arange(9.0).reshape(3, 3), 2))


def test_gradient_of_a_flat_matmul_transposes_no_activations():
    x, kernel = normal(0, 4, 6, 10, 12), normal(1, 12, 14)

    def transposes(function) -> int:
        grad = jax.jit(lambda x, k: jax.grad(lambda k: jnp.sin(function(x, k)).sum())(k))
        found = re.findall(
            r'f32\[([\d,]*)\]\S* transpose\(', grad.lower(x, kernel).compile().as_text()
        )
        sizes = [np.prod([int(n) for n in shape.split(',')]) for shape in found]
        return sum(size > kernel.size for size in sizes)

    assert transposes(rearrange.flat_matmul) == 0
    assert transposes(jnp.matmul) > 0
    np.testing.assert_allclose(rearrange.flat_matmul(x, kernel), x @ kernel, rtol=1e-5, atol=1e-5)


def test_upsample_repeats_pixels_and_crops():
    x = normal(0, 2, 4, 4, 3)
    doubled = np.repeat(np.repeat(x, 2, 1), 2, 2)
    np.testing.assert_array_equal(rearrange.upsample(x, 8, 8), doubled)
    np.testing.assert_array_equal(rearrange.upsample(x, 7, 8), doubled[:, :7])
