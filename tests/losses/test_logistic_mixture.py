"""The discretized mixture of logistics against scipy in float64, enumeration, and its own draws."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from gen_jax.data.pixels import levels_to_x
from gen_jax.losses import logistic_mixture

MEANS = (-1e6, -30.0, -1.3, -1.0, -0.501, 0.0, 0.2, 0.999, 1.0, 2.5, 1e6)
LOG_SCALES = (-30.0, -7.0, -5.0, -2.0, 0.0, 3.0, 7.0, 30.0)

log_mass_of_pixels = jax.jit(logistic_mixture.log_mass_of_pixels, static_argnames='levels')


def mass_of(x: np.ndarray, law: np.ndarray, levels: int) -> np.ndarray:
    """The masses of pixels x `[N, C]` under the same law `[M, P]`: `[N]`."""
    return np.exp(log_mass_of_pixels(x, np.stack([law] * len(x)), levels=levels))


def draw(key, parameters, **options):
    return jax.jit(functools.partial(logistic_mixture.sample, **options))(key, parameters)


def level_values(levels: int) -> np.ndarray:
    return levels_to_x(np.arange(levels), levels)


def all_pixels(levels: int, channels: int) -> np.ndarray:
    """Every pixel there is, `[levels^channels, channels]`."""
    return np.array(list(itertools.product(level_values(levels), repeat=channels)))


def random_law(seed: int, channels: int, num_mixtures: int = 4) -> np.ndarray:
    """Parameters of one pixel, `[M, P]`, that leave no level without a fair share."""
    shape = (num_mixtures, logistic_mixture.num_parameters(channels))
    law = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    law[:, 1 + channels : 1 + 2 * channels] -= 1
    return law


def exact_log_mass(x, mean, log_scale: float, levels: int) -> np.ndarray:
    """Equation (2) in float64 by scipy's distribution functions, the far tails included."""
    scale, half = np.exp(np.clip(np.float64(log_scale), -7, 7)), 1 / (levels - 1)
    x = np.float64(x)
    low = np.where(x < -1 + half, -np.inf, (x - half - mean) / scale)
    high = np.where(x > 1 - half, np.inf, (x + half - mean) / scale)
    flipped = x > mean  # a logistic is even, and logcdf is exact for small masses only
    low, high = np.where(flipped, -high, low), np.where(flipped, -low, high)
    log_low, log_high = (scipy.special.log_expit(end) for end in (low, high))
    return log_high + np.log(-np.expm1(log_low - log_high))


def log_masses(log_scale: float, levels: int) -> np.ndarray:
    """`[means, levels]`: every level's log-mass under every one of `MEANS`."""
    x, mean = level_values(levels)[None, :, None], np.array(MEANS, np.float32)[:, None, None]
    law = np.stack(np.broadcast_arrays(np.float32(0), mean, np.float32(log_scale)), -1)
    return np.asarray(log_mass_of_pixels(x, law, levels=levels), np.float64)


def test_a_component_has_as_many_parameters_as_the_paper_says():
    assert [logistic_mixture.num_parameters(c) for c in (1, 2, 3)] == [3, 6, 10]


@pytest.mark.parametrize('levels', [2, 3, 17, 256])
def test_masses_sum_to_one_for_every_mean_and_scale(levels):
    for log_scale in LOG_SCALES:
        masses = log_masses(log_scale, levels)
        assert np.all(masses <= 0) and np.all(np.isfinite(masses))
        np.testing.assert_allclose(np.exp(masses).sum(1), 1, atol=2e-5, err_msg=log_scale)


@pytest.mark.parametrize('levels', [2, 3, 17, 256])
def test_log_masses_are_scipys_far_into_the_tails(levels):
    mean = np.array(MEANS, np.float32).astype(np.float64)[:, None]
    for log_scale in LOG_SCALES:
        masses = log_masses(log_scale, levels)
        exact = exact_log_mass(level_values(levels), mean, log_scale, levels)
        np.testing.assert_allclose(masses, exact, rtol=1e-4, atol=2e-4, err_msg=log_scale)
    assert log_masses(-7.0, levels).min() < -1e8  # these are far tails


@pytest.mark.parametrize('channels', [1, 2, 3])
def test_masses_of_all_pixels_of_a_mixture_sum_to_one(channels):
    x = all_pixels(6, channels)
    for seed in range(5):
        total = mass_of(x, random_law(seed, channels), 6).sum()
        np.testing.assert_allclose(total, 1, rtol=1e-5)


