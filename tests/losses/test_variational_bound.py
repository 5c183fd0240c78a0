"""The bound: worked out by hand where the guess is constant, and against the entropy of data whose
best predictor is known."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from gen_jax.errors import InputError
from gen_jax.losses.variational_bound import variational_bound
from gen_jax.processes import gaussian

LINEAR = gaussian.linear()
CHAIN = gaussian.linear(num_steps=1000)


@functools.partial(
    jax.jit,
    static_argnames=('predict', 'process', 'num_steps', 'bound_terms', 'variance', 'levels'),
)
def bound(x, key=0, *, predict, process=LINEAR, num_steps, variance, bound_terms=None, levels=None):
    return variational_bound(
        predict,
        process,
        x,
        jax.random.key(key),
        num_steps=num_steps,
        bound_terms=bound_terms,
        variance=variance,
        levels=levels,
    )


def knows_nothing(x_t, t):
    return jnp.zeros_like(x_t)


def linear_alpha_sigma(t: float) -> tuple[float, float]:
    log = -(0.1 * t + 0.5 * 19.9 * t**2)
    return math.exp(0.5 * log), math.sqrt(-math.expm1(log))


def rate_by_hand(x: float, num_steps: int, variance: str) -> float:
    """L_N + sum of L_{k-1} for one number and the guess 0, in float64, from Bayes' rule."""
    alpha, sigma = linear_alpha_sigma(1.0)
    total = 0.5 * (sigma**2 + (alpha * x) ** 2 - 1 - math.log(sigma**2))
    for k in range(2, num_steps + 1):
        alpha_s, sigma_s = linear_alpha_sigma((k - 1) / num_steps)
        alpha_t, _ = linear_alpha_sigma(k / num_steps)
        step = alpha_t / alpha_s
        large = 1 - step**2
        small = 1 / (1 / sigma_s**2 + step**2 / large)
        chosen = large if variance == 'large' else small
        miss = small * alpha_s * x / sigma_s**2  # what the posterior means differ by
        total += 0.5 * (math.log(chosen / small) + (small + miss**2) / chosen - 1)
    return total


@pytest.mark.parametrize('variance', ['large', 'small'])
def test_rate_and_distortion_of_a_constant_guess_are_those_worked_out_by_hand(variance):
    options = {'predict': knows_nothing, 'variance': variance}
    x, num_steps = np.array([[-1.0, 1 / 3], [1.0, 1.0]], np.float32), 25
    alpha, sigma = linear_alpha_sigma(1 / num_steps)
    rate, distortion = bound(x, num_steps=num_steps, **options)
    expected = [[rate_by_hand(float(v), num_steps, variance) for v in row] for row in x]
    np.testing.assert_allclose(rate, np.sum(expected, 1), rtol=1e-4)
    density = -scipy.stats.norm.logpdf(x, 0, sigma / alpha).sum(1)
    np.testing.assert_allclose(distortion, density, rtol=1e-4)

    # With levels, as Ho et al.: the posterior variance one step on, and bins open at the ends.
    rate, distortion = bound(x, num_steps=num_steps, levels=4, **options)
    alpha_second, _ = linear_alpha_sigma(2 / num_steps)
    step = alpha_second / alpha
    deviation = (1 / (1 / sigma**2 + step**2 / (1 - step**2))) ** 0.5
    np.testing.assert_allclose(rate, np.sum(expected, 1), rtol=1e-4)
    cdf = scipy.stats.norm(0, deviation)
    mass = {-1.0: cdf.logcdf(-2 / 3), 1.0: cdf.logsf(2 / 3)}
    mass[1 / 3] = math.log(cdf.sf(0) - cdf.sf(2 / 3))
    expected = -np.array([mass[-1.0] + mass[1 / 3], 2 * mass[1.0]])
    np.testing.assert_allclose(distortion, expected, rtol=1e-3)


@pytest.mark.parametrize('terms', [1, 4, 7, 18])
def test_some_of_the_terms_estimate_the_sum_of_all_without_bias(terms):
    x = jnp.full((40_000, 1), 0.8)
    options = {'predict': knows_nothing, 'num_steps': 20, 'variance': 'small'}
    exact = rate_by_hand(0.8, 20, 'small')
    rate = np.float64(bound(x, bound_terms=terms, **options)[0])
    stderr = rate.std() / np.sqrt(len(rate))
    assert 0 < stderr < 0.02 * exact  # each example has a start of its own
    assert abs(rate.mean() - exact) < 4 * stderr
    np.testing.assert_allclose(bound(x[:2], bound_terms=19, **options)[0], exact, rtol=1e-4)
    np.testing.assert_allclose(bound(x[:2], bound_terms=99, **options)[0], exact, rtol=1e-4)


