"""Samplers with the exact denoiser of a Gaussian, and step by step against diffusers.

For data N(m, S) everything is known: x_t ~ N(alpha m, alpha^2 S + sigma^2 I), and
E[x_0 | x_t] = m + alpha S (alpha^2 S + sigma^2 I)^-1 (x_t - alpha m).
"""

import functools

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest

from gen_jax.errors import InputError
from gen_jax.processes import gaussian
from gen_jax.samplers import diffusion as samplers

LINEAR = gaussian.linear()
SAMPLERS = {
    'ancestral large': functools.partial(samplers.ancestral, variance='large'),
    'ancestral small': functools.partial(samplers.ancestral, variance='small'),
    'ddim 0': functools.partial(samplers.ddim, eta=0.0),
    'ddim 0.5': functools.partial(samplers.ddim, eta=0.5),
    'ddim 1': functools.partial(samplers.ddim, eta=1.0),
}
MEAN = np.array([0.5, -1.0, 2.0])
COVARIANCE = np.array([[1.0, 0.6, -0.2], [0.6, 0.5, 0.0], [-0.2, 0.0, 0.25]])


def exact_denoiser(process, mean, covariance):
    """E[x_0 | x_t] for data N(mean, covariance)."""
    values, vectors = np.linalg.eigh(covariance)

    def predict(x_t, t):
        alpha, sigma = process.alpha(t), process.sigma(t)
        gain = alpha * values / (alpha**2 * values + sigma**2)
        return mean + ((x_t - alpha * mean) @ vectors * gain) @ vectors.T

    return predict


@functools.partial(jax.jit, static_argnames=('name', 'num', 'num_steps'))
def draw_gaussian(name: str, num: int, num_steps: int):
    """Samples of N(MEAN, COVARIANCE), from x_1 as it is: what is measured is the sampler alone."""
    start_key, key = jax.random.split(jax.random.key(0))
    alpha, sigma = LINEAR.alpha(1.0), LINEAR.sigma(1.0)
    root = jnp.linalg.cholesky(alpha**2 * COVARIANCE + sigma**2 * jnp.eye(3))
    x = alpha * MEAN + jax.random.normal(start_key, (num, 3)) @ root.T
    predict = exact_denoiser(LINEAR, MEAN, COVARIANCE)
    return SAMPLERS[name](predict, LINEAR, x, key, samplers.time_grid(num_steps))


@pytest.mark.parametrize('name', SAMPLERS)
def test_sampler_recovers_a_correlated_gaussian(name):
    num = 8000
    x = np.float64(draw_gaussian(name, num, 250))
    mean_error = np.sqrt(np.diag(COVARIANCE) / num)
    variances = np.diag(COVARIANCE)
    covariance_error = np.sqrt((np.outer(variances, variances) + COVARIANCE**2) / num)
    assert np.all(np.abs(x.mean(0) - MEAN) < 4.5 * mean_error)
    # Beyond Monte Carlo error, these steps leave one percent.
    off = np.abs(np.cov(x.T) - COVARIANCE)
    assert np.all(off < 4.5 * covariance_error + 0.01), off


def test_ancestral_error_falls_with_the_number_of_steps():
    num = 20_000

    def error(num_steps):
        x = np.float64(draw_gaussian('ancestral small', num, num_steps))
        return np.abs(np.cov(x.T) - COVARIANCE).max()

    errors = [error(n) for n in (5, 20, 80)]
    assert errors[0] > 2 * errors[1] > 4 * errors[2], errors


@pytest.mark.parametrize('process', [LINEAR, gaussian.cosine()], ids=['linear', 'cosine'])
def test_ddim_without_noise_converges_to_the_probability_flow_at_first_order(process):
    mean, deviation = 0.3, 0.4
    predict = exact_denoiser(process, np.array([mean]), np.array([[deviation**2]]))
    x = jnp.linspace(-2, 2, 9)[:, None]

    def error(num_steps):
        times = samplers.time_grid(num_steps)
        end = jax.jit(lambda x: samplers.ddim(predict, process, x, jax.random.key(0), times))(x)
        # The flow of a Gaussian keeps every point as many deviations from the mean as it is.
        alpha, sigma = np.float64(process.alpha(1.0)), np.float64(process.sigma(1.0))
        spread = np.sqrt(alpha**2 * deviation**2 + sigma**2)
        exact = mean + deviation * (np.float64(x) - alpha * mean) / spread
        return np.abs(np.float64(end) - exact).max()

    errors = np.array([error(n) for n in (20, 40, 80, 160)])
    orders = np.log2(errors[:-1] / errors[1:])
    assert np.all((orders > 0.85) & (orders < 1.2)), orders
    assert errors[-1] < 0.03


