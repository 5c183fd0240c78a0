"""The importance-weighted bound of K draws as something to train a VAE by.

    (1) log 1/K sum_k w_k,   log w = log p(x | z) + beta (log p(z) - log q(z | x))
                                                     (Burda et al. 2016, where beta is 1)

Its gradient is the plain one, or the doubly reparametrized one of
`losses/doubly_reparametrized.py`; and that of all K draws, or of few which are chosen by their
weights, `losses/chosen_draws.py`. Then all others cost a third: they are never followed back.
"""

import math
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from gen_jax.losses.chosen_draws import choose, scale_gradient, take
from gen_jax.losses.doubly_reparametrized import twice_weighted
from gen_jax.methods.bounds import log_mean_exp
from gen_jax.methods.vae_model import Model, Posterior, sum_latents
from gen_jax.types import Array, Key

# Parameters and z [K, B, ...] to log p(x | z) [K, B].
LogLikelihood = Callable[[Mapping, Array], Array]


def weigh(
    model: Model,
    log_likelihood: LogLikelihood,
    params: Mapping,
    q: Posterior,
    eps: Array,
    beta: Array,
    *,
    doubly: bool,
) -> tuple[Array, Array, Array]:
    """Equation (1) `[B]` and its parts, log p(x | z) and log q(z | x) - log p(z), `[K, B]` each,
    of noise eps `[K, B, ...]`; `doubly` chooses the gradient."""
    if doubly:
        z, zeros = twice_weighted(_moved(q, eps), beta)
        log_q = _held_log_density(q, z)
    else:
        (z, log_q), zeros = model.draw(params, q, eps), 0.0
    log_p, log_ratio = log_likelihood(params, z), log_q - model.log_prior(params, z)
    return log_mean_exp(log_p - beta * log_ratio + zeros), log_p, log_ratio


def weigh_and_choose(
    model: Model,
    log_likelihood: LogLikelihood,
    params: Mapping,
    q: Posterior,
    eps: Array,
    beta: Array,
    key: Key,
    num: int,
    *,
    doubly: bool,
) -> tuple[Array, Array, Array]:
    """As `weigh`, with the gradient of `num` of the draws; its mean over keys is that of all."""
    held = jax.lax.stop_gradient((params, q))
    z, log_q = model.draw(*held, eps)
    log_p, log_ratio = log_likelihood(held[0], z), log_q - model.log_prior(held[0], z)
    log_weights = log_p - beta * log_ratio
    chosen, v = choose(key, log_weights, num)
    eps = take(eps, chosen)
    if doubly:
        missing = (1 - beta + beta * v).reshape(*v.shape, *(1,) * (eps.ndim - 2))
        z = scale_gradient(_moved(q, eps), missing)
        log_q = _held_log_density(q, z)
    else:
        z, log_q = model.draw(params, q, eps)
    followed = log_likelihood(params, z) - beta * (log_q - model.log_prior(params, z))
    followed = followed.mean(0)
    bound = log_mean_exp(log_weights) + followed - jax.lax.stop_gradient(followed)
    return bound, log_p, log_ratio


def _moved(q: Posterior, eps: Array) -> Array:
    """z of noise, without a flow."""
    return q.mean + jnp.exp(0.5 * q.log_variance) * eps


def _held_log_density(q: Posterior, z: Array) -> Array:
    """log q(z | x), which has no gradient by way of q."""
    mean, log_variance = jax.lax.stop_gradient((q.mean, q.log_variance))
    scaled = (z - mean) * jnp.exp(-0.5 * log_variance)
    return sum_latents(-0.5 * (scaled**2 + log_variance + math.log(2 * math.pi)))
