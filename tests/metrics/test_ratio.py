"""Means over what examples hold."""

import numpy as np
import pytest

from gen_jax.metrics.ratio import ratio


def test_equal_counts_give_the_mean_and_its_standard_error():
    values = np.random.default_rng(0).normal(size=50)
    mean, stderr = ratio(values, np.ones(50))
    assert mean == pytest.approx(values.mean())
    assert stderr == pytest.approx(values.std(ddof=1) / np.sqrt(50))


def test_a_ratio_that_never_varies_has_no_error():
    counts = np.arange(1.0, 9)
    assert ratio(3 * counts, counts) == (pytest.approx(3), pytest.approx(0))
    assert ratio(np.array([6.0]), np.array([2.0])) == (3, None)


def test_the_error_is_that_of_repeated_draws():
    rng = np.random.default_rng(0)

    def draw():
        counts = rng.integers(1, 10, 200).astype(float)
        return ratio(counts * rng.uniform(0, 2, 200), counts)

    values, errors = np.array([draw() for _ in range(400)]).T
    assert errors.mean() == pytest.approx(values.std(), rel=0.15)