def test_ddim_with_eta_one_is_ancestral_sampling_with_the_posterior_variance():
    one, other = (draw_gaussian(name, 50, 20) for name in ('ddim 1', 'ancestral small'))
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('name', SAMPLERS)
def test_same_key_same_sample_and_the_key_matters_where_there_is_noise(name):
    x = jnp.ones((4, 3))
    times = samplers.time_grid(5)

    @jax.jit
    def draw(key):
        return SAMPLERS[name](exact_denoiser(LINEAR, MEAN, COVARIANCE), LINEAR, x, key, times)

    first, again, other = (draw(jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.array_equal(first, other) == (name == 'ddim 0')
    if name != 'ddim 0':
        assert len(np.unique(np.asarray(first))) == first.size  # and rows draw their own


@pytest.mark.parametrize('name', SAMPLERS)
def test_last_step_returns_the_estimate_itself(name):
    times = np.array([0.02, 0], np.float32)
    x = jnp.ones((4, 3))
    end = SAMPLERS[name](lambda x_t, t: 0.3 * x_t, LINEAR, x, jax.random.key(0), times)
    np.testing.assert_allclose(end, 0.3 * x, rtol=1e-6)


@pytest.mark.parametrize('name', SAMPLERS)
def test_predictor_sees_the_times_of_the_grid_in_order(name):
    seen, times = [], samplers.time_grid(4)

    def predict(x_t, t):
        jax.debug.callback(lambda t: seen.append(float(t)), t, ordered=True)
        return 0.5 * x_t

    SAMPLERS[name](predict, LINEAR, jnp.ones((2, 1)), jax.random.key(0), times).block_until_ready()
    jax.effects_barrier()
    assert seen == [1.0, 0.75, 0.5, 0.25]


def equations(jaxpr) -> list[str]:
    """The names of all operations, those inside of others included."""
    names = []
    for equation in jaxpr.eqns:
        names.append(equation.primitive.name)
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            names += equations(inner)
    return names


@pytest.mark.parametrize('name', SAMPLERS)
def test_program_is_one_loop_whatever_the_number_of_steps(name):
    def program(num_steps):
        times = samplers.time_grid(num_steps)

        def draw(x, key):
            return SAMPLERS[name](lambda x_t, t: jnp.tanh(x_t), LINEAR, x, key, times)

        return equations(jax.make_jaxpr(draw)(jnp.ones((2, 3)), jax.random.key(0)).jaxpr)

    short, long = program(10), program(100)
    assert short == long
    assert short.count('scan') == 1 and short.count('tanh') == 1


@pytest.mark.parametrize('num_steps', [1, 7, 50, 1000])
def test_time_grid_falls_from_one_to_zero_in_even_steps(num_steps):
    times = samplers.time_grid(num_steps)
    assert times.shape == (num_steps + 1,) and times.dtype == np.float32
    assert times[0] == 1 and times[-1] == 0
    np.testing.assert_allclose(np.diff(times), -1 / num_steps, atol=1e-6)


@pytest.mark.parametrize('num_steps', [1, 3, 7, 50, 600, 999, 1000])
def test_time_grid_of_a_chain_has_its_times_only_each_once(num_steps):
    times = samplers.time_grid(num_steps, 1000)
    k = np.float64(times) * 1000
    assert times.shape == (num_steps + 1,)
    np.testing.assert_allclose(k, np.round(k), atol=1e-4)
    assert k[0] == 1000 and k[-1] == 0
    gaps = -np.diff(np.round(k))
    assert gaps.min() >= 1 and gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize(
    'arguments, limit', [((0,), 'at least 1'), ((-3, 10), '1 to 10'), ((11, 10), '1 to 10')]
)
def test_steps_out_of_range_are_refused(arguments, limit):
    with pytest.raises(InputError, match=rf'num_steps: {arguments[0]} .* use {limit}'):
        samplers.time_grid(*arguments)


def test_unknown_variance_is_refused():
    x, times = jnp.ones((2, 1)), samplers.time_grid(2)
    with pytest.raises(InputError, match="'huge' is neither 'large' nor 'small'"):
        samplers.ancestral(lambda x, t: x, LINEAR, x, jax.random.key(0), times, variance='huge')


# Against diffusers. Our t = k/1000 is its timestep k - 1; its tables are replaced by the same ones
# in float64, so that it is the precise side of every comparison.

CHAIN = gaussian.linear(num_steps=1000)
ALPHA_SQUARED = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))


def scheduler_of(kind: str, num_steps: int, clip: bool, **options):
    diffusers = pytest.importorskip('diffusers')
    torch = pytest.importorskip('torch')
    scheduler = getattr(diffusers, kind)(
        num_train_timesteps=1000,
        beta_start=1e-4,
        beta_end=0.02,
        beta_schedule='linear',
        timestep_spacing='trailing',
        clip_sample=clip,
        **options,
    )
    np.testing.assert_allclose(scheduler.alphas_cumprod.numpy(), ALPHA_SQUARED, rtol=1e-3)
    scheduler.alphas_cumprod = torch.from_numpy(ALPHA_SQUARED)
    scheduler.set_timesteps(num_steps)
    return scheduler


