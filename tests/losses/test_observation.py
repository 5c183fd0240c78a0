"""What decoders say of data, against SciPy and against sums over all levels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from gen_jax.errors import InputError
from gen_jax.losses import observation
from gen_jax.types import DataSpec

GRAY, COLOR = DataSpec((1, 1, 1), levels=5), DataSpec((1, 1, 2), levels=4)
POINTS = DataSpec((3,))


def numbers(law, spec, num: int, seed: int = 0) -> jnp.ndarray:
    shape = (num, *spec.shape[:-1], law.out_channels + law.num_extra)
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def every_value(spec) -> np.ndarray:
    """Every example that there is, of one pixel."""
    levels = np.linspace(-1, 1, spec.levels, dtype=np.float32)
    grid = np.meshgrid(*[levels] * spec.shape[-1], indexing='ij')
    return np.stack([axis.ravel() for axis in grid], -1).reshape(-1, *spec.shape)


MASSES = {
    'bernoulli': (observation.bernoulli, DataSpec((1, 1, 2), levels=2)),
    'logistic': (observation.logistic, COLOR),
    'logistic_mixture': (lambda spec: observation.logistic_mixture(spec, 3), COLOR),
    'categorical': (observation.categorical, COLOR),
}


@pytest.mark.parametrize('name', MASSES)
def test_masses_sum_to_one_and_draws_follow_them(name):
    make, spec = MASSES[name]
    law, values = make(spec), every_value(spec)
    assert law.is_mass
    one = numbers(law, spec, 1)
    mass = np.exp(law.log_prob(values, jnp.repeat(one, len(values), 0)))
    np.testing.assert_allclose(mass.sum(), 1, atol=1e-5)
    num = 20_000
    drawn = np.asarray(law.sample(jax.random.key(1), jnp.repeat(one, num, 0)))
    distance = np.abs(drawn[:, None] - values[None]).reshape(num, len(values), -1).max(-1)
    assert distance.min(1).max() < 1e-6  # on the levels
    counts = np.bincount(distance.argmin(1), minlength=len(values))
    seen = mass * num > 5
    assert counts[~seen].sum() <= 3 * 5 * (~seen).sum()
    expected = np.float64(mass[seen])
    expected *= counts[seen].sum() / expected.sum()
    assert stats.chisquare(counts[seen], expected).pvalue > 1e-3


def test_bernoulli_is_scipys_and_shows_its_mean():
    spec = DataSpec((2, 2, 1), levels=2)
    law = observation.bernoulli(spec)
    logits = numbers(law, spec, 3)
    x = np.sign(np.random.default_rng(1).normal(size=(3, *spec.shape))).astype(np.float32)
    chance = 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
    expected = stats.bernoulli.logpmf(x > 0, chance).reshape(3, -1).sum(1)
    np.testing.assert_allclose(law.log_prob(x, logits), expected, rtol=1e-5)
    np.testing.assert_allclose(law.mean(logits), 2 * chance - 1, atol=1e-6)


@pytest.mark.parametrize('name', ['given', 'learned', 'of_each'])
def test_gaussians_are_scipys(name):
    law = {
        'given': lambda: observation.gaussian(POINTS, sigma=0.3),
        'learned': lambda: observation.gaussian(POINTS),
        'of_each': lambda: observation.gaussian_of_each(POINTS),
    }[name]()
    assert not law.is_mass
    parameters = numbers(law, POINTS, 4)
    x = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)
    mean, rest = np.asarray(parameters[:, :3]), np.asarray(parameters[:, 3:])
    deviation = {'given': 0.3, 'learned': np.exp(rest), 'of_each': np.exp(rest / 2)}[name]
    expected = stats.norm.logpdf(x, mean, deviation).sum(1)
    np.testing.assert_allclose(law.log_prob(x, parameters), expected, rtol=1e-5)
    np.testing.assert_array_equal(law.mean(parameters), mean)
    many = law.sample(jax.random.key(0), jnp.repeat(parameters[:1], 20_000, 0))
    wide = np.broadcast_to(deviation, (4, 3))[0]
    np.testing.assert_allclose(many.mean(0), mean[0], atol=4 * wide.max() / np.sqrt(20_000))
    np.testing.assert_allclose(many.std(0), wide, rtol=0.02)


@pytest.mark.parametrize('name', ['logistic_mixture', 'categorical'])
def test_what_is_shown_is_likely(name):
    make, spec = MASSES[name]
    law, values = make(spec), every_value(spec)
    parameters = 3 * numbers(law, spec, 5)
    shown = np.asarray(law.mean(parameters))
    for row, one in zip(shown, parameters, strict=True):
        log_mass = law.log_prob(values, jnp.repeat(one[None], len(values), 0))
        mine = law.log_prob(row[None], one[None])[0]
        assert mine >= np.median(log_mass)
        if name == 'categorical':
            np.testing.assert_allclose(mine, log_mass.max(), rtol=1e-5)


@pytest.mark.parametrize(
    ('make', 'reason'),
    [
        (lambda: observation.bernoulli(GRAY), r'two levels, and this data has 5'),
        (lambda: observation.gaussian(POINTS, sigma=0.0), r'^sigma: 0.0 must be above 0'),
        (lambda: observation.logistic(POINTS), r'this is continuous'),
        (lambda: observation.gaussian(GRAY), r'lies on 5 levels, where a density has no bound'),
        (lambda: observation.gaussian_of_each(GRAY), r'set data.dequantize to True'),
        (lambda: observation.categorical(GRAY._replace(dequantized=True)), r'dequantize to False'),
        (lambda: observation.logistic_mixture(GRAY, 0), r'^num_mixtures: 0'),
    ],
)
def test_laws_that_do_not_fit_the_data_are_refused(make, reason):
    with pytest.raises(InputError, match=reason):
        make()
