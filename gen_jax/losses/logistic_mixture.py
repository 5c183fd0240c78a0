"""The discretized mixture of logistics (Salimans et al. 2017, PixelCNN++). No networks here.

A pixel x = (x_1, ..., x_C), of L equally spaced levels in [-1, 1], has the mass

    (1) P(x) = sum_m w_m prod_c P_m(x_c | x_1..x_{c-1}),   w = softmax(logits)
    (2) P_m(x_c | x_1..x_{c-1}) = S(a) - S(b),   a, b = (x_c - mu_mc +- h) / s_mc,   h = 1 / (L - 1)
    (3) mu_mc = mean_mc + sum_{d < c} tanh(k_mcd) x_d,   log s between -7 and 7

with S(u) = 1 / (1 + e^-u), a = infinity at the highest level and b = -infinity at the lowest, so
that the masses sum to one. Elsewhere a - b = 2h/s, and without any cancellation

    (4) log (S(a) - S(b)) = log S(a) + log S(-b) + log (1 - e^(-2h/s))

A draw is a component by its weight, then, sub-pixel after sub-pixel, mu + s log (u / (1 - u)) with
u even in (0, 1), rounded to the nearest level and clipped to [-1, 1]. What is rounded to a level
is what lies in its bin, so this draws with the masses (1) themselves.

A network says all of it by `num_parameters(C)` numbers for each component: its logit, C means, C
log scales, and k in the order 21, 31, 32, ...
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gen_jax.losses.likelihood import sum_per_example
from gen_jax.types import Array, Key

# The lower limit is the paper's. At the upper one nearly all mass is on the outermost levels.
_LOG_SCALE_LIMITS = (-7.0, 7.0)


class _Components(NamedTuple):
    logit: Array  # [..., M]
    mean: Array  # [..., M, C]
    log_scale: Array  # [..., M, C]
    slope: Array  # [..., M, C (C - 1) / 2]: tanh(k)


def num_parameters(channels: int) -> int:
    """How many numbers describe one component for pixels of so many channels."""
    return 1 + 2 * channels + channels * (channels - 1) // 2


def log_mass(x: Array, parameters: Array, levels: int) -> Array:
    """The log of (1), summed over the pixels of an example: `[B]` nats, at most 0.

    Args:
      x: `[B, ..., C]`, on the levels.
      parameters: `[B, ..., M, num_parameters(C)]`.
      levels: L.
    """
    return sum_per_example(log_mass_of_pixels(x, parameters, levels))


def log_mass_of_pixels(x: Array, parameters: Array, levels: int) -> Array:
    """The log of (1) of each pixel: x `[..., C]`, parameters `[..., M, P]` to `[...]` nats."""
    parts = _components(parameters, x.shape[-1])
    half_bin, inverse_scale = 1 / (levels - 1), jnp.exp(-parts.log_scale)
    value = x[..., None, :]
    centered = value - _conditioned(parts, value)
    lowest, highest = value < -1 + half_bin, value > 1 - half_bin
    log_below = jnp.where(highest, 0, jax.nn.log_sigmoid((centered + half_bin) * inverse_scale))
    log_above = jnp.where(lowest, 0, jax.nn.log_sigmoid((half_bin - centered) * inverse_scale))
    log_inside = jnp.where(lowest | highest, 0, jax.nn.log1mexp(2 * half_bin * inverse_scale))
    of_component = jnp.sum(log_below + log_above + log_inside, -1)
    return jax.nn.logsumexp(jax.nn.log_softmax(parts.logit) + of_component, -1)


def sample(
    key: Key, parameters: Array, *, channels: int, levels: int, temperature: float = 1.0
) -> Array:
    """Pixels `[..., channels]` on the levels, drawn by (1).

    Args:
      key: of the draw.
      parameters: `[..., M, num_parameters(channels)]`.
      channels: C.
      levels: L.
      temperature: 1 for (1) itself. Any other draws from another mixture, whose logits are divided
        and whose scales are multiplied by it: below 1 from what is more probable.
    """
    component_key, value_key = jax.random.split(key)
    parts = _components(parameters, channels)
    number = jax.random.categorical(component_key, parts.logit / temperature)
    parts = jax.tree.map(lambda part: _pick(part, number), parts._replace(logit=None))
    noise = jax.random.logistic(value_key, parts.mean.shape)
    noise = noise * jnp.exp(parts.log_scale) * temperature
    x = jnp.zeros_like(noise)
    for c in range(channels):
        x = x.at[..., c].set(_nearest_level(_conditioned(parts, x) + noise, levels)[..., c])
    return x


def _components(parameters: Array, channels: int) -> _Components:
    """What the numbers of every component stand for."""
    ends = np.cumsum([1, channels, channels])
    logit, mean, log_scale, slope = jnp.split(parameters, ends, -1)
    log_scale = jnp.clip(log_scale, *_LOG_SCALE_LIMITS)
    return _Components(logit[..., 0], mean, log_scale, jnp.tanh(slope))


def _conditioned(parts: _Components, x: Array) -> Array:
    """The mu of (3), `[..., C]`; of x `[..., C]` each sees what comes before it."""
    mu = [parts.mean[..., c] for c in range(x.shape[-1])]
    for k, (c, d) in enumerate(zip(*np.tril_indices(len(mu), -1), strict=True)):
        mu[c] += parts.slope[..., k] * x[..., d]
    return jnp.stack(mu, -1)


def _pick(part: Array, number: Array) -> Array:
    """Of part `[..., M, K]` the component of that number `[...]`: `[..., K]`."""
    return jnp.take_along_axis(part, number[..., None, None], -2)[..., 0, :]


def _nearest_level(x: Array, levels: int) -> Array:
    level = jnp.rint((jnp.clip(x, -1, 1) + 1) / 2 * (levels - 1))
    # A table, since a compiler may round the last bits of a formula in another way than the data's.
    values = np.arange(levels, dtype=np.float32) / (levels - 1) * 2 - 1
    return jnp.asarray(values)[level.astype(jnp.int32)]
