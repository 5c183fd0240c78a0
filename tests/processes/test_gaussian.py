"""The Gaussian process against its own equations, worked out again here in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gen_jax.errors import InputError
from gen_jax.processes import gaussian

PROCESSES = {
    'linear': gaussian.linear(),
    'cosine': gaussian.cosine(),
    'linear chain': gaussian.linear(num_steps=1000),
    'cosine chain': gaussian.cosine(num_steps=1000),
}
# Between the steps of the chains, so that a derivative meets no kink.
TIMES = (np.array([1, 20, 130, 400, 650, 900, 990]) + 0.5) / 1000


def ho_alpha_squared(num_steps: int = 1000) -> np.ndarray:
    """The cumulative product of Ho et al. 2020, entry k - 1 for step k."""
    return np.cumprod(1 - np.linspace(1e-4, 0.02, num_steps))


def nichol_alpha_squared(num_steps: int = 1000) -> np.ndarray:
    """The cumulative product of Nichol & Dhariwal 2021, its betas held below 0.999."""
    bar = nichol_bar(np.arange(num_steps + 1) / num_steps)
    return np.cumprod([1 - min(1 - bar[k + 1] / bar[k], 0.999) for k in range(num_steps)])


def nichol_bar(t):
    return np.cos((np.asarray(t, np.float64) + 0.008) / 1.008 * np.pi / 2) ** 2


def log_alpha_squared(name: str, t) -> np.ndarray:
    """The same schedules as `PROCESSES`, in float64 numpy."""
    t = np.asarray(t, np.float64)
    if name == 'linear':
        return -(0.1 * t + 0.5 * 19.9 * t**2)
    if name == 'cosine':
        return np.log(nichol_bar(t) / nichol_bar(0))
    table = ho_alpha_squared() if name == 'linear chain' else nichol_alpha_squared()
    return np.interp(t, np.arange(1001) / 1000, np.log(np.concatenate([[1.0], table])))


def alpha_sigma(name: str, t) -> tuple[np.ndarray, np.ndarray]:
    log = log_alpha_squared(name, t)
    return np.exp(0.5 * log), np.sqrt(-np.expm1(log))


def data_and_noise(num: int) -> tuple[jax.Array, jax.Array]:
    keys = jax.random.split(jax.random.key(0))
    return tuple(jax.random.normal(key, (num, 3, 2)) for key in keys)


@pytest.mark.parametrize('name', PROCESSES)
def test_schedule_is_the_closed_form(name):
    t = np.concatenate([TIMES, [0.001, 0.5, 0.999]]).astype(np.float32)
    alpha, sigma = alpha_sigma(name, t)
    process = PROCESSES[name]
    # The cosine's sigma near t = 0 is the difference of two logarithms in float32.
    tolerance = 2e-3 if name == 'cosine' else 1e-5
    np.testing.assert_allclose(process.alpha(t), alpha, rtol=1e-4)
    np.testing.assert_allclose(process.sigma(t), sigma, rtol=tolerance)


@pytest.mark.parametrize('name', PROCESSES)
def test_variance_is_preserved_and_runs_from_data_to_noise(name):
    process, t = PROCESSES[name], np.linspace(0, 1, 2001, dtype=np.float32)
    alpha, sigma = np.float64(process.alpha(t)), np.float64(process.sigma(t))
    np.testing.assert_allclose(alpha**2 + sigma**2, 1, atol=1e-6)
    assert alpha[0] == 1 and sigma[0] == 0
    assert 0 < alpha[-1] < 0.01
    assert np.all(np.diff(alpha) < 0)


def test_linear_chain_is_the_one_of_ho_et_al():
    k = np.arange(1, 1001)
    alpha = gaussian.linear(num_steps=1000).alpha(k / 1000)
    np.testing.assert_allclose(np.float64(alpha) ** 2, ho_alpha_squared(), rtol=5e-6)


def test_cosine_chain_is_the_one_of_nichol_and_dhariwal():
    k = np.arange(1, 1001)
    alpha = gaussian.cosine(num_steps=1000).alpha(k / 1000)
    expected = nichol_alpha_squared()
    np.testing.assert_allclose(np.float64(alpha) ** 2, expected, rtol=5e-6)
    # The last step is where the clip of 0.999 acts.
    np.testing.assert_allclose(expected[-1] / expected[-2], 0.001, rtol=1e-9)


@pytest.mark.parametrize('build', [gaussian.linear, gaussian.cosine])
def test_chain_converges_to_the_continuous_process_as_one_over_its_length(build):
    t = np.array([0.25, 0.5, 0.75])  # on every grid below
    lengths = [64, 128, 256] if build is gaussian.linear else [8, 16, 32]
    errors = [
        np.abs(np.float64(build(num_steps=n).alpha(t)) - np.float64(build().alpha(t))).max()
        for n in lengths
    ]
    if build is gaussian.cosine:
        # Its betas are made of alpha itself, so the chain is exact on its grid, whatever N.
        assert max(errors) < 1e-6
        return
    rates = np.log2(np.array(errors[:-1]) / errors[1:])
    np.testing.assert_allclose(rates, 1, atol=0.1)


@pytest.mark.parametrize('prediction', gaussian.PREDICTIONS)
@pytest.mark.parametrize('name', PROCESSES)
def test_prediction_target_converts_back_to_the_data(name, prediction):
    process = PROCESSES[name]
    t = jnp.array([0.001, 0.01, 0.2, 0.5, 0.77, 0.99, 0.99995, 1.0])
    x, eps = data_and_noise(len(t))
    x_t = gaussian.corrupt(process, x, eps, t)
    answer = gaussian.target(process, prediction, x, eps, t)
    back = gaussian.to_x0(process, prediction, answer, x_t, t)
    # Where little of the data is left, dividing by alpha magnifies rounding by as much.
    tolerance = 2e-6 / np.asarray(process.alpha(t)) + 1e-5
    error = np.abs(np.asarray(back - x)).max((1, 2))
    assert np.all(error < tolerance), error / tolerance


@pytest.mark.parametrize('name', PROCESSES)
def test_noise_is_recovered_from_the_data(name):
    process, t = PROCESSES[name], jnp.array([0.01, 0.5, 1.0])
    x, eps = data_and_noise(3)
    x_t = gaussian.corrupt(process, x, eps, t)
    np.testing.assert_allclose(gaussian.to_epsilon(process, x, x_t, t), eps, atol=1e-4)


@pytest.mark.parametrize('name', PROCESSES)
def test_v_is_the_rotation_of_noise_and_data(name):
    x, eps = data_and_noise(len(TIMES))
    v = gaussian.target(PROCESSES[name], 'v', x, eps, jnp.asarray(TIMES))
    alpha, sigma = (c[:, None, None] for c in alpha_sigma(name, TIMES))
    np.testing.assert_allclose(v, alpha * eps - sigma * x, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('name', PROCESSES)
def test_velocity_is_the_finite_difference_of_x_t(name):
    x, eps = data_and_noise(len(TIMES))
    velocity = gaussian.target(PROCESSES[name], 'velocity', x, eps, jnp.asarray(TIMES))

    def x_at(t):
        alpha, sigma = (c[:, None, None] for c in alpha_sigma(name, t))
        return alpha * np.asarray(x, np.float64) + sigma * np.asarray(eps, np.float64)

    h = 1e-6
    difference = (x_at(TIMES + h) - x_at(TIMES - h)) / (2 * h)
    np.testing.assert_allclose(velocity, difference, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize('name', PROCESSES)
def test_score_is_the_gradient_of_the_log_density(name):
    process, t = PROCESSES[name], jnp.asarray(TIMES)
    x, eps = data_and_noise(len(TIMES))
    x_t = gaussian.corrupt(process, x, eps, t)
    alpha, sigma = (jnp.asarray(c)[:, None, None] for c in alpha_sigma(name, TIMES))

    def log_q(x_t):
        return jnp.sum(-0.5 * ((x_t - alpha * x) / sigma) ** 2)

    score = gaussian.target(process, 'score', x, eps, t)
    np.testing.assert_allclose(score, jax.grad(log_q)(x_t), rtol=2e-3, atol=2e-3)


# Two steps inside, neighbors at both ends of the chain, and the last step to the data.
@pytest.mark.parametrize(
    's, t', [(0.2, 0.7), (0.001, 0.002), (0.499, 0.5), (0.99, 0.991), (0, 0.3)]
)
@pytest.mark.parametrize('name', PROCESSES)
def test_posterior_is_bayes_rule(name, s, t):
    x0, x_t = data_and_noise(2)
    alpha_s, sigma_s = alpha_sigma(name, s)
    log_ratio = log_alpha_squared(name, t) - log_alpha_squared(name, s)
    alpha_ts, variance_ts = np.exp(0.5 * log_ratio), -np.expm1(log_ratio)
    if s == 0:
        variance, expected = 0.0, np.asarray(x0)
    else:
        # q(x_s | x_0) times q(x_t | x_s) as a function of x_s: precisions add.
        variance = 1 / (1 / sigma_s**2 + alpha_ts**2 / variance_ts)
        pull = alpha_s * np.float64(x0) / sigma_s**2 + alpha_ts * np.float64(x_t) / variance_ts
        expected = variance * pull
    process = PROCESSES[name]
    scale, noise = gaussian.transition(process, jnp.float32(s), jnp.float32(t))
    np.testing.assert_allclose(scale, alpha_ts, rtol=1e-4)
    np.testing.assert_allclose(noise, variance_ts, rtol=2e-3)
    mean, small = gaussian.posterior(process, x0, x_t, jnp.float32(s), jnp.float32(t))
    np.testing.assert_allclose(mean, expected, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(small, variance, rtol=2e-3)


def test_posterior_takes_a_time_for_each_example():
    process, (x0, x_t) = PROCESSES['linear'], data_and_noise(3)
    s, t = jnp.array([0.1, 0.2, 0.6]), jnp.array([0.3, 0.5, 0.9])
    mean, variance = gaussian.posterior(process, x0, x_t, s, t)
    assert mean.shape == x0.shape and variance.shape == (3, 1, 1)
    for i in range(3):
        one, spread = gaussian.posterior(process, x0[i : i + 1], x_t[i : i + 1], s[i], t[i])
        np.testing.assert_allclose(mean[i], one[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(variance[i].item(), spread, rtol=1e-5)


@pytest.mark.parametrize('name', PROCESSES)
def test_transitions_compose(name):
    process = PROCESSES[name]
    s, u, t = jnp.array([0.05, 0.3]), jnp.array([0.2, 0.35]), jnp.array([0.8, 0.9])
    (scale_us, noise_us), (scale_tu, noise_tu), (scale_ts, noise_ts) = (
        gaussian.transition(process, *pair) for pair in ((s, u), (u, t), (s, t))
    )
    np.testing.assert_allclose(scale_tu * scale_us, scale_ts, rtol=1e-5)
    np.testing.assert_allclose(scale_tu**2 * noise_us + noise_tu, noise_ts, rtol=1e-5)


def test_training_times_cover_every_step_of_a_chain_and_no_other():
    t = gaussian.sample_time(gaussian.linear(num_steps=50), jax.random.key(0), 20_000)
    k = np.asarray(t) * 50
    np.testing.assert_allclose(k, np.round(k), atol=1e-4)
    counts = np.bincount(np.round(k).astype(int), minlength=51)
    assert counts[0] == 0 and len(counts) == 51
    assert np.all(np.abs(counts[1:] - 400) < 6 * np.sqrt(400))


def test_continuous_training_times_are_even_over_zero_to_one_without_zero():
    t = np.asarray(gaussian.sample_time(gaussian.linear(), jax.random.key(1), 20_000))
    assert t.min() > 0 and t.max() <= 1
    counts, _ = np.histogram(t, 50, (0, 1))
    assert np.all(np.abs(counts - 400) < 6 * np.sqrt(400))


def test_zero_is_no_training_time_even_where_the_generator_touches_its_bounds(monkeypatch):
    monkeypatch.setattr(jax.random, 'uniform', lambda key, shape: jnp.zeros(shape))
    t = gaussian.sample_time(gaussian.linear(), jax.random.key(0), 4)
    assert np.all(np.asarray(t) == 1)


@pytest.mark.parametrize('options', [{'num_steps': 10}, {'num_steps': 1000, 'beta_min': -0.1}])
def test_rates_that_are_no_variances_are_refused(options):
    with pytest.raises(InputError, match=r'^num_steps: .* between 0 and 1'):
        gaussian.linear(**options)


def test_unknown_prediction_is_refused_with_the_known_ones():
    x, eps = data_and_noise(2)
    t = jnp.array([0.1, 0.2])
    for convert in (gaussian.target, gaussian.to_x0):
        with pytest.raises(InputError, match=r"'nonsense'; choose from epsilon, x0, v, velocity"):
            convert(gaussian.linear(), 'nonsense', x, eps, t)


# Straight paths


def test_straight_paths_have_one_velocity_from_noise_to_data():
    process, (x, eps) = gaussian.straight(), data_and_noise(3)
    t = jnp.array([0.01, 0.5, 1.0])
    x_t = gaussian.corrupt(process, x, eps, t)
    along = t[:, None, None]
    expected = (1 - along) * x + along * eps
    np.testing.assert_allclose(x_t, expected, rtol=1e-6)
    velocity = gaussian.target(process, 'velocity', x, eps, t)
    np.testing.assert_allclose(velocity, eps - x, rtol=1e-6)
    back = gaussian.to_x0(process, 'velocity', velocity, x_t, t)
    np.testing.assert_allclose(back, x, atol=1e-5)


def test_the_last_step_of_a_straight_path_forgets_the_data():
    process, (x, x_t) = gaussian.straight(), data_and_noise(3)
    kept, variance = gaussian.transition(process, jnp.float32(0.7), jnp.float32(1.0))
    assert kept == 0 and variance == 1
    mean, variance = gaussian.posterior(process, x, x_t, jnp.float32(0.7), jnp.float32(1.0))
    np.testing.assert_allclose(mean, 0.3 * x, rtol=1e-5)
    np.testing.assert_allclose(variance, 0.49, rtol=1e-5)
