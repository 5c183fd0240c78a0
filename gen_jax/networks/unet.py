"""The U-Net of denoising diffusion (Ho, Jain & Abbeel 2020, arXiv:2006.11239, appendix B).

Where the paper's words are short, its published code decides; the defaults are its CIFAR-10 setting
with 35.7 million parameters. An image walks down through levels of halving resolution and up again;
every level going down leaves its results on a stack that the same level going up concatenates.

    embedding   e = W2 silu(W1 sinusoids(1000 t)) [+ label table]                             (1)
    block       h = conv(silu(norm(x))) + W silu(e)                                           (2)
                y = shortcut(x) + conv0(dropout(silu(norm(h))))                               (3)
    attention   y = x + W0 softmax(q k^T / sqrt(C)) v,   q, k, v = W norm(x)                  (4)

with conv0 and W0 zero at the start, shortcut a 1x1 convolution where the number of channels changes
and the identity elsewhere, and attention of one head over all pixels.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from gen_jax.errors import InputError
from gen_jax.networks.layers import (
    INTO_BRANCH,
    OUT_OF_BRANCH,
    Conv,
    Dropout,
    GroupNorm,
    UpsampleConv,
    dense,
    timestep_embedding,
    zero_init,
)
from gen_jax.types import Array


class ResidualBlock(nn.Module):
    """Equations (2) and (3): x `[B, H, W, C]`, embedding `[B, E]` to `[B, H, W, features]`."""

    features: int
    num_groups: int
    dropout: float
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, x: Array, embedding: Array, train: bool) -> Array:
        h = nn.silu(GroupNorm(self.num_groups, name='norm_0')(x))
        h = Conv(self.features, axes=INTO_BRANCH, dtype=self.dtype, name='conv_0')(h)
        time = dense(self.features, INTO_BRANCH, dtype=self.dtype, name='embedding')
        h = h + time(nn.silu(embedding))[:, None, None]
        h = nn.silu(GroupNorm(self.num_groups, name='norm_1')(h))
        h = Dropout(self.dropout)(h, train=train)
        h = Conv(self.features, zero=True, axes=OUT_OF_BRANCH, dtype=self.dtype, name='conv_1')(h)
        if x.shape[-1] != self.features:
            x = Conv(self.features, size=1, dtype=self.dtype, name='shortcut')(x)
        return x + h


class AttentionBlock(nn.Module):
    """Equation (4): every pixel of x `[B, H, W, C]` attends to all; returns the same shape."""

    num_groups: int
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, x: Array) -> Array:
        batch, height, width, channels = x.shape
        layer = functools.partial(dense, channels, dtype=self.dtype)
        # Rows of all images under one axis: see `flat_matmul`.
        h = GroupNorm(self.num_groups, name='norm')(x).reshape(-1, channels)
        query, key, value = (
            layer(INTO_BRANCH, name=name)(h).reshape(batch, height * width, channels)
            for name in ('query', 'key', 'value')
        )
        scores = jnp.einsum('bqc,bkc->bqk', query * channels**-0.5, key)
        weights = jax.nn.softmax(scores.astype(jnp.float32)).astype(value.dtype)
        h = jnp.einsum('bqk,bkc->bqc', weights, value).reshape(-1, channels)
        h = layer(OUT_OF_BRANCH, zero_init, name='out')(h)
        return x + h.reshape(x.shape)


class UNet(nn.Module):
    """The U-Net: level i has `channels * channel_multipliers[i]` channels and `num_blocks` blocks.

    `attention_resolutions` names the heights that get attention; the bottleneck always does.
    `out_channels` None means as many as x has. With `num_classes` K the label table has K + 1 rows:
    row K stands for 'no label', the unconditional model of classifier-free guidance (Ho & Salimans
    2022). `dtype` is what is computed in. `remat` computes a block anew in the backward pass
    instead of keeping what it computed: less memory, more time.

    Raises:
      InputError: fields that make no network.
    """

    channels: int = 128
    channel_multipliers: tuple[int, ...] = (1, 2, 2, 2)
    num_blocks: int = 2
    attention_resolutions: tuple[int, ...] = (16,)
    dropout: float = 0.1
    num_groups: int = 32
    out_channels: int | None = None
    num_classes: int | None = None
    dtype: str = 'float32'
    remat: bool = False

    def __post_init__(self):
        self._check()
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Array, t: Array, label: Array | None = None, *, train: bool) -> Array:
        """Predicts from noisy x and its time.

        Args:
          x: float32 `[B, H, W, C]`, data in [-1, 1] with noise on it.
          t: float `[B]` in [0, 1]: 0 is data, 1 is noise.
          label: int32 `[B]` in [0, num_classes], or None for no label.
          train: whether to drop out; draws from the 'dropout' key.

        Returns:
          float32 `[B, H, W, out_channels]`.
        """
        embedding = self._embed(t, label)
        levels = [self.channels * multiplier for multiplier in self.channel_multipliers]

        residual, attending = ResidualBlock, AttentionBlock
        if self.remat:
            residual = nn.remat(residual, static_argnums=(3,))  # `train`
            attending = nn.remat(attending)

        def block(h: Array, features: int, name: str) -> Array:
            module = residual(features, self.num_groups, self.dropout, self.dtype, name=name)
            return module(h, embedding, train)

        def attention(h: Array, name: str) -> Array:
            return attending(self.num_groups, self.dtype, name=name)(h)

        h = Conv(self.channels, dtype=self.dtype, name='conv_in')(x)
        skips = [h]
        for level, features in enumerate(levels):
            for i in range(self.num_blocks):
                h = block(h, features, f'down_{level}_block_{i}')
                if h.shape[1] in self.attention_resolutions:
                    h = attention(h, f'down_{level}_attention_{i}')
                skips.append(h)
            if level < len(levels) - 1:
                h = Conv(features, stride=2, dtype=self.dtype, name=f'down_{level}_downsample')(h)
                skips.append(h)

        h = block(h, levels[-1], 'middle_block_0')
        h = attention(h, 'middle_attention')
        h = block(h, levels[-1], 'middle_block_1')

        for level, features in reversed(list(enumerate(levels))):
            for i in range(self.num_blocks + 1):
                h = block(jnp.concatenate([h, skips.pop()], -1), features, f'up_{level}_block_{i}')
                if h.shape[1] in self.attention_resolutions:
                    h = attention(h, f'up_{level}_attention_{i}')
            if level > 0:
                up = (features, *skips[-1].shape[1:3])
                h = UpsampleConv(*up, dtype=self.dtype, name=f'up_{level}_upsample')(h)

        h = nn.silu(GroupNorm(self.num_groups, name='norm_out')(h))
        out_channels = self.out_channels or x.shape[-1]
        return Conv(out_channels, zero=True, dtype=self.dtype, name='conv_out')(h).astype('float32')

    def _check(self) -> None:
        if self.channels < 4 or self.channels % 2:
            raise InputError(f'channels: {self.channels} must be even, and at least 4')
        if self.num_groups < 1:
            raise InputError(f'num_groups: {self.num_groups} must be at least 1')
        multipliers = tuple(self.channel_multipliers)
        if not multipliers or any(not isinstance(m, int) or m < 1 for m in multipliers):
            raise InputError(
                f'channel_multipliers: {multipliers} must be whole numbers from 1 on, one a level'
            )
        if self.num_blocks < 1:
            raise InputError(f'num_blocks: {self.num_blocks} must be at least 1')
        uneven = [self.channels * m for m in multipliers if self.channels * m % self.num_groups]
        if uneven:
            raise InputError(
                f'num_groups: the {uneven[0]} channels of a level do not divide into '
                f"{self.num_groups} groups; use a divisor of every level's channels"
            )
        if not 0 <= self.dropout < 1:
            raise InputError(f'dropout: {self.dropout} must be from 0 to below 1')

    def _embed(self, t: Array, label: Array | None) -> Array:
        """Equation (1): t `[B]` to `[B, 4 channels]`."""
        width = 4 * self.channels
        h = timestep_embedding(t, self.channels)
        h = dense(width, INTO_BRANCH, dtype=self.dtype, name='time_0')(h)
        h = dense(width, OUT_OF_BRANCH, dtype=self.dtype, name='time_1')(nn.silu(h))
        if self.num_classes is None:
            if label is not None:
                raise InputError('a label was given, but num_classes is None: set it to use labels')
            return h
        if label is None:
            label = jnp.full(t.shape, self.num_classes)
        table = nn.Embed(
            self.num_classes + 1,
            width,
            embedding_init=nn.initializers.normal(1.0),
            dtype=self.dtype,
            name='label',
        )
        return h + table(label)
