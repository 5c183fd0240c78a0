"""What an augmentation is: what a discriminator is shown instead of images, real or made.

Both are augmented in the same way, with gradients through it, so that the generator learns the data
and not the augmented data, as long as the augmentation does not hide which images it was given
(Karras et al. 2020a; Zhao et al. 2020). An augmentation is a value, a function and its numbers in a
NamedTuple.

How strong it is may follow how far the discriminator knows its examples by heart, which r = E[sign
D(x)] over real x tells: 0 where it knows none, 1 where it knows all (Karras et al. 2020a, section
3.1).

    (1) p' = clip(p + sign(r - target) / steps, 0, p_max)

Where D's level says nothing, as in games of differences alone, p may go along a schedule instead
(Huang et al. 2024, R3GAN):

    (2) p = p_max (1 - cos(pi min(step / steps, 1))) / 2
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from gen_jax.errors import InputError
from gen_jax.types import Array, DataSpec, Key


class Rule(NamedTuple):
    """How the strength of an augmentation moves, from 0: by (1), or by (2) without a target."""

    target: float | None
    steps: int
    p_max: float = 1.0

    @property
    def adapts(self) -> bool:
        """Whether it is (1)."""
        return self.target is not None


class Augmentation(NamedTuple):
    """A way to augment images.

    apply: `(x [B, H, W, C] in about [-1, 1], key, strength) -> x`. `strength` is p, float32 `[]`
      from 0 to 1: the probability that a transform happens to a row; at 0 the result is x. What
      happens to a row follows from the key and B alone, and is affine in x.
    rule: how p moves; None where it is 1.
    """

    apply: Callable[[Array, Key, Array], Array]
    rule: Rule | None = None


def next_strength(strength: Array, sign: Array, rule: Rule) -> Array:
    """Equation (1): p after a training step in which the mean of sign D(x) was `sign`."""
    return jnp.clip(strength + jnp.sign(sign - rule.target) / rule.steps, 0, rule.p_max)


def scheduled_strength(step: Array, rule: Rule) -> Array:
    """Equation (2): p in a training step."""
    share = jnp.minimum(step / rule.steps, 1.0)
    return rule.p_max * (1 - jnp.cos(jnp.pi * share)) / 2


def check_images(name: str, spec: DataSpec) -> None:
    """Raises InputError, which names the section's field, for examples that are no images.

    Images are of 2 x 2 pixels or more, `[H, W, C]`, with values in [-1, 1].
    """
    if len(spec.shape) != 3 or min(spec.shape[:2]) < 2 or not spec.bounded:
        values = 'in [-1, 1]' if spec.bounded else 'without bounds'
        raise InputError(
            f'name: {name} is for images [H, W, C] in [-1, 1], and examples are of shape '
            f'{spec.shape}, {values}; remove the section'
        )
