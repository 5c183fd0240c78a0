"""Which of K draws a gradient is of, resampled by their weights (Burda et al. 2016, section 3).

(1) d log 1/K sum_k w_k = sum_k v_k d log w_k = E_{j ~ v} d log w_j,   v_k = w_k / sum w

So K draws are weighed without a gradient, and few of them, drawn by v, are followed back.

(2) draw m of M is the first j whose v_1 + ... + v_j is above (u + m) / M, u uniform, m from 0

is systematic resampling (Kitagawa 1996): each j comes M v_j times on average, and never more than
one time off it.
"""

import jax
import jax.numpy as jnp

from gen_jax.types import Array, Key


def systematic_resample(key: Key, log_weights: Array, num: int) -> tuple[Array, Array]:
    """Equation (2) for each example of log w `[K, B]`: j int32 `[num, B]`, of which some may be
    the same, and their v."""
    v = jax.nn.softmax(log_weights, 0)
    offset = jax.random.uniform(key, (1, log_weights.shape[1]))
    points = (offset + jnp.arange(num)[:, None]) / num
    sums = jnp.cumsum(v, 0)
    # Where rounding leaves the last sum below a point, the last j that has a weight is taken.
    passed = (sums[:, None] <= points) & (sums < sums[-1])[:, None]
    chosen = passed.sum(0)
    return chosen, jnp.take_along_axis(v, chosen, 0)


def take(values: Array, chosen: Array) -> Array:
    """Of values `[K, B, ...]` those with numbers j `[M, B]`: `[M, B, ...]`."""
    return jnp.take_along_axis(
        values, chosen.reshape(*chosen.shape, *(1,) * (values.ndim - 2)), axis=0
    )


def scale_gradient(x: Array, factor: Array) -> Array:
    """x as it is, whose gradient is multiplied by a factor of the same number of axes."""
    held = jax.lax.stop_gradient(x)
    return held + factor * (x - held)
