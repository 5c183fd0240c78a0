"""Monotone splines of rational quadratics (Durkan, Bekasov, Murray & Papamakarios 2019).

f maps [-bound, bound] to itself, and f(x) = x outside. It passes through the knots (x_k, y_k) with
the slopes d_k, which are 1 at both ends. Between two neighbors, with

    (1) u = (x - x_k) / w,   w = x_k+1 - x_k,   h = y_k+1 - y_k,   s = h / w
        n = s + (d_k + d_k+1 - 2 s) u (1 - u)

the value and the slope are

    (2) f(x)  = y_k + h (s u^2 + d_k u (1 - u)) / n                      (Gregory & Delbourgo 1982)
    (3) f'(x) = s^2 (d_k+1 u^2 + 2 s u (1 - u) + d_k (1 - u)^2) / n^2

and the inverse is the root of a quadratic in u.
"""

import math

import flax.linen as nn
import jax.numpy as jnp

from gen_jax.types import Array

# No bin is narrower than this share of an even one, and no slope at a knot smaller than this.
_LEAST_BIN, _LEAST_SLOPE = 1e-2, 1e-3


def rational_quadratic(
    x: Array, parameters: Array, *, bound: float, inverse: bool = False
) -> tuple[Array, Array]:
    """x `[...]` to f(x) and log f'(x), or to those of the inverse; all zeros are the identity.

    `parameters` `[..., 3 K - 1]` are, of K bins, the logits of their widths and of their heights,
    and what the slopes at the K - 1 inner knots are the softplus of.
    """
    num_bins = (parameters.shape[-1] + 1) // 3
    widths, heights, slopes = jnp.split(parameters, [num_bins, 2 * num_bins], -1)
    across, up = _knots(widths, bound), _knots(heights, bound)
    one = math.log(math.expm1(1 - _LEAST_SLOPE))  # softplus(one) + least slope = 1
    slopes = _LEAST_SLOPE + nn.softplus(slopes + one)
    slopes = jnp.pad(slopes, [(0, 0)] * x.ndim + [(1, 1)], constant_values=1.0)
    # Outside, the formulas see an end of the interval, so that no gradient of theirs is infinite.
    clipped = jnp.clip(x, -bound, bound)
    knots = up if inverse else across
    number = (clipped[..., None] >= knots[..., 1:-1]).sum(-1, keepdims=True)
    here = number == jnp.arange(num_bins)

    def of_bin(values: Array) -> Array:
        return jnp.where(here, values, 0).sum(-1)

    left, low = of_bin(across[..., :-1]), of_bin(up[..., :-1])
    width, height = of_bin(jnp.diff(across)), of_bin(jnp.diff(up))
    first, last = of_bin(slopes[..., :-1]), of_bin(slopes[..., 1:])
    mean = height / width
    bend = first + last - 2 * mean
    if inverse:
        # The root in [0, 1] of a u^2 + b u + c, in the form in which nothing cancels.
        rise = clipped - low
        a, b, c = height * (mean - first) + rise * bend, height * first - rise * bend, -mean * rise
        u = -2 * c / (b + jnp.sqrt(jnp.maximum(b * b - 4 * a * c, 0)))
        value = left + width * u
    else:
        u = (clipped - left) / width
    product = u * (1 - u)
    n = mean + bend * product
    if not inverse:
        value = low + height * (mean * u * u + first * product) / n
    rate = last * u * u + 2 * mean * product + first * (1 - u) ** 2
    log_slope = 2 * jnp.log(mean) + jnp.log(rate) - 2 * jnp.log(n)
    inside = jnp.abs(x) < bound
    sign = -1 if inverse else 1
    return jnp.where(inside, value, x), jnp.where(inside, sign * log_slope, 0)


def _knots(logits: Array, bound: float) -> Array:
    """The ends of bins, `[..., K + 1]`, from -bound to bound, of logits `[..., K]`."""
    shares = _LEAST_BIN / logits.shape[-1] + (1 - _LEAST_BIN) * nn.softmax(logits)
    inner = bound * (2 * jnp.cumsum(shares, -1)[..., :-1] - 1)
    ends = [(0, 0)] * (logits.ndim - 1)
    inner = jnp.pad(inner, [*ends, (1, 0)], constant_values=-bound)
    return jnp.pad(inner, [*ends, (0, 1)], constant_values=bound)
