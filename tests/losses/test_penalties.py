"""Penalties on slopes against finite differences, and against functions whose slope is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gen_jax.losses import penalties


def curved(x):
    """Something with another slope at each place; `[B, 4, 2]` to `[B]`."""
    weights = jnp.linspace(-1, 1, 8).reshape(4, 2)
    return jnp.sum(jnp.tanh(x * weights) + 0.1 * x**2, (1, 2))


def by_differences(function, x: np.ndarray, step: float = 1e-3) -> np.ndarray:
    """The squared slope of each row, from differences along every axis, in float64."""
    squares = np.zeros(len(x))
    with jax.enable_x64(True):
        for place in np.ndindex(*x.shape[1:]):
            move = np.zeros(x.shape)
            move[(slice(None), *place)] = step
            high, low = (function(jnp.asarray(x + sign * move)) for sign in (1, -1))
            squares += (np.asarray(high - low) / (2 * step)) ** 2
    return squares


def test_zero_centered_penalties_equal_finite_differences():
    x = np.random.default_rng(0).normal(size=(5, 4, 2))
    found = penalties.zero_centered(curved, jnp.float32(x))
    np.testing.assert_allclose(found, by_differences(curved, x) / 2, rtol=1e-4)


def test_the_gradient_penalty_equals_finite_differences_between_the_pairs():
    rng = np.random.default_rng(1)
    real, made = rng.normal(size=(2, 6, 4, 2))
    key = jax.random.key(3)
    share = np.float64(jax.random.uniform(key, (6, 1, 1)))
    between = made + share * (real - made)
    wanted = (np.sqrt(by_differences(curved, between)) - 1) ** 2
    found = penalties.gradient_penalty(curved, jnp.float32(real), jnp.float32(made), key)
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


def test_points_between_are_spread_over_the_whole_line():
    """D = x^2 / 2 has the slope x, which tells where it was looked at."""
    real, made = jnp.ones((4000, 1)), jnp.zeros((4000, 1))
    found = penalties.gradient_penalty(lambda x: x[:, 0] ** 2 / 2, real, made, jax.random.key(0))
    shares = np.sort(1 - np.sqrt(found))
    np.testing.assert_allclose(shares, (np.arange(4000) + 0.5) / 4000, atol=0.03)


def test_a_discriminator_that_says_nothing_has_a_finite_slope_to_learn_from():
    def loss(weight):
        d = lambda x: weight * x[:, 0]  # noqa: E731
        return penalties.gradient_penalty(
            d, jnp.ones((2, 1)), -jnp.ones((2, 1)), jax.random.key(0)
        ).sum()

    assert np.isfinite(jax.grad(loss)(0.0))


def test_the_slope_of_a_penalty_itself_is_right():
    """D = a x: R1 = a^2 / 2, whose slope along a is a; the gradient penalty's is 2 (a - 1)."""
    x, key = jnp.ones((3, 1)), jax.random.key(0)

    def r1(a):
        return penalties.zero_centered(lambda x: a * x[:, 0], x).mean()

    def penalty(a):
        return penalties.gradient_penalty(lambda x: a * x[:, 0], x, -x, key).mean()

    assert jax.grad(r1)(3.0) == pytest.approx(3.0)
    assert jax.grad(penalty)(3.0) == pytest.approx(4.0)


def test_consistency_by_hand():
    d = lambda x: 2 * x[:, 0]  # noqa: E731
    found = penalties.consistency(d, jnp.array([[1.0], [2.0]]), jnp.array([[1.5], [2.0]]))
    np.testing.assert_allclose(found, [1, 0])


def test_path_lengths_of_a_linear_generator():
    """x = A w of one layer: E |A' y|^2 = |A|_F^2 / pixels; of two layers that enter, their mean."""
    matrix = jax.random.normal(jax.random.key(0), (6, 4 * 4))

    def synthesize(w):
        return (w[:, 0] @ matrix).reshape(-1, 4, 4, 1)

    def both(w):
        return synthesize(w) + synthesize(w[:, 1:])

    square = float(jnp.sum(matrix**2)) / 16
    one = penalties.path_lengths(synthesize, jnp.zeros((4000, 1, 6)), jax.random.key(1))
    two = penalties.path_lengths(both, jnp.zeros((4000, 2, 6)), jax.random.key(1))
    assert float(jnp.mean(one**2)) == pytest.approx(square, rel=0.05)
    np.testing.assert_allclose(one, two, rtol=1e-5)
