"""The doubly reparametrized gradient of an importance-weighted bound (Tucker et al. 2019, DReG).

    (1) bound = log 1/K sum_k w_k,   v_k = w_k / sum w
    (2) d bound / d encoder = sum_k v_k^2 d log w_k / d z_k  d z_k / d encoder

where log w_k depends on the encoder by way of z_k alone. What differentiation gives has one v_k,
not two. The gradient that zeros get which were added to log w_k is v_k itself: backward, that of
z_k is multiplied by it.
"""

import jax
import jax.numpy as jnp

from gen_jax.types import Array


@jax.custom_vjp
def twice_weighted(z: Array) -> tuple[Array, Array]:
    """z `[K, B, ...]` as it is, and zeros `[K, B]` to add to the log-weights."""
    return z, jnp.zeros(z.shape[:2])


def _forward(z: Array) -> tuple[tuple[Array, Array], None]:
    return twice_weighted(z), None


def _backward(_, gradients: tuple[Array, Array]) -> tuple[Array]:
    of_z, of_zeros = gradients
    total = of_zeros.sum(0)
    weights = of_zeros / jnp.where(total == 0, 1, total)
    return (of_z * weights.reshape(*weights.shape, *(1,) * (of_z.ndim - 2)),)


twice_weighted.defvjp(_forward, _backward)