def epsilon(x, t, xp=np):
    """A stand-in for a network that predicts the noise: no exact denoiser of anything."""
    return 0.9 * t * x + 0.1 * xp.cos(3 * x + t)


def predict_x0(clip):
    def predict(x_t, t):
        x0 = gaussian.to_x0(CHAIN, 'epsilon', epsilon(x_t, t, jnp), x_t, t)
        return jnp.where(clip, x0.clip(-1, 1), x0)

    return predict


def noise_of_step(key, index: int, shape) -> np.ndarray:
    return np.float64(jax.random.normal(jax.random.fold_in(key, index), shape))


def diffusers_step(scheduler, monkeypatch, x, timestep: int, noise, eta=None, clip=False):
    """One step of theirs in float64, with our noise."""
    import torch
    from diffusers.schedulers import scheduling_ddpm

    noise = torch.from_numpy(noise)
    output = torch.from_numpy(epsilon(x, (timestep + 1) / 1000))
    if eta is None:
        monkeypatch.setattr(scheduling_ddpm, 'randn_tensor', lambda *args, **kwargs: noise)
        return scheduler.step(output, timestep, torch.from_numpy(x)).prev_sample.numpy()
    return scheduler.step(
        output,
        timestep,
        torch.from_numpy(x),
        eta=eta,
        use_clipped_model_output=clip,
        variance_noise=noise if eta > 0 else None,
    ).prev_sample.numpy()


PARITY = {
    'ancestral large': ('DDPMScheduler', {'variance_type': 'fixed_large'}, None),
    'ancestral small': ('DDPMScheduler', {'variance_type': 'fixed_small'}, None),
    'ddim 0': ('DDIMScheduler', {}, 0.0),
    'ddim 0.5': ('DDIMScheduler', {}, 0.5),
    'ddim 1': ('DDIMScheduler', {}, 1.0),
}


@functools.cache
def our_sampler(name: str):
    """`(x, key, times, clip) -> x`, one program for every grid of a length."""

    def draw(x, key, times, clip):
        return SAMPLERS[name](predict_x0(clip), CHAIN, x, key, times)

    return jax.jit(draw)


@pytest.mark.parametrize('clip', [False, True])
@pytest.mark.parametrize('name', SAMPLERS)
def test_every_kind_of_step_is_that_of_diffusers(name, clip, monkeypatch):
    kind, options, eta = PARITY[name]
    key, x = jax.random.key(5), jax.random.normal(jax.random.key(6), (2, 4, 4, 3))
    for num_steps in (50, 1000):
        scheduler = scheduler_of(kind, num_steps, clip, **options)
        times = samplers.time_grid(num_steps, 1000)
        for index in (0, 1, num_steps // 2, num_steps - 2, num_steps - 1):
            timestep = scheduler.timesteps[index].item()
            assert timestep == round(float(times[index]) * 1000) - 1
            noise = noise_of_step(key, 0, x.shape) * (times[index + 1] > 0)
            theirs = diffusers_step(
                scheduler, monkeypatch, np.float64(x), timestep, noise, eta, clip
            )
            ours = our_sampler(name)(x, key, times[index : index + 2], clip)
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('name', SAMPLERS)
def test_fifty_steps_are_those_of_diffusers(name, monkeypatch):
    clip, (kind, options, eta) = True, PARITY[name]
    key, x = jax.random.key(5), jax.random.normal(jax.random.key(6), (2, 4, 4, 3))
    scheduler, times = scheduler_of(kind, 50, clip, **options), samplers.time_grid(50, 1000)
    theirs = np.float64(x)
    for index, timestep in enumerate(scheduler.timesteps.tolist()):
        # Theirs adds noise on the way to x_0 as well, unless it comes from timestep 0.
        noise = noise_of_step(key, index, x.shape) * (times[index + 1] > 0)
        theirs = diffusers_step(scheduler, monkeypatch, theirs, timestep, noise, eta, clip)
    ours = our_sampler(name)(x, key, times, clip)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    assert np.std(theirs) > 0.1


def test_ddim_on_straight_paths_is_eulers_method():
    process, num_steps = gaussian.straight(), 7
    times = samplers.time_grid(num_steps)

    def velocity(x, t):
        return jnp.sin(3 * x) + t

    def predict(x, t):
        return gaussian.to_x0(process, 'velocity', velocity(x, t), x, jnp.full(len(x), t))

    x = noise = jax.random.normal(jax.random.key(0), (5, 2))
    for t in times[:-1]:
        x = x - velocity(x, t) / num_steps
    found = samplers.ddim(predict, process, noise, jax.random.key(1), times)
    np.testing.assert_allclose(found, x, atol=1e-5)
