"""Gaussian corruption: how data becomes noise, and the five ways to say what was lost.

Time runs one way: t = 0 is data, t = 1 is noise.

    (1) x_t = alpha(t) x_0 + sigma(t) eps,   eps ~ N(0, I)                  the process
    (2) q(x_t | x_s) = N(alpha_{t|s} x_s, sigma^2_{t|s}),   s < t           its transitions
        alpha_{t|s} = alpha_t / alpha_s
        sigma^2_{t|s} = sigma_t^2 - alpha_{t|s}^2 sigma_s^2
                      = -expm1(lambda_t - lambda_s) sigma_t^2,  lambda = log(alpha^2 / sigma^2)
    (3) q(x_s | x_t, x_0) = N(m, v)                                         its posterior
        m = alpha_{t|s} sigma_s^2 / sigma_t^2 x_t + alpha_s sigma^2_{t|s} / sigma_t^2 x_0
        v = sigma^2_{t|s} sigma_s^2 / sigma_t^2

One network output can stand for any of five quantities; each is affine in x_0 given x_t:

    (4) epsilon   eps                         the noise            (Ho et al. 2020)
        x0        x_0                         the data
        v         alpha eps - sigma x_0       v-prediction         (Salimans & Ho 2022)
        velocity  alpha' x_0 + sigma' eps     d x_t / d t          (Lipman et al. 2023)
        score     -eps / sigma                grad log q(x_t|x_0)  (Song et al. 2021)

Three schedules are built here, the first two with alpha^2 + sigma^2 = 1:

    (5) linear   beta(t) = beta_min + t (beta_max - beta_min),
                 log alpha^2 = -integral_0^t beta                           (Song et al. 2021)
    (6) cosine   alpha^2 = f(t) / f(0),  f = cos^2(pi/2 (t + s) / (1 + s))  (Nichol & Dhariwal 2021)
    (7) straight alpha = 1 - t, sigma = t, the straight paths of flow matching, whose velocity is
                 eps - x_0                        (Lipman et al. 2023; Liu, Gong & Liu 2023)

With `num_steps=N` the first two are discrete chains instead: alpha^2 at t = k/N is
prod_{i<=k} (1 - beta_i), where beta_i = beta(t)/N on an even grid for (5) and
1 - alpha^2(i/N) / alpha^2((i-1)/N), at most 0.999, for (6). So the chain of Ho et al. is
`linear(num_steps=1000)`, beta from 1e-4 to 0.02, and its step k (from 1) is the time k/1000.
Between the steps log alpha^2 is interpolated linearly.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gen_jax.errors import InputError
from gen_jax.types import Array, Key

PREDICTIONS = ('epsilon', 'x0', 'v', 'velocity', 'score')


class GaussianProcess(NamedTuple):
    """Equation (1): two functions of time, and the number of steps where time is discrete."""

    alpha: Callable[[Array], Array]
    sigma: Callable[[Array], Array]
    num_steps: int | None = None


def linear(
    beta_min: float = 0.1, beta_max: float = 20.0, num_steps: int | None = None
) -> GaussianProcess:
    """Equation (5). `beta_min` and `beta_max` are rates per unit of time, not per step."""
    if num_steps is not None:
        _check_length(num_steps)
        return _discrete(np.linspace(beta_min, beta_max, num_steps) / num_steps)
    return _variance_preserving(lambda t: -t * (beta_min + 0.5 * t * (beta_max - beta_min)), None)


def cosine(offset: float = 0.008, num_steps: int | None = None) -> GaussianProcess:
    """Equation (6). `offset` is s, which keeps the first step's noise from vanishing."""
    if num_steps is not None:
        _check_length(num_steps)
        f = np.cos(np.pi / 2 * (np.arange(num_steps + 1) / num_steps + offset) / (1 + offset)) ** 2
        return _discrete(np.minimum(1 - f[1:] / f[:-1], 0.999))

    # At t = 1 alpha would reach zero, and divisions by it would fail. So log alpha^2 ends along its
    # tangent, which keeps the rates of (4) away from zero too.
    last = 0.9999
    slope = -np.pi / (1 + offset) * np.tan(np.pi / 2 * (last + offset) / (1 + offset))

    def log_alpha_squared(t: Array) -> Array:
        def log_cos(u):
            return jnp.log(jnp.cos(jnp.pi / 2 * (u + offset) / (1 + offset)))

        curve = 2 * (log_cos(jnp.minimum(t, last)) - log_cos(0.0))
        return curve + slope * jnp.maximum(t - last, 0)

    return _variance_preserving(log_alpha_squared, None)


def straight() -> GaussianProcess:
    """Equation (7)."""
    return GaussianProcess(alpha=lambda t: 1 - t, sigma=lambda t: t)


def _check_length(num_steps: int) -> None:
    if num_steps < 1:
        raise InputError(f'num_steps: {num_steps} must be at least 1, or None')


def _discrete(betas: np.ndarray) -> GaussianProcess:
    """The chain with these per-step variances, its table made in float64."""
    if not (np.all(betas > 0) and np.all(betas < 1)):
        raise InputError(
            f'num_steps: its {len(betas)} steps have variances from {betas.min():.3g} to '
            f'{betas.max():.3g}, and each must lie between 0 and 1; use more steps or lower rates'
        )
    table = np.concatenate([[0.0], np.cumsum(np.log1p(-betas))]).astype(np.float32)
    grid = np.linspace(0, 1, len(table), dtype=np.float32)
    return _variance_preserving(lambda t: jnp.interp(t, grid, table), len(betas))


