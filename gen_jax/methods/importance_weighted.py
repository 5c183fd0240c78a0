"""The importance-weighted bound of K draws as something to train a VAE by.

    (1) log 1/K sum_k w_k,   log w = log p(x | z) + beta (log p(z) - log q(z | x))
                                                     (Burda et al. 2016, where beta is 1)

Its gradient is the plain one, or the doubly reparametrized one of
`losses/doubly_reparametrized.py`; and it is that of all K draws, or of few that are resampled by
their weights (`losses/resampling.py`). Then all K are weighed without a backward pass, for about a
third of what a draw costs, and only the few are followed back.
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gen_jax.losses.doubly_reparametrized import twice_weighted
from gen_jax.losses.resampling import scale_gradient, systematic_resample, take
from gen_jax.methods.bounds import log_mean_exp
from gen_jax.methods.vae_model import Model, Posterior, sum_latents
from gen_jax.types import Array, Key

# Parameters and z [K, B, ...] to log p(x | z) [K, B].
LogLikelihood = Callable[[Mapping, Array], Array]


class Draws(NamedTuple):
    """What is weighed: K draws of q(z | x), by their noise `[K, B, ...]`; beta is `[]`."""

    model: Model
    log_likelihood: LogLikelihood
    q: Posterior
    eps: Array
    beta: Array


def weigh(draws: Draws, params: Mapping, *, doubly: bool) -> tuple[Array, Array, Array]:
    """Equation (1) in nats, `[B]`, and its parts log p(x | z) and log q(z | x) - log p(z), `[K, B]`
    each; `doubly` chooses the gradient."""
    model, log_likelihood, q, eps, beta = draws
    if doubly:
        z, zeros = twice_weighted(q.at(eps), beta)
        log_q = _held_log_density(q, z)
    else:
        (z, log_q), zeros = model.draw(params, q, eps), 0.0
    log_p, log_ratio = log_likelihood(params, z), log_q - model.log_prior(params, z)
    return log_mean_exp(log_p - beta * log_ratio + zeros), log_p, log_ratio


def weigh_and_resample(
    draws: Draws, params: Mapping, key: Key, num: int, *, doubly: bool
) -> tuple[Array, Array, Array]:
    """As `weigh`, with the gradient of `num` of the draws, which may repeat, from 1 up to K. Its
    mean over keys is the gradient of all of them, where the log-likelihood is the same function at
    every call: one with dropout is not. The parts have no gradient."""
    held = draws._replace(q=jax.lax.stop_gradient(draws.q))
    bound, log_p, log_ratio = weigh(held, jax.lax.stop_gradient(params), doubly=False)
    model, log_likelihood, q, eps, beta = draws
    chosen, v = systematic_resample(key, log_p - beta * log_ratio, num)
    eps = take(eps, chosen)
    if doubly:
        missing = (1 - beta + beta * v).reshape(*v.shape, *(1,) * (eps.ndim - 2))
        z = scale_gradient(q.at(eps), missing)
        log_q = _held_log_density(q, z)
    else:
        z, log_q = model.draw(params, q, eps)
    followed = log_likelihood(params, z) - beta * (log_q - model.log_prior(params, z))
    followed = followed.mean(0)
    return bound + (followed - jax.lax.stop_gradient(followed)), log_p, log_ratio


def _held_log_density(q: Posterior, z: Array) -> Array:
    """log q(z | x), which has no gradient by way of q."""
    mean, log_variance = jax.lax.stop_gradient((q.mean, q.log_variance))
    scaled = (z - mean) * jnp.exp(-0.5 * log_variance)
    return sum_latents(-0.5 * (scaled**2 + log_variance + math.log(2 * math.pi)))
