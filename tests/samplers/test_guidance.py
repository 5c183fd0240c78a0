"""Guided predictors are the mixtures that their equations say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gen_jax.processes import gaussian
from gen_jax.samplers import guidance

X_T = jax.random.normal(jax.random.key(0), (4, 3))


def conditional(x_t, t):
    return 0.5 * x_t + t


def unconditional(x_t, t):
    return 0.2 * x_t - t


def forbidden(x_t, t):
    raise AssertionError('not to be asked')


@pytest.mark.parametrize('scale', [-1.0, 0.0, 0.5, 1.0, 3.0])
def test_guidance_is_the_line_through_both_estimates(scale):
    guided = guidance.classifier_free(conditional, unconditional, scale)(X_T, 0.3)
    expected = (1 - scale) * (0.2 * X_T - 0.3) + scale * (0.5 * X_T + 0.3)
    np.testing.assert_allclose(guided, expected, rtol=1e-5, atol=1e-6)


def test_scale_one_never_asks_the_unconditional_model():
    guided = guidance.classifier_free(conditional, forbidden, 1.0)
    np.testing.assert_array_equal(guided(X_T, 0.3), conditional(X_T, 0.3))


@pytest.mark.parametrize('prediction', gaussian.PREDICTIONS)
def test_guiding_the_data_is_guiding_any_prediction(prediction):
    process, t, scale = gaussian.linear(), jnp.full(4, 0.3), 2.5

    def as_x0(output):
        return gaussian.to_x0(process, prediction, output, X_T, t)

    with_label, without = jnp.sin(X_T), jnp.cos(X_T)  # two outputs of a network
    guided = guidance.classifier_free(
        lambda x_t, t: as_x0(with_label), lambda x_t, t: as_x0(without), scale
    )(X_T, t)
    mixed = as_x0(without + scale * (with_label - without))
    np.testing.assert_allclose(guided, mixed, rtol=1e-4, atol=1e-4)


def test_clipped_estimates_stay_in_the_range_of_the_data():
    def predict(x_t, t):
        return x_t

    x = jnp.array([-3.0, -1.0, 0.25, 1.5])
    np.testing.assert_array_equal(guidance.clipped(predict)(x, 0.5), [-1, -1, 0.25, 1])
    np.testing.assert_array_equal(guidance.clipped(predict, 0.0, 2.0)(x, 0.5), [0, 0, 0.25, 1.5])
