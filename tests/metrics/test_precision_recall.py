"""Precision, recall, density and coverage: the published package's answers, and plain cases."""

import numpy as np
import pytest

from gen_jax.metrics.precision_recall import precision_recall

NAMES = ('precision', 'recall', 'density', 'coverage')


def values(*arguments, **options) -> dict[str, float]:
    return {name: value for name, (value, _) in precision_recall(*arguments, **options).items()}


@pytest.mark.parametrize('k', [1, 5])
def test_equals_the_published_package(k):
    prdc = pytest.importorskip('prdc')
    rng = np.random.default_rng(0)
    real, samples = rng.normal(size=(300, 8)), rng.normal(0.3, 0.9, size=(250, 8))
    theirs = prdc.compute_prdc(real_features=real, fake_features=samples, nearest_k=k)
    ours = values(real, samples, k=k)
    for name in NAMES:
        assert ours[name] == pytest.approx(theirs[name], rel=1e-6), name


def test_on_a_line():
    """Real 0, 1, 2, 10 with k = 1: balls of radius 1, 1, 1, 8. Samples at 0.5, 1.5 and 30."""
    real, samples = np.array([[0.0], [1], [2], [10]]), np.array([[0.5], [1.5], [30]])
    found = values(real, samples, k=1)
    assert found['precision'] == pytest.approx(2 / 3)  # 30 lies in no ball
    assert found['density'] == pytest.approx((2 + 2) / 3)
    assert found['coverage'] == pytest.approx(3 / 4)  # the ball around 10 ends at 2, open
    assert found['recall'] == pytest.approx(3 / 4 + 1 / 4)  # the ball around 30 reaches to 1.5


def test_a_model_of_one_mode_is_precise_and_recalls_little():
    rng = np.random.default_rng(0)
    real = np.concatenate([rng.normal(c, 0.1, size=(200, 2)) for c in (0, 5)])
    found = precision_recall(real, rng.normal(0, 0.1, size=(400, 2)))
    assert found['precision'][0] > 0.9
    assert 0.4 < found['recall'][0] < 0.55 and 0.4 < found['coverage'][0] < 0.55
    assert found['density'][0] > 0.5
    assert 0 < found['recall'][1] < 0.03  # a coin's standard error


def test_too_few_are_refused():
    with pytest.raises(ValueError, match='more than k = 5'):
        precision_recall(np.ones((5, 1)), np.ones((9, 1)))
