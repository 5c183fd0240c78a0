"""Adversarial losses: what a discriminator's logits say to it, and to what it is shown.

A discriminator answers with one logit for each example or for each patch of one; D below is high
for what it takes for real. Losses are means over an example's logits:

    (1) hinge            discriminator: max(0, 1 - D(x)) + max(0, 1 + D(G)),   generator: -D(G)
                                                        (Lim & Ye 2017; Miyato et al. 2018)
    (2) non-saturating   discriminator: softplus(-D(x)) + softplus(D(G)),
                         generator: softplus(-D(G))                   (Goodfellow et al. 2014)
"""

from collections.abc import Callable
from typing import NamedTuple

import jax

from gen_jax.losses.likelihood import mean_per_example
from gen_jax.types import Array


class Adversarial(NamedTuple):
    """A game of two players; logits are `[B, ...]`.

    discriminator: `(logits of real examples, logits of made ones) -> [B]`.
    generator: `(logits of made examples) -> [B]`.
    """

    discriminator: Callable[[Array, Array], Array]
    generator: Callable[[Array], Array]


def hinge() -> Adversarial:
    """Equation (1)."""
    return Adversarial(
        lambda real, made: mean_per_example(jax.nn.relu(1 - real) + jax.nn.relu(1 + made)),
        lambda made: -mean_per_example(made),
    )


def non_saturating() -> Adversarial:
    """Equation (2)."""
    return Adversarial(
        lambda real, made: mean_per_example(jax.nn.softplus(-real) + jax.nn.softplus(made)),
        lambda made: mean_per_example(jax.nn.softplus(-made)),
    )
