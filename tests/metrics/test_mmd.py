"""MMD against the sums written out, its expectation, and the spread of repeated draws."""

import numpy as np
import pytest

from gen_jax.metrics import mmd as room
from gen_jax.metrics.mmd import gaussian_mmd, kid, mmd


def by_hand(x, y, kernel) -> float:
    m, n = len(x), len(y)
    xx = sum(kernel(x[i], x[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    yy = sum(kernel(y[i], y[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    return xx + yy - 2 * sum(kernel(a, b) for a in x for b in y) / (m * n)


def test_kid_equals_its_sums(monkeypatch):
    monkeypatch.setattr(room, '_CHUNK', 4)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(9, 3)), rng.normal(1, size=(7, 3))
    value, error = kid(x, y)
    assert value == pytest.approx(by_hand(x, y, lambda a, b: (a @ b / 3 + 1) ** 3), rel=1e-10)
    without = [kid(np.delete(x, i, 0), y)[0] for i in range(9)]
    other = [kid(x, np.delete(y, i, 0))[0] for i in range(7)]
    assert error == pytest.approx(np.sqrt(8 * np.var(without) + 6 * np.var(other)), rel=1e-8)


def test_kid_equals_the_closed_form_for_gaussians_in_expectation():
    """For x ~ N(0, 1), y ~ N(m, 1): E k(x, y) of (x y + 1)^3 = 1 + 3 E x^2 E y^2 + ..."""
    rng, shift = np.random.default_rng(0), 0.5

    def moment(power, mean):
        return {1: mean, 2: 1 + mean**2, 3: mean**3 + 3 * mean}[power]

    def expected(a, b):
        return 1 + sum(c * moment(p, a) * moment(p, b) for p, c in ((1, 3), (2, 3), (3, 1)))

    truth = expected(0, 0) + expected(shift, shift) - 2 * expected(0, shift)
    draws = [kid(rng.normal(size=(200, 1)), rng.normal(shift, size=(300, 1))) for _ in range(300)]
    values, errors = np.transpose(draws)
    assert abs(values.mean() - truth) < 4 * values.std() / np.sqrt(300)  # no bias
    assert np.sqrt((errors**2).mean()) == pytest.approx(values.std(), rel=0.2)


def test_gaussian_mmd_is_about_zero_for_one_law_and_grows_with_the_shift():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 2))
    same, near, far = (gaussian_mmd(x, rng.normal(s, size=(400, 2))) for s in (0, 0.5, 2))
    assert abs(same[0]) < 4 * same[1]
    assert far[0] > near[0] > 4 * near[1]


def test_gaussian_mmd_has_one_kernel_for_all_that_is_compared_with_one_sample():
    rng = np.random.default_rng(0)
    real = rng.normal(size=(400, 2))
    width = np.median(np.sqrt(((real[:, None] - real) ** 2).sum(-1))[np.triu_indices(400, 1)])
    for scale in (1, 8):
        x = scale * rng.normal(size=(300, 2))
        expected = mmd(
            x, real, lambda a, b: np.exp(-((a[:, None] - b) ** 2).sum(-1) / (2 * width**2))
        )
        assert gaussian_mmd(x, real) == pytest.approx(expected, rel=1e-6)


def test_too_few_are_refused():
    with pytest.raises(ValueError, match='at least 3'):
        mmd(np.ones((2, 1)), np.ones((5, 1)), lambda a, b: a @ b.T)
