"""What is asked of a discriminator or a generator besides its game: penalties on slopes.

A discriminator here is a function D of examples x `[B, ...]` that answers with one logit each:

    (1) R1 = E |grad D(x)|^2 / 2 over real examples x           (Mescheder et al. 2018)
    (2) R2 = the same over made ones
    (3) gradient penalty = E (|grad D(u x + (1 - u) G)| - 1)^2,   u even over [0, 1], one for each
        pair of a real example x and a made one G               (Gulrajani et al. 2017, WGAN-GP)
    (4) consistency = E (D(x) - D(T x))^2, T an augmentation that leaves x what it is
                                                        (Zhang et al. 2020; Zhao et al. 2021)
    (5) path length = E (|J' y| - a)^2,   J the slope of the generator's image along its latent w,
        y ~ N(0, I) / sqrt(pixels), a the running mean of |J' y|
                                                        (Karras et al. 2020, StyleGAN2)

The slope of (5) is over all layers that w enters: |J' y|^2 is the mean over layers.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gen_jax.losses.likelihood import sum_per_example
from gen_jax.types import Array, Key

Discriminator = Callable[[Array], Array]


def squared_slope(discriminator: Discriminator, x: Array) -> Array:
    """|grad D(x)|^2 of each example: `[B]`."""
    return sum_per_example(jax.grad(lambda x: jnp.sum(discriminator(x)))(x) ** 2)


def zero_centered(discriminator: Discriminator, x: Array) -> Array:
    """Equations (1) and (2), before the mean: `[B]`."""
    return squared_slope(discriminator, x) / 2


def gradient_penalty(discriminator: Discriminator, real: Array, made: Array, key: Key) -> Array:
    """Equation (3), before the mean: `[B]`."""
    share = jax.random.uniform(key, (len(real), *(1,) * (real.ndim - 1)))
    squares = squared_slope(discriminator, made + share * (real - made))
    # The root has no slope at zero, where a discriminator that says nothing begins.
    return (jnp.sqrt(jnp.maximum(squares, 1e-12)) - 1) ** 2


def consistency(discriminator: Discriminator, x: Array, changed: Array) -> Array:
    """Equation (4), before the mean: `[B]`."""
    return (discriminator(x) - discriminator(changed)) ** 2


def path_lengths(synthesize: Callable[[Array], Array], w: Array, key: Key) -> Array:
    """|J' y| of (5) for each example, `[B]`.

    `synthesize` makes images `[B, H, W, C]` of latents w `[B, layers, D]`.
    """
    shape = jax.eval_shape(synthesize, w).shape
    y = jax.random.normal(key, shape) / jnp.sqrt(shape[1] * shape[2])
    slope = jax.grad(lambda w: jnp.sum(synthesize(w) * y))(w)
    squares = jnp.mean(jnp.sum(slope**2, -1), -1)
    return jnp.sqrt(jnp.maximum(squares, 1e-12))  # the root has no slope at zero
