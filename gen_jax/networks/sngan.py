"""Residual networks for a game of two players (SNGAN; Miyato et al. 2018, as for CIFAR-10).

    (1) generator      h = W z, a small map;   then h <- up(h) + branch(h), which doubles it, with
                       branch = conv(relu(norm(up(conv(relu(norm(h)))))));   x = tanh(conv(h))
    (2) discriminator  h <- down(h) + down(conv(relu(conv(relu(h))))), which halves it, or without
                       down; the first block without the first relu;
                       f = sum over space of relu(h),   logit = <v, f> + b
    (3) normalization  W <- W / sigma(W) in every layer of (2), sigma the largest singular value,
                       of kernels as matrices of outputs by all else

`up` repeats pixels, `down` takes means of 2 x 2; a shortcut has a 1 x 1 convolution where the size
or the channels change, which stands before `up` and behind `down`, where it is cheaper and the
same. The norm of (1) is that of a batch (Ioffe & Szegedy 2015). With labels its scales and shifts
are those of a class, but for the last, and the logit of class k is <v + e_k, f> + b, a projection
(Miyato & Koyama 2018).

In (3) sigma = u^T W v with u and v of one power iteration a time, which is kept in `batch_stats`.
Without (3) the discriminator is that of WGAN-GP with this architecture.
"""

import functools
import math

import flax.linen as nn
import jax.numpy as jnp

from gen_jax.errors import InputError
from gen_jax.networks.batch_norm import BatchNorm
from gen_jax.networks.dcgan import check_fields
from gen_jax.networks.layers import Conv, UpsampleConv, kernel_init, lowest_size
from gen_jax.networks.rearrange import upsample
from gen_jax.types import Array

# Of the first kernels of branches, as in the authors' code.
_GAIN = math.sqrt(2)


class Generator(nn.Module):
    """Equation (1): `num_levels` doublings to images of this `shape`, with `channels` channels.

    With `num_classes` K labels are in [0, K). `dtype` is what is computed in. `remat` computes a
    block anew in the backward pass instead of keeping what it computed: less memory, more time.

    Raises:
      InputError: fields that make no network, or a shape that it cannot make.
    """

    shape: tuple[int, ...]
    latent_channels: int
    num_classes: int | None = None
    channels: int = 256
    num_levels: int = 3
    dtype: str = 'float32'
    remat: bool = False

    def __post_init__(self):
        check_fields(self.channels, self.num_levels)
        lowest_size(self.shape, self.num_levels, 'num_levels')
        super().__post_init__()

    @nn.compact
    def __call__(self, z: Array, label: Array | None = None, *, train: bool) -> Array:
        """Images float32 `[B, *shape]` in [-1, 1] of z float32 `[B, latent_channels]` and label
        int32 `[B]` or None."""
        height, width = lowest_size(self.shape, self.num_levels, 'num_levels')
        size = height * width * self.channels
        h = nn.Dense(size, kernel_init=kernel_init, dtype=self.dtype, name='in')(z)
        h = h.reshape(len(z), height, width, self.channels)
        block = nn.remat(UpBlock, static_argnums=(3,)) if self.remat else UpBlock
        for level in range(self.num_levels):
            h = block(self.channels, self.num_classes, self.dtype, name=f'block_{level}')(
                h, label, train
            )
        h = nn.relu(BatchNorm(name='norm_out')(h, train=train))
        h = Conv(self.shape[-1], dtype=self.dtype, name='out')(h)
        return jnp.tanh(h.astype('float32'))


class UpBlock(nn.Module):
    """A step of (1): `[B, H, W, C]` to `[B, 2 H, 2 W, features]`."""

    features: int
    num_classes: int | None
    dtype: str

    @nn.compact
    def __call__(self, h: Array, label: Array | None, train: bool) -> Array:
        norm = functools.partial(BatchNorm, self.num_classes)
        size = 2 * h.shape[1], 2 * h.shape[2]
        branch = nn.relu(norm(name='norm_0')(h, label, train=train))
        branch = UpsampleConv(self.features, *size, _GAIN, self.dtype, name='conv_0')(branch)
        branch = nn.relu(norm(name='norm_1')(branch, label, train=train))
        branch = Conv(self.features, gain=_GAIN, dtype=self.dtype, name='conv_1')(branch)
        shortcut = Conv(self.features, size=1, dtype=self.dtype, name='shortcut')(h)
        return upsample(shortcut, *size) + branch