def test_the_last_start_before_one_stays_on_the_chain(monkeypatch):
    """Just below 1 it rounds to 1 in a sum, which would be a step past the end, and NaN."""
    monkeypatch.setattr(jax.random, 'uniform', lambda key, shape: jnp.full(shape, 1 - 2.0**-23))
    x = jnp.ones((2, 3))
    options = {'process': CHAIN, 'num_steps': 1000, 'bound_terms': 16, 'variance': 'large'}
    rate, _ = bound(x, predict=knows_nothing, **options)
    assert np.all(np.isfinite(np.asarray(rate)))


GAUSSIAN_MEAN = np.array([0.2, -0.1])
GAUSSIAN_COVARIANCE = np.array([[0.3, 0.18], [0.18, 0.2]])


def gaussian_denoiser(x_t, t):
    """E[x_0 | x_t] for data N(GAUSSIAN_MEAN, GAUSSIAN_COVARIANCE), in continuous time."""
    values, vectors = np.linalg.eigh(GAUSSIAN_COVARIANCE)
    t = jnp.reshape(t, (-1, 1))
    alpha, sigma = LINEAR.alpha(t), LINEAR.sigma(t)
    gain = alpha * values / (alpha**2 * values + sigma**2)
    return GAUSSIAN_MEAN + ((x_t - alpha * GAUSSIAN_MEAN) @ vectors * gain) @ vectors.T


def excess_of_bound(x, minus_log_p, *lengths: int, **options) -> tuple[list[float], float]:
    """Mean nats above the entropy for each length of chain, and the last one's standard error."""
    means = []
    for num_steps in lengths:
        rate, distortion = bound(x, num_steps=num_steps, **options)
        # The mean of -log p is the entropy; taken per example, the noise of the data cancels.
        excess = np.float64(rate + distortion) - minus_log_p
        means.append(excess.mean())
    return means, excess.std() / np.sqrt(len(x))


def test_bound_of_the_exact_model_of_a_gaussian_closes_on_its_entropy_from_above():
    law = scipy.stats.multivariate_normal(GAUSSIAN_MEAN, GAUSSIAN_COVARIANCE)
    x = np.float32(law.rvs(4000, random_state=0))
    measure = functools.partial(excess_of_bound, x, -law.logpdf(x), predict=gaussian_denoiser)
    (first, second, third), stderr = measure(10, 100, 1000, variance='large')
    assert first > second > third > -3 * stderr
    assert third < 0.1 and stderr < 0.03
    # The posterior variance is right for data that is known exactly, as a density never is.
    (loose,), stderr = measure(100, variance='small')
    assert loose > 1


LEVEL_MASSES = np.array([0.1, 0.5, 0.15, 0.25])
LEVELS = np.linspace(-1, 1, 4).astype(np.float32)


def discrete_denoiser(x_t, t):
    """E[x_0 | x_t] for numbers that take `LEVELS` with probabilities `LEVEL_MASSES`."""
    t = jnp.reshape(t, (-1, 1, 1))
    alpha, sigma = LINEAR.alpha(t), LINEAR.sigma(t)
    logits = -0.5 * ((x_t[..., None] - alpha * LEVELS) / sigma) ** 2 + np.log(LEVEL_MASSES)
    return jax.nn.softmax(logits) @ LEVELS


def test_bound_of_the_exact_model_of_discrete_data_closes_on_its_entropy_from_above():
    num = 4000
    x = np.repeat(LEVELS, np.round(num * LEVEL_MASSES).astype(int))[:, None]
    entropy = -np.sum(LEVEL_MASSES * np.log(LEVEL_MASSES))
    measure = functools.partial(excess_of_bound, x, entropy, predict=discrete_denoiser, levels=4)
    (first, second, third), stderr = measure(50, 250, 1000, variance='small')
    assert first > second > third > -3 * stderr
    assert third < 0.05 * entropy and stderr < 0.015
    (loose,), stderr = measure(100, variance='large')
    assert loose > 3 * stderr


def test_unknown_variance_of_the_bound_is_refused():
    with pytest.raises(InputError, match="variance: 'huge' is neither"):
        bound(jnp.zeros((1, 1)), predict=knows_nothing, num_steps=4, variance='huge')


@pytest.mark.parametrize('options', [{'num_steps': 4, 'bound_terms': 0}, {'num_steps': 1}])
def test_a_bound_without_inner_terms_is_refused(options):
    with pytest.raises(InputError, match=r'^bound_terms: .* use at least 1'):
        bound(jnp.zeros((1, 1)), predict=knows_nothing, variance='large', **options)
