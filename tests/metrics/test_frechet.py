"""The Fréchet distance against its closed form, scipy's square root, and its own identities."""

import numpy as np
import pytest
import scipy.linalg

from gen_jax.metrics.frechet import (
    Moments,
    frechet_distance,
    frechet_with_error,
    merge,
    moments,
)


def covariance(rng, size: int) -> np.ndarray:
    root = rng.normal(size=(size, 2 * size))
    return root @ root.T / size


def exact(mean, cov) -> Moments:
    """Moments that say exactly this of many examples."""
    return Moments(10**6, np.asarray(mean, float), np.asarray(cov, float) * (10**6 - 1))


def test_closed_form_of_commuting_covariances():
    first, second = exact([1, 2], np.diag([4.0, 9.0])), exact([0, 0], np.diag([1.0, 25.0]))
    # |m|^2 + sum (s1 - s2)^2
    assert frechet_distance(first, second) == pytest.approx(5 + 1 + 4, rel=1e-9)


def test_equals_the_textbook_formula_with_a_matrix_square_root():
    rng = np.random.default_rng(0)
    for size in (3, 40):
        first, second = (exact(rng.normal(size=size), covariance(rng, size)) for _ in range(2))
        root = scipy.linalg.sqrtm(first.covariance @ second.covariance)
        gap = first.mean - second.mean
        expected = gap @ gap + np.trace(first.covariance + second.covariance - 2 * np.real(root))
        assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-6)
        assert frechet_distance(second, first) == pytest.approx(expected, rel=1e-6)


def test_zero_for_itself_even_where_covariances_are_singular():
    features = np.random.default_rng(0).normal(size=(20, 50))
    assert frechet_distance(moments(features), moments(features)) < 1e-9


@pytest.mark.parametrize('cuts', [(1, 2), (100,), (3, 50, 299)])
def test_moments_merge_to_those_of_the_whole(cuts):
    features = 1e3 + np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
    whole = moments(features)
    parts = merge(moments(part) for part in np.split(features, cuts))
    assert parts.n == 300
    np.testing.assert_allclose(parts.mean, whole.mean, rtol=1e-12)
    np.testing.assert_allclose(parts.scatter, whole.scatter, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(whole.covariance, np.cov(features.T), rtol=1e-6)


def test_finite_samples_are_biased_upward_and_less_so_the_more_there_are():
    rng = np.random.default_rng(0)
    reference = exact(np.zeros(16), np.eye(16))
    means = [
        np.mean([frechet_distance(moments(rng.normal(size=(n, 16))), reference) for _ in range(40)])
        for n in (100, 400, 1600)
    ]
    assert means[0] > 2 * means[1] > 4 * means[2] > 0


def test_the_error_is_how_much_the_distance_varies():
    rng = np.random.default_rng(0)
    reference = exact(np.full(4, 0.5), 1.5 * np.eye(4))
    values, errors = np.transpose(
        [frechet_with_error(rng.normal(size=(500, 4)), reference) for _ in range(200)]
    )
    assert np.median(errors) == pytest.approx(values.std(), rel=0.25)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match='3 and of 4 dimensions'):
        frechet_distance(moments(np.ones((5, 3))), moments(np.ones((5, 4))))
    with pytest.raises(ValueError, match='at least two'):
        frechet_distance(moments(np.ones((1, 3))), moments(np.ones((5, 3))))


def test_an_error_needs_four_examples():
    with pytest.raises(ValueError, match='it needs 4'):
        frechet_with_error(np.eye(3), moments(np.eye(5)))
