"""A discriminator of patches: for each place of an image, whether what is around it looks real.

'PatchGAN' (Isola et al. 2017): convolutions of 4 x 4 pixels, of which the first `num_levels` halve
the image, then one that does not, and one to a single channel, with leaky ReLUs between them.
Theirs has batch norm behind all but the first and the last; here it is group norm (Wu & He 2018),
which does not mix examples, or nothing. A logit sees 16 pixels with one level, 34 with two and the
70 of the paper with three.
"""

import flax.linen as nn

from gen_jax.errors import InputError
from gen_jax.networks.layers import Conv, GroupNorm
from gen_jax.types import Array

# Of the leaky ReLU, and the most that `channels` is multiplied by.
_SLOPE, _WIDEST = 0.2, 8


class PatchDiscriminator(nn.Module):
    """Level i has `channels * 2^i` channels, at most 8 times the first. `num_groups` None is no
    norm. `dtype` is what is computed in. `remat` computes a block anew in the backward pass instead
    of keeping what it computed: less memory, more time.

    Raises:
      InputError: fields that make no network.
    """

    channels: int = 64
    num_levels: int = 3
    num_groups: int | None = 8
    dtype: str = 'float32'
    remat: bool = False

    def __post_init__(self):
        if self.num_levels < 1:
            raise InputError(f'num_levels: {self.num_levels} must be at least 1')
        if self.channels < 1 or (self.num_groups and self.channels % self.num_groups):
            raise InputError(
                f'channels, num_groups: {self.channels} channels do not divide into '
                f'{self.num_groups} groups'
            )
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """x `[B, H, W, C]` to float32 logits, one for each patch: `[B, h, w]`."""
        block = nn.remat(Block) if self.remat else Block
        for level in range(self.num_levels + 1):
            x = block(
                self.channels * min(2**level, _WIDEST),
                stride=2 if level < self.num_levels else 1,
                num_groups=self.num_groups if level > 0 else None,
                dtype=self.dtype,
                name=f'block_{level}',
            )(x)
        return Conv(1, size=4, dtype=self.dtype, name='conv_out')(x)[..., 0].astype('float32')


class Block(nn.Module):
    """A convolution, a norm if there is one, and a leaky ReLU."""

    features: int
    stride: int
    num_groups: int | None
    dtype: str

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = Conv(self.features, size=4, stride=self.stride, dtype=self.dtype, name='conv')(x)
        if self.num_groups is not None:
            x = GroupNorm(self.num_groups, name='norm')(x)
        return nn.leaky_relu(x, _SLOPE)
