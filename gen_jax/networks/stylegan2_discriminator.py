"""The discriminator of StyleGAN2 (Karras et al. 2020), as ADA has it (Karras et al. 2020).

    (1) stage      h <- a(down(W1 * a(W0 * h))),  with a + W h through the same filter, all by
                   sqrt(1/2), in a residual one
    (2) deviation  each example is told how much those of its group differ, as one more channel:
                   mean over places and channels of the standard deviation over the group
    (3) logit      D(x) = w · a(W a(W * h)),  or its product with what is mapped from a label

a is the leaky ReLU of `equalized`. Each stage halves the image, and (2) and (3) follow when it is
smallest.
"""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from gen_jax.errors import InputError
from gen_jax.networks.equalized import EqualizedConv, EqualizedDense, Mapping, leaky
from gen_jax.networks.layers import lowest_size
from gen_jax.types import Array

ARCHITECTURES = ('plain', 'residual')


def group_deviation(x: Array, group: int) -> Array:
    """Equation (2) for x `[B, H, W, C]`: float32 `[B]`.

    Groups are of the largest size up to `group` that divides B; of n groups example i belongs to
    the one numbered i modulo n.
    """
    batch = len(x)
    size = max(size for size in range(1, min(group, batch) + 1) if batch % size == 0)
    grouped = x.astype('float32').reshape(size, batch // size, -1)
    centered = grouped - grouped.mean(0)
    deviation = jnp.sqrt((centered * centered).mean(0) + 1e-8).mean(-1)
    return jnp.tile(deviation, size)


class Stage(nn.Module):
    """Equation (1): h `[B, H, W, C]` to `[B, H/2, W/2, width]`."""

    width: int
    architecture: str
    dtype: str

    @nn.compact
    def __call__(self, h: Array) -> Array:
        branch = leaky(EqualizedConv(h.shape[-1], dtype=self.dtype, name='conv_0')(h))
        branch = EqualizedConv(self.width, down=True, dtype=self.dtype, name='conv_1')(branch)
        branch = leaky(branch)
        if self.architecture == 'plain':
            return branch
        skip = EqualizedConv(
            self.width, size=1, down=True, use_bias=False, dtype=self.dtype, name='skip'
        )(h)
        return math.sqrt(0.5) * (skip + branch)


class Discriminator(nn.Module):
    """Equations (1) to (3), with the generator's `widths`: the last one belongs to the largest
    image, where this network begins, and the first to the smallest, where it ends.

    `architecture` is 'plain' or 'residual'. `mbstd_group` is the size of a group of (2), so a batch
    is best all real or all made; 1 leaves (2) without a meaning. `num_mapping_layers` are those
    between a label and its part in (3). `dtype` is what is computed in. `remat` computes a stage
    anew in the backward pass instead of keeping what it computed: less memory, more time.

    The defaults are those of ADA for CIFAR-10; it has 'residual' and groups of 4 to 8 for large
    images.

    Raises:
      InputError: fields that make no network, and an image that it cannot halve that often.
    """

    num_classes: int | None = None
    widths: Sequence[int] = (512, 512, 512, 512)
    architecture: str = 'plain'
    mbstd_group: int = 32
    num_mapping_layers: int = 8
    dtype: str = 'float32'
    remat: bool = False

    def __post_init__(self):
        for name in ('mbstd_group', 'num_mapping_layers'):
            if getattr(self, name) < 1:
                raise InputError(f'{name}: {getattr(self, name)} must be at least 1')
        if not self.widths or min(self.widths) < 1:
            raise InputError(f'widths: {self.widths} must be one number above 0 for each stage')
        if self.architecture not in ARCHITECTURES:
            raise InputError(
                f'architecture: {self.architecture!r} must be one of {", ".join(ARCHITECTURES)}'
            )
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Array, label: Array | None = None, *, train: bool) -> Array:
        """x `[B, H, W, C]` and labels int32 `[B]` to logits, float32 `[B]`."""
        lowest_size(x.shape[1:], len(self.widths) - 1, 'widths')
        stage = nn.remat(Stage) if self.remat else Stage
        h = leaky(EqualizedConv(self.widths[-1], size=1, dtype=self.dtype, name='in')(x))
        for i, width in enumerate(reversed(self.widths[:-1])):
            h = stage(width, self.architecture, self.dtype, name=f'block_{i}')(h)
        deviation = group_deviation(h, self.mbstd_group).astype(h.dtype)
        channel = jnp.broadcast_to(deviation[:, None, None, None], (*h.shape[:-1], 1))
        width = self.widths[0]
        h = jnp.concatenate([h, channel], -1)
        h = leaky(EqualizedConv(width, dtype=self.dtype, name='conv_out')(h))
        h = leaky(EqualizedDense(width, dtype=self.dtype, name='dense')(h.reshape(len(h), -1)))
        features = 1 if self.num_classes is None else width
        # A game lives on differences of logits, which half precision would round away.
        out = EqualizedDense(features, name='out')(h.astype('float32'))
        if self.num_classes is None:
            return out[:, 0]
        mapping = Mapping(
            width, self.num_mapping_layers, self.num_classes, self.dtype, name='mapping'
        )
        return (out * mapping(None, label)).sum(-1) / math.sqrt(width)
