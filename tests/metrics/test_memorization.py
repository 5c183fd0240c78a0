"""Copies are found, and real unseen data is not called a copy."""

import numpy as np
import pytest

from gen_jax.metrics.memorization import digests, exact_copies, memorization


def real(rng, n: int) -> np.ndarray:
    """Two clusters in eight dimensions: like data, no two places are equally dense."""
    return rng.normal(size=(n, 8)) * rng.choice([0.3, 1.0], size=(n, 1))


def test_fresh_data_is_flagged_no_more_often_than_the_level_says():
    rng = np.random.default_rng(0)
    results = [memorization(real(rng, 500), real(rng, 300), real(rng, 300)) for _ in range(100)]
    assert sum(result.flagged for result in results) <= 4  # 1 expected; P(5 or more) is 0.4 %
    nearer = np.array([result.nearer for result in results])
    assert abs(nearer.mean() - 0.5) < 4 * nearer.std() / 10
    errors = np.array([result.nearer_error for result in results])
    copied = np.array([result.copied for result in results])
    assert abs(copied.mean()) < 4 * copied.std() / 10
    assert np.median(errors) == pytest.approx(nearer.std(), rel=0.3)


def test_a_generator_that_copies_a_tenth_is_flagged():
    rng = np.random.default_rng(0)
    for noise in (0.0, 1e-3):
        found = 0
        for _ in range(20):
            train, samples, held_out = (real(rng, n) for n in (500, 300, 300))
            samples[:30] = train[rng.choice(500, 30)] + noise * rng.normal(size=(30, 8))
            result = memorization(train, samples, held_out)
            found += result.flagged
            assert exact_copies(digests(train), samples)[0] == (0.1 if noise == 0 else 0)
            assert result.copied > 0.08 > 3 * result.copied_error
        assert found == 20


def test_a_generator_that_leans_towards_its_training_set_is_flagged():
    rng = np.random.default_rng(0)
    train, held_out = real(rng, 500), real(rng, 300)
    lean = 0.3 * real(rng, 300) + 0.7 * train[:300]
    result = memorization(train, lean, held_out)
    assert result.flagged and result.nearer > 0.6


def test_too_few_are_refused():
    with pytest.raises(ValueError, match='at least 20'):
        memorization(np.ones((50, 1)), np.ones((19, 1)), np.ones((50, 1)))
