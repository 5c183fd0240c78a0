"""Adversarial losses: what a discriminator's logits say to it, and to what it is shown.

A discriminator answers with one logit for each example or for each patch of one; D below is high
for what it takes for real. Losses are means over an example's logits:

    (1) hinge            discriminator: max(0, 1 - D(x)) + max(0, 1 + D(G)),   generator: -D(G)
                                                        (Lim & Ye 2017; Miyato et al. 2018)
    (2) non-saturating   discriminator: softplus(-D(x)) + softplus(D(G)),
                         generator: softplus(-D(G))                   (Goodfellow et al. 2014)
    (3) Wasserstein      discriminator: D(G) - D(x),   generator: -D(G)
                                                                        (Arjovsky et al. 2017)
    (4) least squares    discriminator: ((D(x) - 1)^2 + D(G)^2) / 2,
                         generator: (D(G) - 1)^2 / 2                         (Mao et al. 2017)
    (5) relativistic     discriminator: softplus(D(G) - D(x)),
                         generator: softplus(D(x) - D(G))
                                     (Jolicoeur-Martineau 2019; Huang et al. 2024, R3GAN)

In (5) a made example is held against the real one that stands in its row, so that the generator's
loss looks at real examples too. (3) asks for a D whose slope is held to about 1, by a penalty or by
its layers; else it has no minimum.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax

from gen_jax.losses.likelihood import mean_per_example
from gen_jax.types import Array


class Adversarial(NamedTuple):
    """A game of two players; logits are `[B, ...]`.

    discriminator: `(logits of real examples, logits of made ones) -> [B]`.
    generator: `(logits of made examples, logits of real ones) -> [B]`.
    is_relativistic: whether the generator's loss looks at the latter; else they may be None.
    has_level: whether the sign of a logit means something; not so where both losses, and every
      penalty on slopes, stay as they are when a number is added to all logits.
    """

    discriminator: Callable[[Array, Array], Array]
    generator: Callable[[Array, Array | None], Array]
    is_relativistic: bool = False
    has_level: bool = True


def hinge() -> Adversarial:
    """Equation (1)."""
    return Adversarial(
        lambda real, made: mean_per_example(jax.nn.relu(1 - real) + jax.nn.relu(1 + made)),
        lambda made, real=None: -mean_per_example(made),
    )


def non_saturating() -> Adversarial:
    """Equation (2)."""
    return Adversarial(
        lambda real, made: mean_per_example(jax.nn.softplus(-real) + jax.nn.softplus(made)),
        lambda made, real=None: mean_per_example(jax.nn.softplus(-made)),
    )


def wasserstein() -> Adversarial:
    """Equation (3)."""
    return Adversarial(
        lambda real, made: mean_per_example(made - real),
        lambda made, real=None: -mean_per_example(made),
        has_level=False,
    )


def least_squares() -> Adversarial:
    """Equation (4)."""
    return Adversarial(
        lambda real, made: mean_per_example((real - 1) ** 2 + made**2) / 2,
        lambda made, real=None: mean_per_example((made - 1) ** 2) / 2,
    )


def relativistic() -> Adversarial:
    """Equation (5)."""
    return Adversarial(
        lambda real, made: mean_per_example(jax.nn.softplus(made - real)),
        lambda made, real: mean_per_example(jax.nn.softplus(real - made)),
        is_relativistic=True,
        has_level=False,
    )
