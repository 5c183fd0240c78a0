"""The variational bound of a Gaussian chain, as a function of a predictor.

For a chain of N steps at the times k/N, q as in `processes/gaussian.py` and p the model's way back
(Ho, Jain & Abbeel 2020, equation 5; Sohl-Dickstein et al. 2015):

    (1) -log p(x_0) <= L_N + sum_{k=2..N} L_{k-1} + L_0
    (2) L_N     = KL(q(x_1 | x_0) || N(0, I))
    (3) L_{k-1} = KL(q(x_s | x_t, x_0) || N(m(x_t, f), v)),   s = (k-1)/N, t = k/N
    (4) L_0     = -log p(x_0 | x_{1/N})

The sum in (1) is taken over all its terms, or over `bound_terms` of them, evenly spread from a
random start and weighted up: an unbiased estimate of the same bound.
"""

import jax
import jax.numpy as jnp
import numpy as np

from gen_jax.errors import InputError
from gen_jax.losses import likelihood
from gen_jax.processes import gaussian
from gen_jax.processes.gaussian import GaussianProcess
from gen_jax.types import Array, Key, Predictor


def variational_bound(
    predict: Predictor,
    process: GaussianProcess,
    x: Array,
    key: Key,
    *,
    num_steps: int,
    bound_terms: int | None,
    variance: str,
    levels: int | None,
) -> tuple[Array, Array]:
    """Equation (1), per example, in nats: the rate L_N + sum L_{k-1} and the distortion L_0.

    Args:
      predict: the estimate of x_0.
      process: how data becomes noise.
      x: `[B, ...]` data.
      key: draws one x_t for each term.
      num_steps: N.
      bound_terms: how many of the N - 1 terms L_{k-1} to take; None takes them all.
      variance: v, as in `samplers.ancestral`. For L_0, with `levels`, v is the posterior variance
        one step further on, as Ho et al. have it.
      levels: the data's levels, for L_0 the mass of a discretized Gaussian; None for continuous
        data, where L_0 is the density of the Gaussian that has the variance of x_{1/N} about x_0.

    Raises:
      InputError: `variance` is neither 'large' nor 'small', or there are no terms to take.
    """
    if variance not in ('large', 'small'):
        raise InputError(f"variance: {variance!r} is neither 'large' nor 'small'")
    available = num_steps - 1
    if available < 1 or (bound_terms is not None and bound_terms < 1):
        raise InputError(
            f'bound_terms: {bound_terms} of {available}; use at least 1, or None for all, and a '
            'chain of at least 2 steps'
        )
    bound_terms = available if bound_terms is None else min(bound_terms, available)
    inner_key, end_key = jax.random.split(key)
    inner = _inner_terms(predict, process, x, inner_key, num_steps, bound_terms, variance)
    prior = likelihood.gaussian_kl(
        process.alpha(1.0) * x, process.sigma(1.0) ** 2 * jnp.ones_like(x), 0.0, 1.0
    )
    return prior + inner, _last_step(predict, process, x, end_key, num_steps, levels)


def _inner_terms(
    predict: Predictor,
    process: GaussianProcess,
    x: Array,
    key: Key,
    num_steps: int,
    bound_terms: int,
    variance: str,
) -> Array:
    """The sum in (1), or its estimate from `bound_terms` terms: `[B]` nats."""
    available = num_steps - 1
    start_key, noise_key = jax.random.split(key)
    # Spread evenly from a random start, each k = 2..N is as likely as any other; each example has
    # a start of its own, so that the examples stay independent and their standard error is true.
    every = bound_terms == available
    start = jnp.zeros(len(x)) if every else jax.random.uniform(start_key, (len(x),))

    def add_term(total, index):
        k = 2 + jnp.floor((index + start) * (available / bound_terms))
        k = jnp.minimum(k, num_steps)  # a start just below 1 can round up to it
        # A compiler may round k / N to just above 1 at k = N.
        s, t = (k - 1) / num_steps, jnp.minimum(k / num_steps, 1)
        eps = jax.random.normal(jax.random.fold_in(noise_key, index), x.shape)
        x_t = gaussian.corrupt(process, x, eps, t)
        mean, small = gaussian.posterior(process, x, x_t, s, t)
        guess, _ = gaussian.posterior(process, predict(x_t, t), x_t, s, t)
        chosen = small
        if variance == 'large':
            widen = (-1,) + (1,) * (x.ndim - 1)
            chosen = gaussian.transition(process, s.reshape(widen), t.reshape(widen))[1]
        return total + likelihood.gaussian_kl(mean, small, guess, chosen), None

    total, _ = jax.lax.scan(add_term, jnp.zeros(len(x)), jnp.arange(bound_terms))
    return total * (available / bound_terms)


def _last_step(
    predict: Predictor,
    process: GaussianProcess,
    x: Array,
    key: Key,
    num_steps: int,
    levels: int | None,
) -> Array:
    """Equation (4): `[B]` nats."""
    first, second = np.float32(1 / num_steps), np.float32(2 / num_steps)
    eps = jax.random.normal(key, x.shape)
    guess = predict(gaussian.corrupt(process, x, eps, first), jnp.asarray(first))
    if levels is None:
        spread = (process.sigma(first) / process.alpha(first)) ** 2
        return -likelihood.gaussian_log_density(x, guess, spread)
    _, spread = gaussian.posterior(process, x, x, first, second)
    return -likelihood.discretized_gaussian_log_mass(x, guess, spread, levels)
