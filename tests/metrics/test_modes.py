"""Modes and classes: probabilities made by hand, closed forms, and errors that hold."""

import numpy as np
import pytest
from scipy import stats

from gen_jax.metrics.modes import class_kl, mode_coverage


def sure(*counts: int) -> np.ndarray:
    """One-hot probabilities of so many examples of each class."""
    return np.repeat(np.eye(len(counts), dtype=np.float32), counts, axis=0)


def values(probabilities: np.ndarray, **options) -> dict[str, float]:
    return {name: value for name, (value, _) in mode_coverage(probabilities, **options).items()}


def test_by_hand():
    """Four classes: two clear samples of the first, a clear one of the second, an unclear one of
    the third, none of the fourth."""
    p = [[0.95, 0.05, 0, 0], [0.91, 0, 0.09, 0], [0.05, 0.95, 0, 0], [0, 0.2, 0.8, 0]]
    found = mode_coverage(np.array(p))
    assert found['confident'] == pytest.approx((3 / 4, np.std([1, 1, 1, 0], ddof=1) / 2))
    assert found['modes'][0] == 2
    assert found['smallest_class'] == (0, None)
    assert found['largest_class'] == pytest.approx((4 * 1 / 2, 4 * np.sqrt(0.5 * 0.5 / 4)))
    assert values(np.array(p), threshold=0.7)['modes'] == 3
    assert values(np.array(p), threshold=0.92)['confident'] == 2 / 4


def test_even_classes_are_at_one_and_a_collapsed_model_at_the_ends():
    even, collapsed = values(sure(*[5] * 10)), values(sure(50, *[0] * 9))
    assert even == {'confident': 1, 'modes': 10, 'smallest_class': 1, 'largest_class': 1}
    assert collapsed == {'confident': 1, 'modes': 1, 'smallest_class': 0, 'largest_class': 10}


def test_the_error_of_the_count_is_the_jackknife():
    """Written out: every sample is left out in turn."""
    p = sure(9, 1, 3, 1, 1, 0, 2)
    left_out = [values(np.delete(p, i, axis=0))['modes'] for i in range(len(p))]
    expected = np.sqrt((len(p) - 1) * np.var(left_out))
    assert mode_coverage(p)['modes'] == pytest.approx((6, expected))


def test_errors_are_those_of_repetitions():
    """Of samples of one law with a rare class, which is met or is not."""
    law, num = np.array([0.5, 0.3, 0.19, 0.01]), 100
    rng = np.random.default_rng(0)
    found = [mode_coverage(sure(*rng.multinomial(num, law))) for _ in range(600)]
    counts = np.array([f['modes'][0] for f in found])
    met = 1 - 0.99**num
    assert counts.mean() == pytest.approx(3 + met, abs=4 * np.sqrt(met * (1 - met) / 600))
    told = np.sqrt(np.mean([f['modes'][1] ** 2 for f in found]))
    assert counts.std() < told < 1.5 * counts.std()  # the jackknife's is rather too large
    largest = np.array([f['largest_class'] for f in found])
    assert largest[:, 0].mean() == pytest.approx(4 * 0.5, abs=0.05)
    assert largest[:, 1].mean() == pytest.approx(largest[:, 0].std(), rel=0.1)


def test_divergence_is_that_of_the_frequencies():
    samples, real = sure(30, 10, 0, 60), sure(200, 300, 100, 400)
    q = np.array([200.5, 300.5, 100.5, 400.5]) / 1002
    value, _ = class_kl(samples, real)
    assert value == pytest.approx(stats.entropy([0.3, 0.1, 0.0, 0.6], q))
    assert value == pytest.approx(
        0.3 * np.log(0.3 / q[0]) + 0.1 * np.log(0.1 / q[1]) + 0.6 * np.log(0.6 / q[3])
    )


def test_a_collapsed_model_loses_the_log_of_the_classes():
    even = sure(*[100] * 1000)
    assert class_kl(sure(50, *[0] * 999), even)[0] == pytest.approx(np.log(1000), rel=1e-9)
    assert class_kl(even, even)[0] == pytest.approx(0, abs=1e-12)


def test_a_class_that_the_real_examples_lack_makes_it_large_and_finite():
    value, error = class_kl(sure(50, 50), sure(1000, 0))
    assert value == pytest.approx(
        0.5 * np.log(0.5 * 1001 / 1000.5) + 0.5 * np.log(0.5 * 1001 / 0.5)
    )
    assert np.isfinite(error)


def test_the_error_of_the_divergence_is_the_jackknife():
    samples, real = sure(7, 1, 0, 4), sure(20, 30, 10, 40)
    left_out = [class_kl(np.delete(samples, i, axis=0), real)[0] for i in range(len(samples))]
    expected = np.sqrt((len(samples) - 1) * np.var(left_out))
    assert class_kl(samples, real)[1] == pytest.approx(expected)


def test_the_divergence_of_equal_laws_is_the_bias_that_is_told():
    """About (K - 1)/2 (1/N + 1/M)."""
    rng, law = np.random.default_rng(0), np.full(50, 1 / 50)
    draws = [
        class_kl(*(sure(*rng.multinomial(size, law)) for size in (2000, 5000)))[0]
        for _ in range(100)
    ]
    assert np.mean(draws) == pytest.approx(49 / 2 * (1 / 2000 + 1 / 5000), rel=0.08)


@pytest.mark.parametrize('function', [mode_coverage, lambda p: class_kl(p, sure(3, 4))])
def test_one_sample_is_too_few(function):
    with pytest.raises(ValueError, match='1 samples to count classes of'):
        function(sure(1, 0))
