"""The share of pairs, and how far chance moves it."""

import numpy as np
import pytest

from gen_jax.metrics.mann_whitney import mann_whitney


def test_equal_numbers_count_half():
    value, _ = mann_whitney(np.array([1.0, 0.0]), np.array([0.0, 0.0, 2.0]))
    assert value == pytest.approx((2 / 3 + 1 / 3) / 2)
    assert mann_whitney(np.array([1.0]), np.array([0.0, 2.0])) == (0.5, None)


def test_the_error_is_how_far_chance_moves_it():
    rng = np.random.default_rng(0)
    found = [mann_whitney(rng.normal(0.5, 1, 150), rng.normal(0, 2, 100)) for _ in range(400)]
    values, errors = np.array(found).T
    assert np.median(errors) == pytest.approx(values.std(), rel=0.1)


def test_a_number_that_is_none_gives_none():
    assert np.isnan(mann_whitney(np.array([1.0, np.nan]), np.array([0.0, 2.0]))[0])
