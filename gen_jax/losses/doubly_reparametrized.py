"""The doubly reparametrized gradient of an importance-weighted bound (Tucker et al. 2019, DReG).

    (1) bound = log 1/K sum_k w_k,   log w = log p(x | z) + beta (log p(z) - log q(z | x)),
        v_k = w_k / sum w
    (2) d bound / d encoder = sum_k u_k d log w_k / d z_k  d z_k / d encoder,
        u_k = (1 - beta) v_k + beta v_k^2

where log w_k depends on the encoder by way of z_k alone; beta is 1 in the paper. (2) is what is
left of the gradient when E[v_k d log q(z_k) / d encoder], d over the encoder's part in q, is
written as E[d v_k / d z_k  d z_k / d encoder], d v_k / d z_k being v_k (1 - v_k) d log w_k / d z_k.
Differentiation gives v_k in the place of u_k. The gradient that zeros get which were added to
log w_k is v_k itself: backward, that of z_k is multiplied by what is missing.
"""

import jax
import jax.numpy as jnp

from gen_jax.types import Array


@jax.custom_vjp
def twice_weighted(z: Array, beta: Array) -> tuple[Array, Array]:
    """z `[K, B, ...]` as it is, and zeros `[K, B]` to add to the log-weights; beta is `[]`."""
    return z, jnp.zeros(z.shape[:2])


def _forward(z: Array, beta: Array) -> tuple[tuple[Array, Array], Array]:
    return twice_weighted(z, beta), beta


def _backward(beta: Array, gradients: tuple[Array, Array]) -> tuple[Array, Array]:
    of_z, of_zeros = gradients
    total = of_zeros.sum(0)
    v = of_zeros / jnp.where(total == 0, 1, total)
    missing = 1 - beta + beta * v
    return of_z * missing.reshape(*v.shape, *(1,) * (of_z.ndim - 2)), jnp.zeros_like(beta)


twice_weighted.defvjp(_forward, _backward)
