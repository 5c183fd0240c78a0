"""Sliced Wasserstein against closed forms and scipy."""

import numpy as np
import pytest

from gen_jax.metrics.sliced_wasserstein import sliced_wasserstein


def test_a_shift_costs_its_length_over_the_root_of_the_dimension():
    """Projected on a random direction, a shift v has E (v . u)^2 = |v|^2 / D."""
    x = np.random.default_rng(0).normal(size=(200, 4))
    value, _ = sliced_wasserstein(x, x + np.array([3, 0, 0, 4]), num_projections=4000)
    assert value == pytest.approx(5 / 2, rel=0.03)
    assert sliced_wasserstein(x, x)[0] == 0


@pytest.mark.parametrize('sizes', [(15, 15), (15, 21), (12, 24)])
def test_in_one_dimension_it_is_the_wasserstein_distance(sizes):
    """Against transport by hand: both samples repeated to a common size, and sorted."""
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=(n, 1)) for n in sizes)
    common = np.lcm(*sizes)
    gap = np.sort(np.repeat(x, common // sizes[0])) - np.sort(np.repeat(y, common // sizes[1]))
    value, _ = sliced_wasserstein(x, y)
    assert value == pytest.approx(np.sqrt((gap**2).mean()), rel=1e-9)


@pytest.mark.parametrize('shift', [0.0, 0.5])
def test_the_error_is_how_far_the_value_moves_when_samples_are_drawn_anew(shift):
    rng = np.random.default_rng(0)
    reference = rng.normal(size=(1000, 2))
    draws = [
        sliced_wasserstein(rng.normal(shift, size=(503, 2)), reference, num_projections=50)
        for _ in range(100)
    ]
    values, errors = np.transpose(draws)
    # Near zero the distance is no smooth function of the sample, and its error is too large.
    assert 0.75 < np.median(errors) / values.std() < (1.25 if shift else 2.5)


def test_too_few_are_refused():
    with pytest.raises(ValueError, match='10 are needed'):
        sliced_wasserstein(np.ones((9, 2)), np.ones((20, 2)))


def test_two_gaussians():
    """N(0, 1) and N(0, s^2) in every direction: the distance tends to |s - 1|."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20_000, 3)), 2 * rng.normal(size=(10_000, 3))
    assert sliced_wasserstein(x, y)[0] == pytest.approx(1, rel=0.02)
