"""Splines against their equations number by number, and against what every spline must be."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

from gen_jax.networks.splines import rational_quadratic

BOUND, BINS = 3.0, 5
GENERATOR = np.random.default_rng(1)
PARAMETERS = GENERATOR.normal(size=(40, 3 * BINS - 1)).astype(np.float32)
X = np.linspace(-BOUND, BOUND, 42, dtype=np.float32)[1:-1]


def knots(logits):
    """Bins of shares 0.01 / K + 0.99 softmax."""
    shares = 0.01 / BINS + 0.99 * np.exp(log_softmax(logits))
    return np.concatenate([[-BOUND], -BOUND + 2 * BOUND * np.cumsum(shares)])


def by_equation(x, parameters):
    """f(x) and log f'(x) of one number, in float64, by equations (1) to (3)."""
    widths, heights, slopes = np.split(parameters.astype(np.float64), [BINS, 2 * BINS])
    across, up = knots(widths), knots(heights)
    # softplus(0 + shift) + 0.001 = 1
    inner = 1e-3 + np.logaddexp(0, slopes + np.log(np.exp(0.999) - 1))
    d = np.concatenate([[1.0], inner, [1.0]])
    k = np.searchsorted(across, x, side='right') - 1
    w, h = across[k + 1] - across[k], up[k + 1] - up[k]
    s, u = h / w, (x - across[k]) / w
    n = s + (d[k + 1] + d[k] - 2 * s) * u * (1 - u)
    value = up[k] + h * (s * u**2 + d[k] * u * (1 - u)) / n
    slope = s**2 * (d[k + 1] * u**2 + 2 * s * u * (1 - u) + d[k] * (1 - u) ** 2) / n**2
    return value, np.log(slope)


def test_it_is_its_equations():
    value, log_slope = rational_quadratic(X, PARAMETERS, bound=BOUND)
    expected = np.array([by_equation(float(x), p) for x, p in zip(X, PARAMETERS, strict=True)])
    np.testing.assert_allclose(value, expected[:, 0], atol=1e-5)
    np.testing.assert_allclose(log_slope, expected[:, 1], atol=1e-4)


def test_the_slope_is_that_of_its_values_and_the_inverse_takes_it_back():
    value, log_slope = rational_quadratic(X, PARAMETERS, bound=BOUND)
    derivative = jax.jit(jax.vmap(jax.grad(lambda *a: rational_quadratic(*a, bound=BOUND)[0])))
    np.testing.assert_allclose(np.exp(log_slope), derivative(X, PARAMETERS), rtol=1e-4)
    back, log_back = rational_quadratic(value, PARAMETERS, bound=BOUND, inverse=True)
    np.testing.assert_allclose(back, X, atol=1e-5)
    np.testing.assert_allclose(log_back, -log_slope, atol=1e-4)


def test_it_rises_everywhere_from_bound_to_bound_and_its_slope_never_jumps():
    spline = jax.jit(functools.partial(rational_quadratic, bound=BOUND))
    jumps = []
    for num in (1001, 8001):
        x = np.linspace(-BOUND - 0.1, BOUND + 0.1, num, dtype=np.float32)
        value, log_slope = spline(x, np.tile(PARAMETERS[0], (num, 1)))
        assert (np.diff(value) > 0).all()
        np.testing.assert_allclose(value[np.array([0, -1])], x[[0, -1]])
        jumps.append(np.abs(np.diff(log_slope)).max())
    assert jumps[1] < jumps[0] / 6


@pytest.mark.parametrize('inverse', [False, True])
def test_it_is_the_identity_outside_and_of_zeros(inverse):
    far = np.array([-100, -BOUND, BOUND, 3.5], np.float32)
    for x, parameters in ((far, PARAMETERS[:4]), (X, np.zeros_like(PARAMETERS))):
        value, log_slope = rational_quadratic(x, parameters, bound=BOUND, inverse=inverse)
        np.testing.assert_allclose(value, x, atol=1e-6)
        np.testing.assert_allclose(log_slope, 0, atol=1e-5)


@pytest.mark.parametrize('inverse', [False, True])
def test_gradients_are_finite_at_the_bounds_and_beyond_them_too(inverse):
    x = jnp.array([-1e6, -BOUND, 0.0, BOUND, 1e6])

    def total(x, parameters):
        value, log_slope = rational_quadratic(x, parameters, bound=BOUND, inverse=inverse)
        return value.sum() + log_slope.sum()

    for gradient in jax.jit(jax.grad(total, (0, 1)))(x, jnp.asarray(PARAMETERS[:5])):
        assert np.isfinite(gradient).all()
