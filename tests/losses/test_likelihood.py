"""Likelihoods against numerical integration and scipy, in float64."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from gen_jax.losses import likelihood
from gen_jax.types import DataSpec

MEANS = (-3.0, -1.3, -1.0, -0.501, 0.0, 0.2, 0.999, 1.0, 2.5)
DEVIATIONS = (1e-3, 1e-2, 0.1, 1.0, 30.0)


def level_values(levels: int) -> np.ndarray:
    return np.linspace(-1, 1, levels).astype(np.float32)


def exact_log_mass(x, mean, deviation: float, levels: int) -> np.ndarray:
    """Equation (3) in float64, the far tails included."""
    x, half = np.float64(x), 1 / (levels - 1)
    low = np.where(x < -1 + half, -np.inf, (x - half - mean) / deviation)
    high = np.where(x > 1 - half, np.inf, (x + half - mean) / deviation)
    flipped = x > mean  # a Gaussian is even, and log_ndtr is exact for small masses only
    low, high = np.where(flipped, -high, low), np.where(flipped, -low, high)
    log_low, log_high = scipy.special.log_ndtr(low), scipy.special.log_ndtr(high)
    return log_high + np.log(-np.expm1(log_low - log_high))


log_mass = jax.jit(likelihood.discretized_gaussian_log_mass, static_argnames='levels')


def log_masses(deviation: float, levels: int) -> np.ndarray:
    """`[means, levels]`: every level's log-mass under every one of `MEANS`."""
    mean, x = (a.reshape(-1, 1) for a in np.meshgrid(MEANS, level_values(levels), indexing='ij'))
    masses = log_mass(x, mean, np.float32(deviation**2), levels=levels)
    return np.asarray(masses, np.float64).reshape(len(MEANS), levels)


def test_sum_and_mean_leave_the_batch():
    x = jnp.arange(24.0).reshape(2, 3, 4)
    np.testing.assert_array_equal(likelihood.sum_per_example(x), [66, 210])
    np.testing.assert_array_equal(likelihood.mean_per_example(x), [5.5, 17.5])


@pytest.mark.parametrize(
    'm1, v1, m2, v2', [(0, 1, 0, 1), (0.3, 0.5, -1, 2), (-2, 3, 1, 0.4), (0, 1e-2, 0.05, 2e-2)]
)
def test_kl_is_the_integral_of_its_definition(m1, v1, m2, v2):
    grid = np.linspace(m1 - 12 * v1**0.5, m1 + 12 * v1**0.5, 20_001)
    log_p, log_q = (scipy.stats.norm.logpdf(grid, m, v**0.5) for m, v in ((m1, v1), (m2, v2)))
    expected = np.sum(np.exp(log_p) * (log_p - log_q)) * (grid[1] - grid[0])
    kl = likelihood.gaussian_kl(*(jnp.full((1, 1), float(u)) for u in (m1, v1, m2, v2)))
    np.testing.assert_allclose(kl[0], expected, rtol=1e-5, atol=1e-6)


def test_kl_sums_over_all_but_the_batch_and_is_not_symmetric():
    ones = jnp.ones((2, 3, 4))
    mean = jnp.array([0.0, 1.0])[:, None, None] * ones
    np.testing.assert_allclose(likelihood.gaussian_kl(mean, ones, 0.0, 1.0), [0, 6], atol=1e-6)
    there = likelihood.gaussian_kl(mean, ones, 0.0, 4.0)
    back = likelihood.gaussian_kl(mean, 4 * ones, 0.0, 1.0)
    assert np.all(np.abs(np.asarray(there - back)) > 1)


def test_log_density_is_scipys():
    x = np.linspace(-3, 3, 12).reshape(2, 3, 2)
    expected = scipy.stats.norm.logpdf(x, 0.4, 0.3).sum((1, 2))
    density = likelihood.gaussian_log_density(jnp.asarray(x), 0.4, 0.3**2)
    np.testing.assert_allclose(density, expected, rtol=1e-5)


@pytest.mark.parametrize('levels', [2, 4, 17, 256])
def test_discretized_masses_sum_to_one(levels):
    for deviation in DEVIATIONS:
        masses = log_masses(deviation, levels)
        assert np.all(masses <= 0)
        # A bin's mass is a difference of two: it has the digits that its width leaves it.
        width = 2 / (levels - 1) / deviation
        tolerance = (2e-6 + 3e-7 / width) * levels**0.5
        np.testing.assert_allclose(np.exp(masses).sum(1), 1, atol=tolerance, err_msg=deviation)


