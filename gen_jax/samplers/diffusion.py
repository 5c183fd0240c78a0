"""Samplers that undo a Gaussian process, as functions of a predictor.

A predictor is any function `(x_t, t) -> x_0` estimate, with t a scalar: a trained network, a
closed form, a guided mixture. Over a falling grid of times, with t the present and s < t the next:

    (1) ancestral  x_s ~ N(m(x_t, x0), v)                 (Ho et al. 2020, algorithm 2)
                   m the posterior mean; v = sigma^2_{t|s} ('large', beta in the paper) or the
                   posterior variance ('small', beta tilde); no noise on the way to s = 0
    (2) DDIM       x_s = alpha_s x0 + sqrt(sigma_s^2 - w^2) eps + w z   (Song et al. 2021)
                   w = eta sqrt(v), v the posterior variance; eta = 0 is deterministic

            x_1 ~ N(0, I) ──► predict x0 ──► step to s ──► predict x0 ──► ... ──► x_0
                              └── one lax.scan: compiled once, for any number of steps ──┘
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from gen_jax.errors import InputError
from gen_jax.processes import gaussian
from gen_jax.processes.gaussian import GaussianProcess
from gen_jax.types import Array, Key, Predictor


def time_grid(num_steps: int, chain_steps: int | None = None) -> np.ndarray:
    """`[num_steps + 1]` float32 times from 1 to 0, evenly spaced.

    With `chain_steps` each lies on the chain's grid k / chain_steps, all different.

    Raises:
      InputError: fewer than one step, or more than the chain has.
    """
    if num_steps < 1 or (chain_steps is not None and num_steps > chain_steps):
        limit = f'1 to {chain_steps}, the length of the chain' if chain_steps else 'at least 1'
        raise InputError(f'num_steps: {num_steps} is out of range; use {limit}')
    times = np.linspace(1, 0, num_steps + 1)
    if chain_steps is not None:
        times = np.round(times * chain_steps) / chain_steps
    return times.astype(np.float32)


def ancestral(
    predict: Predictor,
    process: GaussianProcess,
    x: Array,
    key: Key,
    times: np.ndarray,
    *,
    variance: str = 'large',
) -> Array:
    """Equation (1): from noise `x` `[B, ...]` to data, along `times` (see `time_grid`).

    Raises:
      InputError: `variance` is neither 'large' nor 'small'.
    """
    if variance not in ('large', 'small'):
        raise InputError(f"variance: {variance!r} is neither 'large' nor 'small'")

    def step(x_t, t, s, step_key):
        mean, small = gaussian.posterior(process, predict(x_t, t), x_t, s, t)
        chosen = small if variance == 'small' else gaussian.transition(process, s, t)[1]
        noise = jax.random.normal(step_key, x_t.shape, x_t.dtype)
        return mean + jnp.where(s > 0, jnp.sqrt(chosen), 0) * noise

    return _scan(step, x, key, times)


def ddim(
    predict: Predictor,
    process: GaussianProcess,
    x: Array,
    key: Key,
    times: np.ndarray,
    *,
    eta: float = 0.0,
) -> Array:
    """Equation (2): from noise `x` `[B, ...]` to data, along `times` (see `time_grid`).

    Raises:
      InputError: `eta` is not from 0 to 1; beyond, the noise would exceed sigma_s.
    """
    if not 0 <= eta <= 1:
        raise InputError(f'eta: {eta} must be from 0 (deterministic) to 1 (as ancestral)')

    def step(x_t, t, s, step_key):
        x0 = predict(x_t, t)
        eps = gaussian.to_epsilon(process, x0, x_t, t)
        if eta == 0:
            return process.alpha(s) * x0 + process.sigma(s) * eps
        _, posterior_variance = gaussian.posterior(process, x0, x_t, s, t)
        fresh = eta**2 * posterior_variance
        kept = jnp.sqrt(jnp.maximum(process.sigma(s) ** 2 - fresh, 0))
        noise = jax.random.normal(step_key, x_t.shape, x_t.dtype)
        return process.alpha(s) * x0 + kept * eps + jnp.sqrt(fresh) * noise

    return _scan(step, x, key, times)


def _scan(step: Callable, x: Array, key: Key, times: np.ndarray) -> Array:
    """Runs `step(x_t, t, s, key) -> x_s` along the grid."""

    def body(x_t, inputs):
        index, t, s = inputs
        return step(x_t, t, s, jax.random.fold_in(key, index)), None

    steps = (jnp.arange(len(times) - 1), jnp.asarray(times[:-1]), jnp.asarray(times[1:]))
    return jax.lax.scan(body, x, steps)[0]