def _variance_preserving(log_alpha_squared: Callable, num_steps: int | None) -> GaussianProcess:
    # expm1 keeps the digits of sigma near t = 0, where alpha^2 rounds to one.
    return GaussianProcess(
        alpha=lambda t: jnp.exp(0.5 * log_alpha_squared(t)),
        sigma=lambda t: jnp.sqrt(-jnp.expm1(log_alpha_squared(t))),
        num_steps=num_steps,
    )


def sample_time(process: GaussianProcess, key: Key, num: int) -> Array:
    """`[num]` training times: even over (0, 1], or over the chain's steps k/N, k = 1..N."""
    if process.num_steps is None:
        return 1 - jax.random.uniform(key, (num,))
    return jax.random.randint(key, (num,), 1, process.num_steps + 1) / process.num_steps


def corrupt(process: GaussianProcess, x: Array, eps: Array, t: Array) -> Array:
    """Equation (1): `x` and `eps` are `[B, ...]`, `t` is `[B]`."""
    alpha, sigma = coefficients(process, t, x.ndim)
    return alpha * x + sigma * eps


def coefficients(process: GaussianProcess, t: Array, ndim: int) -> tuple[Array, Array]:
    """alpha and sigma at `t` (`[]` or `[B]`), shaped to multiply a batch of `ndim` axes."""
    t = jnp.reshape(t, jnp.shape(t) + (1,) * (ndim - 1))
    return process.alpha(t), process.sigma(t)


def target(process: GaussianProcess, prediction: str, x: Array, eps: Array, t: Array) -> Array:
    """What a network of this `prediction` should answer, by the definitions (4)."""
    alpha, sigma = coefficients(process, t, x.ndim)
    if prediction == 'epsilon':
        return eps
    if prediction == 'x0':
        return x
    if prediction == 'v':
        return alpha * eps - sigma * x
    if prediction == 'velocity':
        alpha_rate, sigma_rate = _rates(process, t, x.ndim)
        return alpha_rate * x + sigma_rate * eps
    if prediction == 'score':
        return -eps / sigma
    raise unknown_prediction(prediction)


def to_x0(process: GaussianProcess, prediction: str, output: Array, x_t: Array, t: Array) -> Array:
    """The data that a network's `output` at `x_t` stands for: (4) solved for x_0 with (1)."""
    alpha, sigma = coefficients(process, t, x_t.ndim)
    if prediction == 'epsilon':
        return (x_t - sigma * output) / alpha
    if prediction == 'x0':
        return output
    if prediction == 'v':
        return (alpha * x_t - sigma * output) / (alpha**2 + sigma**2)
    if prediction == 'velocity':
        alpha_rate, sigma_rate = _rates(process, t, x_t.ndim)
        return (sigma * output - sigma_rate * x_t) / (sigma * alpha_rate - alpha * sigma_rate)
    if prediction == 'score':
        return (x_t + sigma**2 * output) / alpha
    raise unknown_prediction(prediction)


def to_epsilon(process: GaussianProcess, x0: Array, x_t: Array, t: Array) -> Array:
    """The noise in `x_t` if its data is `x0`: (1) solved for eps."""
    alpha, sigma = coefficients(process, t, x_t.ndim)
    return (x_t - alpha * x0) / sigma


def transition(process: GaussianProcess, s: Array, t: Array) -> tuple[Array, Array]:
    """Equation (2): alpha_{t|s} and the variance sigma^2_{t|s}, for s < t."""
    alpha_s, sigma_s, alpha_t, sigma_t = *_at(process, s), *_at(process, t)
    log_snr_ratio = 2 * (jnp.log(alpha_t / alpha_s) - jnp.log(sigma_t) + jnp.log(sigma_s))
    return alpha_t / alpha_s, -jnp.expm1(log_snr_ratio) * sigma_t**2


def posterior(
    process: GaussianProcess, x0: Array, x_t: Array, s: Array, t: Array
) -> tuple[Array, Array]:
    """Equation (3): mean `[B, ...]` and variance (`[]` or `[B, 1, ...]`), for s < t."""
    widen = (1,) * (x_t.ndim - 1)
    s, t = (jnp.reshape(u, jnp.shape(u) + widen) for u in (s, t))
    alpha_ts, variance_ts = transition(process, s, t)
    (alpha_s, sigma_s), (_, sigma_t) = _at(process, s), _at(process, t)
    shrink = sigma_s**2 / sigma_t**2
    return (
        alpha_ts * shrink * x_t + alpha_s * variance_ts / sigma_t**2 * x0,
        variance_ts * shrink,
    )


def unknown_prediction(prediction: str) -> InputError:
    """The error that names the five predictions."""
    return InputError(
        f'method.prediction: no prediction {prediction!r}; choose from {", ".join(PREDICTIONS)}'
    )


def _at(process: GaussianProcess, t: Array) -> tuple[Array, Array]:
    return process.alpha(t), process.sigma(t)


def _rates(process: GaussianProcess, t: Array, ndim: int) -> tuple[Array, Array]:
    """d alpha / dt and d sigma / dt."""
    t = jnp.reshape(t, jnp.shape(t) + (1,) * (ndim - 1))
    _, rates = jax.jvp(lambda u: _at(process, u), (t,), (jnp.ones_like(t),))
    return rates
