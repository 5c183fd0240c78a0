"""Sliced Wasserstein against closed forms and scipy."""

import numpy as np
import pytest

from gen_jax.metrics.sliced_wasserstein import sliced_wasserstein


def test_a_shift_costs_its_length_over_the_root_of_the_dimension():
    """Projected on a random direction, a shift v has E (v . u)^2 = |v|^2 / D."""
    x = np.random.default_rng(0).normal(size=(200, 4))
    value, error = sliced_wasserstein(x, x + np.array([3, 0, 0, 4]), num_projections=4000)
    assert abs(value - 5 / 2) < 4 * error < 0.2
    assert sliced_wasserstein(x, x)[0] == 0


@pytest.mark.parametrize('sizes', [(5, 5), (5, 7), (4, 8)])
def test_in_one_dimension_it_is_the_wasserstein_distance(sizes):
    """Against transport by hand: both samples repeated to a common size, and sorted."""
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=(n, 1)) for n in sizes)
    common = np.lcm(*sizes)
    gap = np.sort(np.repeat(x, common // sizes[0])) - np.sort(np.repeat(y, common // sizes[1]))
    value, error = sliced_wasserstein(x, y)
    assert value == pytest.approx(np.sqrt((gap**2).mean()), rel=1e-9)
    assert error < 1e-9  # in one dimension all directions are one


def test_two_gaussians():
    """N(0, 1) and N(0, s^2) in every direction: the distance tends to |s - 1|."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20_000, 3)), 2 * rng.normal(size=(10_000, 3))
    assert sliced_wasserstein(x, y)[0] == pytest.approx(1, rel=0.02)
