"""What the training of a VAE makes small, of the rate and the distortion of an example.

(1) loss = distortion + beta rate                                (Higgins et al. 2017)
(2) loss = distortion + beta sum_d max(free_bits, rate_d)        (Kingma et al. 2016)
(3) loss = distortion + beta |rate - C|                          (Burgess et al. 2018)
    where beta, or the capacity C, rises evenly from 0 over `warmup_steps`, and the rates in (2)
    and (3) are means over a batch, or the part of it that a device or an accumulation takes
(4) the importance-weighted bound, see `importance_weighted.py`
"""

from typing import NamedTuple

import jax.numpy as jnp

from gen_jax.errors import InputError
from gen_jax.methods.bounds import rise
from gen_jax.types import Array

GRADIENTS = ('elbo', 'iwae', 'dreg')


class Objective(NamedTuple):
    """Which of (1) to (4)."""

    beta: float
    warmup_steps: int
    free_bits: float
    capacity: float | None
    gradient: str
    num_samples: int
    gradient_draws: int | None

    def check(self, has_closed_rate: bool, has_flow: bool) -> None:
        """Raises InputError for options that do not go together, or not with a posterior that has a
        flow, or with a rate that has no closed form."""
        if self.gradient not in GRADIENTS:
            raise InputError(
                f'method.gradient: no {self.gradient!r}; choose from {", ".join(GRADIENTS)}'
            )
        for name in ('beta', 'warmup_steps', 'free_bits'):
            if not getattr(self, name) >= 0:
                raise InputError(f'method.{name}: {getattr(self, name)} must be at least 0')
        if self.num_samples < 1:
            raise InputError(f'method.num_samples: {self.num_samples} must be at least 1')
        if self.gradient_draws is not None:
            if self.gradient == 'elbo':
                raise InputError(
                    "method.gradient_draws: 'elbo' weighs no draws; set it to None, or "
                    "method.gradient to 'iwae' or 'dreg'"
                )
            if not 1 <= self.gradient_draws < self.num_samples:
                raise InputError(
                    f'method.gradient_draws: {self.gradient_draws} must be at least 1 and below '
                    f'the {self.num_samples} of method.num_samples, or None for all'
                )
        if self.free_bits and (self.capacity is not None or not has_closed_rate):
            raise InputError(
                'method.free_bits: they need the prior N(0, I), a posterior without a flow, and no '
                'capacity; set it to 0'
            )
        if self.gradient != 'elbo' and (self.free_bits or self.capacity is not None):
            raise InputError(
                "method.gradient: free_bits and capacity are of the rate, which only 'elbo' has"
            )
        if self.gradient == 'dreg' and has_flow:
            raise InputError("method.gradient: 'dreg' is for posteriors without a flow; use 'iwae'")

    def rise(self, step: Array) -> Array:
        """How far `step` lies in the warm-up, from 0 to 1."""
        return rise(step, self.warmup_steps)

    def weighted_rate(self, rate: Array, of_each: Array | None, step: Array) -> Array:
        """What stands beside the distortion in (1) to (3), for rate `[B]` and, where it has a
        closed form, that `of_each` number `[B, D]`."""
        if self.capacity is not None:
            return self.beta * jnp.abs(jnp.mean(rate) - self.rise(step) * self.capacity)
        if self.free_bits:
            rate = jnp.sum(jnp.maximum(jnp.mean(of_each, 0), self.free_bits))
        return self.beta * self.rise(step) * jnp.mean(rate)