@pytest.mark.parametrize('levels', [2, 4, 17, 256])
def test_discretized_log_mass_is_exact_far_into_the_tails(levels):
    mean = np.array(MEANS)[:, None]
    for deviation in DEVIATIONS:
        masses = log_masses(deviation, levels)
        exact = exact_log_mass(level_values(levels), mean, deviation, levels)
        assert np.all(np.isfinite(masses))
        np.testing.assert_allclose(masses, exact, rtol=2e-4, atol=1e-3, err_msg=deviation)
        assert deviation > 0.01 or exact.min() < -1e4  # these are far tails


def test_discretized_mass_is_the_integral_of_the_density_over_its_bin():
    levels, deviation, half = 17, 0.2, 1 / 16
    nodes, weights = np.polynomial.legendre.leggauss(40)
    points = level_values(levels)[1:-1, None] + half * nodes
    density = scipy.stats.norm.pdf(points, np.array(MEANS)[:, None, None], deviation)
    masses = np.exp(log_masses(deviation, levels))[:, 1:-1]
    np.testing.assert_allclose(masses, density @ weights * half, rtol=2e-4, atol=1e-30)


def test_discretized_mass_is_a_sum_over_dimensions():
    x = level_values(4)[np.array([[0, 3], [1, 2]])]
    mean, variance = np.array([[0.1, -0.4], [0.3, 0.3]], np.float32), np.float32(0.09)
    both = log_mass(x, mean, variance, levels=4)
    parts = [log_mass(x[:, i : i + 1], mean[:, i : i + 1], variance, levels=4) for i in range(2)]
    np.testing.assert_allclose(both, parts[0] + parts[1], rtol=1e-6)


def test_discretized_mass_is_even_in_the_sign_of_everything():
    x, mean = level_values(16)[:, None], np.linspace(-2, 2, 16, dtype=np.float32)[:, None]
    here = log_mass(x, mean, np.float32(0.01), levels=16)
    there = log_mass(-x, -mean, np.float32(0.01), levels=16)
    np.testing.assert_allclose(here, there, rtol=1e-6)


def test_a_fair_coin_in_every_dimension_costs_one_bit():
    nats = jnp.full((3,), 28 * 28 * math.log(2))
    np.testing.assert_allclose(likelihood.bits_per_dim(nats, 28 * 28), 1, rtol=1e-6)


@pytest.mark.parametrize('levels', [2, 17, 256])
def test_a_uniform_density_costs_log2_of_the_levels(levels):
    # Dequantized data fills [-1, 1), where the uniform density is 1/2 in every dimension.
    nats = jnp.full((2,), 12 * math.log(2))
    bits = likelihood.dequantized_bits_per_dim(nats, 12, levels)
    np.testing.assert_allclose(bits, math.log2(levels), rtol=1e-6)


def test_dequantized_bits_bound_the_discrete_ones_for_a_density_constant_on_each_level():
    # Then Jensen's inequality is an equality: the bound is the entropy of the levels.
    levels, masses = 4, np.array([0.1, 0.2, 0.3, 0.4])
    density = masses / (2 / levels)
    bits = likelihood.dequantized_bits_per_dim(jnp.asarray(-np.log(density)), 1, levels)
    np.testing.assert_allclose(bits, -np.log2(masses), rtol=1e-5)


def test_likelihoods_are_told_in_the_units_of_the_data():
    nats = jnp.array([12.0, 3.0])
    spec = DataSpec((2, 3), levels=8)
    mass = likelihood.of_data(nats, spec, is_mass=True)
    np.testing.assert_array_equal(mass['nats'], nats)
    np.testing.assert_allclose(mass['bits_per_dim'], nats / 6 / np.log(2), rtol=1e-6)
    # A density of 1 on bins of width 2/8 is a mass of 1/4 each: 2 bits.
    noisy = likelihood.of_data(jnp.zeros(2), spec._replace(dequantized=True), is_mass=False)
    np.testing.assert_allclose(noisy['bits_per_dim'], 2, rtol=1e-6)
    density = likelihood.of_data(nats, DataSpec((2, 3)), is_mass=False)
    np.testing.assert_allclose(density['nats_per_dim'], nats / 6, rtol=1e-6)
    assert 'bits_per_dim' not in density
