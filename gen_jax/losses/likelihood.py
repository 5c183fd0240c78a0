"""Likelihoods and divergences, one value per example, in nats. No networks here.

(1) KL(N(m1, v1) || N(m2, v2)) = 1/2 (log v2/v1 + (v1 + (m1 - m2)^2) / v2 - 1)
(2) log N(x; m, v) = -1/2 (log 2 pi v + (x - m)^2 / v)
(3) the discretized Gaussian (Ho et al. 2020, equation 13): the mass that N(m, v) gives to
    the bin of width 2/(L-1) around x, for L levels in [-1, 1]; the outermost bins reach to
    infinity, so that the masses sum to one.
"""

import math

import jax
import jax.numpy as jnp
from jax.scipy.stats import norm

from gen_jax.types import Array, DataSpec


def sum_per_example(x: Array) -> Array:
    """`[B, ...]` to `[B]`: the sum over everything but the batch."""
    return jnp.sum(x, axis=tuple(range(1, x.ndim)))


def mean_per_example(x: Array) -> Array:
    """`[B, ...]` to `[B]`: the mean over everything but the batch."""
    return jnp.mean(x, axis=tuple(range(1, x.ndim)))


def gaussian_kl(mean1: Array, variance1: Array, mean2: Array, variance2: Array) -> Array:
    """Equation (1), summed over all but the batch axis: `[B]` nats."""
    kl = jnp.log(variance2 / variance1) + (variance1 + (mean1 - mean2) ** 2) / variance2 - 1
    return 0.5 * sum_per_example(kl)


def gaussian_log_density(x: Array, mean: Array, variance: Array) -> Array:
    """Equation (2), summed over all but the batch axis: `[B]` nats."""
    return -0.5 * sum_per_example(jnp.log(2 * jnp.pi * variance) + (x - mean) ** 2 / variance)


def discretized_gaussian_log_mass(x: Array, mean: Array, variance: Array, levels: int) -> Array:
    """Equation (3), summed over all but the batch axis: `[B]` nats, at most 0.

    `x` takes `levels` equally spaced values from -1 to 1.
    """
    deviation, half_bin = jnp.sqrt(variance), 1 / (levels - 1)
    # Mirrored into the lower half of the Gaussian, where log-masses keep their digits.
    distance = -jnp.abs(x - mean)
    lowest, highest = x < -1 + half_bin, x > 1 - half_bin
    outward = jnp.where(x > mean, highest, lowest)
    inward = (lowest | highest) & ~outward
    low = jnp.where(outward, -jnp.inf, (distance - half_bin) / deviation)
    high = jnp.where(inward, jnp.inf, (distance + half_bin) / deviation)
    log_low, log_high = norm.logcdf(low), norm.logcdf(high)
    return sum_per_example(log_high + jax.nn.log1mexp(log_high - log_low))


def categorical_nats(logits: Array, tokens: Array) -> Array:
    """-log of what softmax(logits `[..., V]`) gives to the tokens, int32 `[...]`: nats `[...]`."""
    chosen = jnp.take_along_axis(logits, tokens[..., None], -1)[..., 0]
    return jax.nn.logsumexp(logits, -1) - chosen


def bits_per_dim(nats: Array, num_dims: int) -> Array:
    """Nats per example to bits per dimension."""
    return nats / (num_dims * math.log(2))


def dequantized_bits_per_dim(nats: Array, num_dims: int, levels: int) -> Array:
    """Bits per dimension of the discrete data, from the density of its dequantized form.

    `nats` is -log p(x) of x = 2 (value + u) / levels - 1, u ~ U[0, 1): one level is 2/levels wide,
    and by Jensen's inequality the result bounds the discrete data's from above.
    """
    return bits_per_dim(nats, num_dims) + math.log2(levels / 2)


def of_data(nats: Array, spec: DataSpec, is_mass: bool) -> dict[str, Array]:
    """-log p `[B]` of examples in the units that they are compared in: `nats` of an example, and
    `bits_per_dim` where the data has levels, or else `nats_per_dim`.

    `is_mass` says that p is of the levels themselves, or else a density.
    """
    num_dims = math.prod(spec.shape)
    if is_mass:
        return {'nats': nats, 'bits_per_dim': bits_per_dim(nats, num_dims)}
    if spec.dequantized:
        bits = dequantized_bits_per_dim(nats, num_dims, spec.levels)
        return {'nats': nats, 'bits_per_dim': bits}
    return {'nats': nats, 'nats_per_dim': nats / num_dims}
