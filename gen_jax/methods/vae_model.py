"""The networks of a variational autoencoder, and what their answers mean.

(1) q(z | x) = N(mean(x), variance(x)), z = mean + deviation eps; or what a flow makes of it,
    log q(z | x) = log N(z_0) - log |det dz / dz_0|              (Rezende & Mohamed 2015)
(2) KL(q(z | x) || N(0, I)) = sum_d (mean_d^2 + variance_d - 1 - log variance_d) / 2
                                                                 (Kingma & Welling 2014)
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from gen_jax.losses.observation import Observation, with_extra
from gen_jax.networks.priors import Normal
from gen_jax.types import Array, DataSpec, Key

# Beyond these a posterior is a point, or wider than any prior.
_LOG_VARIANCE_LIMITS = (-14.0, 10.0)


class Posterior(NamedTuple):
    """q(z | x) of equation (1), all `[B, ...]`; `context` is what a flow is told."""

    mean: Array
    log_variance: Array
    context: Array | None

    def at(self, eps: Array) -> Array:
        """z of noise, before a flow."""
        return self.mean + jnp.exp(0.5 * self.log_variance) * eps


class Model(NamedTuple):
    """The networks and what their answers mean; parameters come and go as arguments.

    The player's parameters are those of `network`, and where they have any of `prior`, `posterior`
    and the `observation`. Several draws of z for each x stand on a first axis of their own.
    """

    network: nn.Module
    prior: nn.Module
    posterior: nn.Module | None
    observation: Observation
    spec: DataSpec
    num_classes: int | None  # None: the network is told no labels
    latent_shape: tuple[int, ...]

    @property
    def has_closed_rate(self) -> bool:
        """Whether the divergence of q from the prior is (2)."""
        return isinstance(self.prior, Normal) and self.posterior is None

    def label(self, cond: Array | None) -> Array | None:
        """Labels as the network takes them."""
        return None if self.num_classes is None else cond

    def encode(self, params: Mapping, x: Array, cond: Array | None, **options) -> Posterior:
        """q(z | x)."""
        own = {'params': params['autoencoder']['network']}
        code = self.network.apply(own, x, self.label(cond), method='encode', **options)
        mean, log_variance, *rest = jnp.split(code, 2 if self.posterior is None else 3, -1)
        log_variance = jnp.clip(log_variance, *_LOG_VARIANCE_LIMITS)
        return Posterior(mean, log_variance, rest[0] if rest else None)

    def decode(self, params: Mapping, z: Array, cond: Array | None, **options) -> Array:
        """The numbers of p(x | z), for z `[B, ...]`."""
        own = params['autoencoder']
        label = self.label(cond)
        answer = self.network.apply(
            {'params': own['network']}, z, label, method='decode', **options
        )
        return with_extra(answer, own.get('observation'))

    def draw(self, params: Mapping, q: Posterior, eps: Array) -> tuple[Array, Array]:
        """z `[K, B, ...]` and log q(z | x) `[K, B]`, from noise eps like z."""
        z = q.at(eps)
        log_q = sum_latents(-0.5 * (eps**2 + q.log_variance + math.log(2 * math.pi)))
        if self.posterior is None:
            return z, log_q
        z, log_det = self.flow(params, q, z)
        return z, log_q - log_det

    def flow(self, params: Mapping, q: Posterior, z: Array) -> tuple[Array, Array]:
        """What the posterior's flow makes of z `[K, B, ...]`, and its log-determinants."""
        own = {'params': params['autoencoder']['posterior']}
        context = q.context.reshape(len(q.context), -1)
        out, log_det = self.posterior.apply(own, _flat(z), context)
        return out.reshape(z.shape), log_det

    def log_prior(self, params: Mapping, z: Array) -> Array:
        """log p(z) of z `[K, B, ...]`: `[K, B]`."""
        return self._of_prior(params, 'log_density', _flat(z), self.pseudo_posterior(params))

    def draw_prior(self, params: Mapping, key: Key, num: int) -> Array:
        """z `[num, ...]` of the prior."""
        size, posterior = math.prod(self.latent_shape), self.pseudo_posterior(params)
        z = self._of_prior(params, 'sample', key, num, size, posterior)
        return z.reshape(num, *self.latent_shape)

    def _of_prior(self, params: Mapping, method: str, *arguments) -> Array:
        own = params['autoencoder']
        variables = {'params': own['prior']} if 'prior' in own else {}
        return self.prior.apply(variables, *arguments, method=method)

    def pseudo_posterior(self, params: Mapping) -> Callable:
        """q(z | u) of examples u, as a prior that is made of posteriors asks for it."""

        def posterior(u: Array) -> tuple[Array, Array]:
            q = self.encode(params, u, None, train=False)
            return _flat(q.mean[None])[0], _flat(q.log_variance[None])[0]

        return posterior

    def log_likelihood(
        self, params: Mapping, x: Array, z: Array, cond: Array | None, **options
    ) -> Array:
        """log p(x | z) of z `[K, B, ...]`: `[K, B]`."""
        num = len(z)
        if cond is not None:
            cond = jnp.tile(cond, num)
        answer = self.decode(params, z.reshape(-1, *z.shape[2:]), cond, **options)
        laws = answer.reshape(num, len(x), *answer.shape[1:])
        return jax.vmap(self.observation.log_prob, (None, 0))(x, laws)

    def rate_of_each(self, q: Posterior) -> Array:
        """The terms of (2): `[B, D]` nats."""
        kl = 0.5 * (q.mean**2 + jnp.exp(q.log_variance) - 1 - q.log_variance)
        return kl.reshape(len(kl), -1)


def _flat(z: Array) -> Array:
    """`[K, B, ...]` to `[K, B, D]`."""
    return z.reshape(*z.shape[:2], -1)


def sum_latents(z: Array) -> Array:
    """`[K, B, ...]` to `[K, B]`."""
    return jnp.sum(_flat(z), -1)
