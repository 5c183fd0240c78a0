"""What classifiers say, where the answer is known."""

import numpy as np
import pytest

from gen_jax.metrics.classifier import inception_style_score, two_sample_test


def test_score_is_the_number_of_classes_that_are_sure_and_even():
    probabilities = np.eye(10)[np.arange(1000) % 10]
    assert inception_style_score(probabilities) == pytest.approx((10, 0))
    assert inception_style_score(np.full((100, 10), 0.1))[0] == pytest.approx(1)
    assert inception_style_score(np.eye(10)[np.zeros(100, int)])[0] == pytest.approx(1)


def test_score_is_the_mean_over_splits():
    half = np.eye(4)[np.arange(40) % 4]
    one = np.eye(4)[np.zeros(40, int)]
    value, error = inception_style_score(np.concatenate([half, one]), num_splits=2)
    assert value == pytest.approx((4 + 1) / 2) and error == pytest.approx(1.5)
    with pytest.raises(ValueError, match='splits'):
        inception_style_score(half, num_splits=1)


def test_two_halves_of_one_sample_cannot_be_told_apart():
    rng = np.random.default_rng(0)
    inside = 0
    for seed in range(10):
        accuracy, error = two_sample_test(*rng.normal(size=(2, 300, 5)), seed=seed)
        inside += abs(accuracy - 0.5) < 1.96 * error
    assert inside >= 8


def test_few_examples_are_told_apart_where_anything_could():
    """Sixty examples three deviations apart in each of four dimensions, and two spreads."""
    rng = np.random.default_rng(0)
    for seed in range(3):
        first, second = rng.normal(size=(60, 4)), rng.normal(3, size=(60, 4))
        assert two_sample_test(first, second, seed)[0] > 0.98
        first, second = rng.normal(size=(300, 8)), rng.normal(scale=1.5, size=(300, 8))
        assert two_sample_test(first, second, seed)[0] > 0.58
    with pytest.raises(ValueError, match='20 needed'):
        two_sample_test(first[:19], second)


def test_other_laws_are_told_apart_as_well_as_can_be():
    """Unit Gaussians 2 apart: the best test is right with probability Phi(1) = 0.841."""
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(1500, 2)), rng.normal([2, 0], size=(1000, 2))
    accuracy, error = two_sample_test(first, second)
    assert abs(accuracy - 0.841) < 0.02 and 0.005 < error < 0.01
