"""Grids and signs against the papers' formulas, written out, and sums over all codes."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, softmax

from gen_jax.quantizers.scalar import fsq, lfq

GRIDS = [(3,), (4,), (8, 5, 5), (3, 4, 5, 6), (7, 16), (500,)]


def random_vectors(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def run(quantizer, z):
    return jax.jit(lambda z: quantizer.quantize({}, z, None, train=True))(z)


def bound(levels, z):
    """The function of the paper's listing, in float64."""
    levels = np.array(levels)
    half = (levels - 1) * (1 - 1e-3) / 2
    offset = np.where(levels % 2 == 1, 0.0, 0.5)
    return np.tanh(np.float64(z) + np.tan(offset / half)) * half - offset


@pytest.mark.parametrize('levels', GRIDS, ids=str)
def test_every_code_of_a_grid_is_reached(levels):
    """z runs over a fine mesh along each channel; all combinations of its levels are codes."""
    quantizer = fsq(levels)
    sizes = np.array(levels)
    # For each level of a channel the z whose bounded value is the level itself.
    axes = []
    for size in sizes:
        half, offset = (size - 1) * (1 - 1e-3) / 2, 0.5 * (size % 2 == 0)
        level = np.arange(size) - size // 2
        inside = np.clip((level + offset) / half, -1 + 1e-6, 1 - 1e-6)
        axes.append(np.arctanh(inside) - np.tan(offset / half))
    z = np.array(list(itertools.product(*axes)), np.float32)
    done = run(quantizer, z)
    assert quantizer.num_codes == np.prod(sizes) == len(z)
    assert sorted(np.asarray(done.codes).tolist()) == list(range(quantizer.num_codes))
    np.testing.assert_allclose(done.metrics['usage'], 1)
    np.testing.assert_allclose(quantizer.lookup({}, done.codes), done.values, rtol=1e-6)
    assert done.values.min() >= -1 and done.values.max() <= 1


def test_codes_of_a_grid_are_the_papers():
    levels = (8, 5, 6)
    z = 2 * random_vectors(500, 3)
    done = run(fsq(levels), z)
    rounded = np.round(bound(levels, z))
    half_width = np.array(levels) // 2
    np.testing.assert_allclose(done.values, rounded / half_width, rtol=1e-6)
    digits = rounded + half_width
    np.testing.assert_array_equal(done.codes, digits @ np.array([1, 8, 40]))
    np.testing.assert_array_equal(done.loss, 0)


def test_a_grids_gradient_is_that_of_the_bound():
    levels, z = (8, 5, 6), random_vectors(4, 3)
    weight = random_vectors(4, 3, seed=1)
    slope = jax.grad(lambda z: jnp.sum(weight * run(fsq(levels), z).values))(z)
    step = 1e-6
    rise = (bound(levels, z + np.float64(step)) - bound(levels, z - np.float64(step))) / (2 * step)
    np.testing.assert_allclose(slope, weight * rise / (np.array(levels) // 2), rtol=1e-4)


def test_signs_and_their_codes():
    quantizer = lfq(4)
    codes = np.arange(16)
    values = np.array([[1 if code >> i & 1 else -1 for i in range(4)] for code in codes])
    np.testing.assert_array_equal(quantizer.lookup({}, codes), values)
    done = run(quantizer, (0.1 * values).astype(np.float32))
    np.testing.assert_array_equal(done.codes, codes)
    np.testing.assert_array_equal(done.values, values)
    assert run(quantizer, np.zeros((1, 4), np.float32)).codes[0] == 0  # the paper's sign of 0


def by_all_codes(z, bits, temperature):
    """E H(p) of each example and H(E p), with p a softmax over all codes, in float64."""
    codes = np.array(list(itertools.product([-1, 1], repeat=bits)))
    distance = np.sum((np.float64(z)[..., None, :] - codes) ** 2, -1)
    p = softmax(-distance / temperature, -1)
    own = -np.sum(p * np.log(p), -1).mean(1)
    law = p.reshape(-1, 2**bits).mean(0)
    return own, -np.sum(law * np.log(law))


@pytest.mark.parametrize('bits', [1, 2, 5])
@pytest.mark.parametrize('temperature', [0.5, 1.0, 3.0])
def test_entropies_are_sums_over_all_codes(bits, temperature):
    z = random_vectors(6, 7, bits)
    z[..., -1] = z[..., 0]  # bits that depend on each other
    quantizer = lfq(bits, entropy=0.3, diversity=0.7, commitment=0.2, temperature=temperature)
    done = run(quantizer, z)
    own, marginal = by_all_codes(z, bits, temperature)
    np.testing.assert_allclose(done.metrics['entropy'], own.mean(), rtol=1e-5)
    np.testing.assert_allclose(done.metrics['marginal_entropy'], marginal, rtol=1e-5)
    error = ((z - np.where(z > 0, 1, -1)) ** 2).mean((1, 2))
    np.testing.assert_allclose(
        done.loss, 0.2 * error + 0.3 * (own - 0.7 * marginal), rtol=1e-5, atol=1e-6
    )


def test_copies_of_a_bit_are_not_diverse():
    """The sum over bits of the entropies of their marginals would be three times log 2."""
    z = np.repeat(np.array([[-9.0], [9.0]], np.float32), 3, 1)
    marginal = run(lfq(3), z).metrics['marginal_entropy']
    np.testing.assert_allclose(marginal, np.log(2), rtol=1e-5)


def test_the_gradient_of_signs():
    z, weight = random_vectors(2, 3, 2), random_vectors(2, 3, 2, seed=1)
    slope = jax.grad(lambda z: jnp.sum(weight * run(lfq(2), z).values))(z)
    np.testing.assert_array_equal(slope, weight)

    # Of the loss: commitment by hand, entropies by the binary entropy's slope -u S(u) S(-u).
    slope = jax.grad(lambda z: jnp.sum(run(lfq(2, diversity=0), z).loss))(z)
    committed = 0.25 * 2 * (z - np.where(z > 0, 1, -1)) / 6
    u = 4 * z
    sure = 0.1 * 4 * -u * expit(u) * expit(-u) / 3
    np.testing.assert_allclose(slope, committed + sure, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('temperature', [1e-3, 1.0])
def test_the_gradient_of_signs_is_finite_far_from_zero(temperature):
    z = 100 * random_vectors(4, 16)
    slope = jax.grad(lambda z: jnp.sum(run(lfq(16, temperature=temperature), z).loss))(z)
    assert np.isfinite(slope).all()


def test_diversity_spreads_what_fell_together():
    """All vectors begin in one orthant; descent on the loss alone spreads them over most."""
    z = jnp.asarray(1 + 0.1 * random_vectors(64, 1, 3))
    quantizer = lfq(3, entropy=1.0)
    assert run(quantizer, z).metrics['usage'] == 1 / 8
    slope = jax.jit(jax.grad(lambda z: jnp.mean(quantizer.quantize({}, z, None, train=True).loss)))
    for _ in range(200):
        z = z - 30 * slope(z)
    assert run(quantizer, z).metrics['usage'] > 0.5
