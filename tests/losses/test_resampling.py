"""Draws that are chosen by their weights."""

import jax
import jax.numpy as jnp
import numpy as np

from gen_jax.losses.resampling import scale_gradient, systematic_resample, take


def test_each_draw_comes_as_often_as_its_weight_says_and_never_more_than_once_off():
    num_draws, num_examples, num = 6, 5, 4
    log_weights = 2 * jax.random.normal(jax.random.key(0), (num_draws, num_examples))
    v = np.exp(log_weights) / np.exp(log_weights).sum(0)
    keys = jax.random.split(jax.random.key(1), 4000)
    chosen, of_chosen = jax.vmap(lambda key: systematic_resample(key, log_weights, num))(keys)
    assert chosen.shape == of_chosen.shape == (4000, num, num_examples)
    counts = (np.asarray(chosen)[:, :, None] == np.arange(num_draws)[:, None]).sum(1)
    assert np.all(np.abs(counts - num * v) < 1 + 1e-4)
    np.testing.assert_allclose(counts.mean(0), num * v, atol=0.05)
    rows = np.take_along_axis(v[None].repeat(4000, 0), np.asarray(chosen), 1)
    np.testing.assert_allclose(of_chosen, rows, rtol=1e-5)


def test_one_weight_above_all_others_is_always_chosen():
    log_weights = jnp.array([[0.0], [1e4], [-1e4]])
    chosen, v = systematic_resample(jax.random.key(0), log_weights, 3)
    assert chosen.ravel().tolist() == [1, 1, 1]
    np.testing.assert_array_equal(v, 1.0)


def test_values_are_taken_by_number():
    values = jnp.arange(24.0).reshape(3, 2, 4)  # three draws of two examples
    taken = take(values, jnp.array([[2, 0]]))
    np.testing.assert_array_equal(taken[0], np.stack([values[2, 0], values[0, 1]]))


def test_a_scaled_gradient_leaves_the_value():
    x = jnp.array([0.1, 0.7])
    value, gradient = jax.value_and_grad(lambda x: jnp.square(scale_gradient(x, 3.0)).sum())(x)
    assert value == jnp.square(x).sum()
    np.testing.assert_allclose(gradient, 3 * 2 * x, rtol=1e-6)