def test_a_mixture_of_three_channels_by_hand():
    """Equations (1) and (3), word for word."""
    law = random_law(7, 3)
    logit, mean, log_scale, k = np.split(law.astype(np.float64), [1, 4, 7], 1)
    weight = scipy.special.softmax(logit[:, 0])
    for x in all_pixels(5, 3)[::7]:
        expected = 0
        for m in range(len(law)):
            mu = [
                mean[m, 0],
                mean[m, 1] + np.tanh(k[m, 0]) * x[0],
                mean[m, 2] + np.tanh(k[m, 1]) * x[0] + np.tanh(k[m, 2]) * x[1],
            ]
            each = [exact_log_mass(x[c], mu[c], log_scale[m, c], 5) for c in range(3)]
            expected += weight[m] * np.exp(np.sum(each))
        np.testing.assert_allclose(mass_of(x[None], law, 5), expected, rtol=1e-4)


def test_log_mass_of_an_example_is_the_sum_over_its_pixels():
    x = np.random.default_rng(0).choice(level_values(17), (2, 3, 4, 3))
    law = np.stack([random_law(seed, 3) for seed in range(24)]).reshape(2, 3, 4, 4, 10)
    whole = logistic_mixture.log_mass(x, law, 17)
    np.testing.assert_allclose(whole, log_mass_of_pixels(x, law, levels=17).sum((1, 2)), rtol=1e-5)
    assert whole.shape == (2,)


def test_gradients_are_finite_everywhere():
    x, mean, log_scale = (
        a.reshape(-1, 1) for a in np.meshgrid(level_values(17), MEANS, LOG_SCALES, indexing='ij')
    )
    law = np.stack([np.zeros_like(mean), mean, log_scale], -1).astype(np.float32)
    gradient = jax.grad(lambda law: log_mass_of_pixels(x, law, levels=17).sum())(law)
    assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize(('levels', 'channels'), [(2, 1), (17, 1), (256, 1), (3, 3)])
def test_draws_have_the_masses_themselves(levels, channels):
    law, num = random_law(3, channels), 100_000
    laws = jnp.broadcast_to(law, (num, *law.shape))
    x = np.asarray(draw(jax.random.key(0), laws, channels=channels, levels=levels))
    pixels = all_pixels(levels, channels)
    assert np.all(np.isin(x, level_values(levels)))  # bit for bit the levels of the data
    index = np.rint((x + 1) / 2 * (levels - 1)).astype(int)
    counts = np.bincount(index @ levels ** np.arange(channels)[::-1], minlength=len(pixels))
    expected = num * mass_of(pixels, law, levels)
    usual = expected > 5
    groups = np.where(usual, np.cumsum(usual), 0)  # all the rare ones together
    counts, expected = (np.bincount(groups, n) for n in (counts, expected))
    statistic = np.sum((counts - expected) ** 2 / np.maximum(expected, 1))
    assert scipy.stats.chi2.sf(statistic, len(counts)) > 1e-3


def test_draws_of_extreme_laws_are_at_the_ends():
    laws = np.array([[[0, 1e6, 0]], [[0, -1e6, 30]], [[0, 0.1, -30]]], np.float32)
    x = draw(jax.random.key(0), laws, channels=1, levels=17)
    np.testing.assert_allclose(x[:, 0], [1, -1, 0.125])


def test_temperature_divides_logits_and_multiplies_scales():
    law, num, temperature = random_law(4, 3), 500, 0.5
    other = law.copy()
    other[:, 0] /= temperature
    other[:, 4:7] += np.log(temperature)
    key, options = jax.random.key(0), {'channels': 3, 'levels': 256}
    cold = draw(key, np.stack([law] * num), **options, temperature=temperature)
    np.testing.assert_allclose(cold, draw(key, np.stack([other] * num), **options), atol=1 / 127)
    coldest = draw(key, np.stack([law] * num), **options, temperature=1e-6)
    likeliest = law[np.argmax(law[:, 0])]
    np.testing.assert_allclose(coldest[:, 0], np.clip(likeliest[1], -1, 1), atol=1 / 255)
    assert len(np.unique(coldest, axis=0)) == 1