class Discriminator(nn.Module):
    """Equation (2): `num_levels` blocks that halve, then `num_blocks` that do not, of `channels`
    channels; with (3) where `spectral`.

    With `num_classes` K labels are in [0, K). `dtype` is what is computed in. `remat` computes a
    block anew in the backward pass instead of keeping what it computed: less memory, more time.

    Raises:
      InputError: fields that make no network; when called, images that do not halve so often.
    """

    num_classes: int | None = None
    channels: int = 128
    num_levels: int = 2
    num_blocks: int = 2
    spectral: bool = True
    dtype: str = 'float32'
    remat: bool = False

    def __post_init__(self):
        check_fields(self.channels, self.num_levels)
        if self.num_blocks < 0:
            raise InputError(f'num_blocks: {self.num_blocks} must be at least 0')
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Array, label: Array | None = None, *, train: bool) -> Array:
        """Logits float32 `[B]` of images x, float32 `[B, H, W, C]`, and label int32 `[B]` or
        None. In training, each call goes on with (3) where `batch_stats` is mutable."""
        lowest_size(x.shape[1:], self.num_levels, 'num_levels')
        update = train and self.is_mutable_collection('batch_stats')
        normalized = functools.partial(_normalized, spectral=self.spectral, update=update)
        block = nn.remat(DownBlock, static_argnums=(2,)) if self.remat else DownBlock
        h = x
        for i in range(self.num_levels + self.num_blocks):
            h = block(
                self.channels,
                is_first=i == 0,
                halves=i < self.num_levels,
                spectral=self.spectral,
                dtype=self.dtype,
                name=f'block_{i}',
            )(h, update)
        # A game lives on differences of logits, which half precision would round away.
        features = nn.relu(h).sum((1, 2), dtype='float32')
        logits = normalized(nn.Dense(1, kernel_init=kernel_init, name='out'))(features)[:, 0]
        if self.num_classes is None:
            return logits
        table = nn.Embed(self.num_classes, self.channels, embedding_init=kernel_init, name='label')
        return logits + jnp.sum(normalized(table)(label) * features, -1)


class DownBlock(nn.Module):
    """A step of (2): `[B, H, W, C]` to `[B, H, W, features]`, or half as high and wide."""

    features: int
    is_first: bool
    halves: bool
    spectral: bool
    dtype: str

    @nn.compact
    def __call__(self, h: Array, update: bool) -> Array:
        def conv(h: Array, name: str, features: int, size: int = 3, gain: float = _GAIN) -> Array:
            layer = Conv(features, size, gain=gain, dtype=self.dtype, name=name)
            return _normalized(layer, spectral=self.spectral, update=update)(h)

        branch = h if self.is_first else nn.relu(h)
        branch = nn.relu(conv(branch, 'conv_0', self.features))
        branch = conv(branch, 'conv_1', self.features)
        if self.halves:
            h, branch = halve(h), halve(branch)
        if self.halves or h.shape[-1] != self.features:
            h = conv(h, 'shortcut', self.features, size=1, gain=1.0)
        return h + branch


def _normalized(layer: nn.Module, *, spectral: bool, update: bool):
    """`layer` with the weights of (3), or as it is; `update` says to keep the vectors of (3)."""
    if not spectral:
        return layer
    norm = nn.SpectralNorm(layer, name=f'{layer.name}_norm')
    return functools.partial(norm, update_stats=update)


def halve(x: Array) -> Array:
    """The mean of each 2 x 2 square: `[B, H, W, C]` to `[B, H / 2, W / 2, C]`."""
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).mean((2, 4))
