"""A residual network that names what is in an image (He et al. 2016, Identity Mappings).

    (1) block     y = shortcut(x) + conv(silu(norm(conv(silu(norm(x))))))
    (2) features  f = mean over space of silu(norm(y)) after the last block
    (3) logits    l = W f + b

Normalization is by groups (Wu & He 2018), so that an image's features depend on no other image.
"""

import functools
from collections.abc import Sequence

import flax.linen as nn

from gen_jax.errors import InputError
from gen_jax.networks.layers import Conv, Dropout, GroupNorm
from gen_jax.types import Array


class ResNet(nn.Module):
    """Level i has `num_blocks` blocks of `channels * channel_multipliers[i]` channels.

    Each level but the first halves the resolution. There are as many features as the last level
    has channels. `dtype` is what is computed in. `remat` computes a block anew in the backward pass
    instead of keeping what it computed: less memory, more time.

    Raises:
      InputError: fields that make no network.
    """

    num_classes: int
    channels: int = 64
    channel_multipliers: Sequence[int] = (1, 2, 4)
    num_blocks: int = 2
    num_groups: int = 8
    dropout: float = 0.0
    dtype: str = 'float32'
    remat: bool = False

    def __post_init__(self):
        if self.num_blocks < 1:
            raise InputError(f'num_blocks: {self.num_blocks} must be at least 1')
        if self.channels < 1 or self.num_groups < 1 or self.channels % self.num_groups:
            raise InputError(
                f'channels, num_groups: {self.channels} channels do not divide into '
                f'{self.num_groups} groups'
            )
        multipliers = self.channel_multipliers
        if not multipliers or any(not isinstance(m, int) or m < 1 for m in multipliers):
            raise InputError(f'channel_multipliers: {multipliers} must be whole numbers from 1 on')
        if not 0 <= self.dropout < 1:
            raise InputError(f'dropout: {self.dropout} must be from 0 to below 1')
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> tuple[Array, Array]:
        """Features `[B, D]` and logits `[B, num_classes]` of images x, float32 `[B, H, W, C]`.

        `train` says whether to drop features out; draws from the 'dropout' key.
        """

        # Not a module of its own, for the names of the parameters in files of weights.
        block = nn.remat(_block, static_argnums=(2, 3, 4)) if self.remat else _block
        h = Conv(self.channels, dtype=self.dtype, name='conv_in')(x)
        for level, multiplier in enumerate(self.channel_multipliers):
            for i in range(self.num_blocks):
                stride = 2 if level > 0 and i == 0 else 1
                h = block(self, h, f'level_{level}_block_{i}', self.channels * multiplier, stride)
        features = _normalized(self, h, 'norm_out').astype('float32').mean((1, 2))
        kept = Dropout(self.dropout)(features, train=train)
        logits = nn.Dense(self.num_classes, dtype=self.dtype, name='out')(kept)
        return features, logits.astype('float32')


def _block(network: ResNet, h: Array, name: str, width: int, stride: int) -> Array:
    """Equation (1), with layers of `network`: h `[B, H, W, C]` to `[B, H/s, W/s, width]`."""
    conv = functools.partial(Conv, width, dtype=network.dtype)
    branch = _normalized(network, h, f'{name}_norm_0')
    if stride > 1 or h.shape[-1] != width:
        h = conv(size=1, stride=stride, name=f'{name}_shortcut')(branch)
    branch = conv(stride=stride, name=f'{name}_conv_0')(branch)
    branch = _normalized(network, branch, f'{name}_norm_1')
    return h + conv(name=f'{name}_conv_1')(branch)


def _normalized(network: ResNet, h: Array, name: str) -> Array:
    return nn.silu(GroupNorm(network.num_groups, name=name)(h))
