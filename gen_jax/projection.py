"""Projection: the latents of a decoder G that come nearest to a given example, by descent.

    w* = argmin_w  1/S sum_s  mean (P_s G(w) - P_s x)^2   +   c (|w|^2 / D - 1)^2           (1)

P_0 changes nothing, and each further P_s averages squares of two by two of the one before, as long
as sides are even: where G(w) is still another picture, the coarse scales say which way is better.
The second term is for w ~ N(0, I) of D numbers alone: |w|^2 has the mean D and the deviation
sqrt(2 D), and G has never been asked for latents far from that sphere.

Latents begin at the mean, and each layer has its own (the space W+ of Abdal et al. 2019,
arXiv:1904.03189; beginning at the mean, and the ramp of the learning rate, are from the projection
of Karras et al. 2020, arXiv:1912.04958, whose distance is learned and not of pixels).
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from gen_jax.types import Array, Tree

_PENALTY = 0.01  # c
_LEARNING_RATE = 0.1  # at the start, in deviations of w


def make_projector(
    decode: Callable[..., Array],
    mean: Array,
    deviation: float,
    num_steps: int,
    is_normal: bool = False,
    jit: Callable = jax.jit,
) -> Callable[..., Array]:
    """A function `(weights, x [B, ...]) -> w [B, num_layers, D]`, the latents of (1) for each of
    several examples, none of which depends on the others.

    Each step is a program of its own: XLA's convolutions on a CPU take two to three times as long
    in a loop that is compiled.

    Args:
      decode: `(weights, w) -> [B, ...]`; `weights` are any arrays.
      mean: of w, `[num_layers, D]`, where the descent begins.
      deviation: of w's numbers, the unit of a step.
      num_steps: of Adam, its rate falling to 0 along a half cosine.
      is_normal: whether w is N(0, I).
      jit: compiles a step.
    """
    optimizer = optax.adam(optax.cosine_decay_schedule(_LEARNING_RATE, num_steps))

    @jit
    def step(moved, opt_state, weights, x):
        def loss(moved):
            w = mean + deviation * moved
            return objective(functools.partial(decode, weights), w, x, is_normal).sum()

        updates, opt_state = optimizer.update(jax.grad(loss)(moved), opt_state)
        return optax.apply_updates(moved, updates), opt_state

    def project(weights: Tree, x: Array) -> Array:
        moved = jnp.zeros((len(x), *mean.shape))
        opt_state = optimizer.init(moved)
        for _ in range(num_steps):
            moved, opt_state = step(moved, opt_state, weights, x)
        return mean + deviation * moved

    return project


def objective(
    decode: Callable[[Array], Array], w: Array, x: Array, is_normal: bool = False
) -> Array:
    """What (1) minimizes, for each example, `[B]`."""
    scales = zip(pyramid(decode(w)), pyramid(x), strict=True)
    errors = [jnp.square(mine - its).reshape(len(x), -1).mean(1) for mine, its in scales]
    error = sum(errors) / len(errors)
    if is_normal:
        error += _PENALTY * jnp.square(jnp.square(w).mean((1, 2)) - 1)
    return error


def pyramid(x: Array) -> list[Array]:
    """x `[B, ..., C]` at several scales, the finest first: each is half as long as the one before
    along every axis between the first and the last, as long as all of these are even."""
    scales = [x]
    while x.ndim > 2 and all(side % 2 == 0 for side in x.shape[1:-1]):
        for axis in range(1, x.ndim - 1):
            parts = (*x.shape[:axis], x.shape[axis] // 2, 2, *x.shape[axis + 1 :])
            x = x.reshape(parts).mean(axis + 1)
        scales.append(x)
    return scales
