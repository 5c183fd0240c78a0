"""Convolutional networks for a game of two players (DCGAN; Radford et al. 2016).

    (1) generator      h = relu(norm(W z)), a small map;   then h <- relu(norm(convT(h))), which
                       doubles it, until x = tanh(convT(h))
    (2) discriminator  h = lrelu(conv(x));   then h <- lrelu(norm(conv(h))), which halves it;
                       logit = <v, h>

Kernels are 4 x 4, their strides 2, the slope of the leaky ReLU is 0.2 and the norm that of a batch
(Ioffe & Szegedy 2015). Kernels are drawn from N(0, 0.02^2), scales of the norm from N(1, 0.02^2).

With labels the scales and shifts of the norms of (1) are those of a class (Dumoulin et al. 2017),
and the logit of class k is <v + e_k, h>, a projection (Miyato & Koyama 2018), not of sums over
space, which do not say where a stroke is. With an embedding beside z instead the generator forgot z
and made one image of each class: norms make a batch vary, and labels alone can see to that.
"""

import flax.linen as nn
import jax.numpy as jnp

from gen_jax.errors import InputError
from gen_jax.networks.batch_norm import BatchNorm
from gen_jax.networks.layers import Conv, lowest_size
from gen_jax.networks.transposed import ConvTranspose
from gen_jax.types import Array

_SIZE, _SLOPE = 4, 0.2
_kernel_init = nn.initializers.normal(0.02)


def _scale_init(key, shape, dtype=jnp.float32) -> Array:
    return 1 + _kernel_init(key, shape, dtype)


class Generator(nn.Module):
    """Equation (1): `num_levels` doublings to images of this `shape`. The map before the last one
    has `channels` channels, each before it twice as many.

    With `num_classes` K labels are in [0, K). `dtype` is what is computed in. `remat` computes a
    block anew in the backward pass instead of keeping what it computed: less memory, more time.

    Raises:
      InputError: fields that make no network, or a shape that it cannot make.
    """

    shape: tuple[int, ...]
    latent_channels: int
    num_classes: int | None = None
    channels: int = 64
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
        widest = self.channels * 2 ** (self.num_levels - 1)
        h = nn.Dense(
            height * width * widest,
            use_bias=False,
            kernel_init=_kernel_init,
            dtype=self.dtype,
            name='in',
        )(z)
        h = h.reshape(len(z), height, width, widest)
        h = nn.relu(BatchNorm(self.num_classes, _scale_init, name='norm_in')(h, label, train=train))
        block = nn.remat(UpBlock, static_argnums=(3,)) if self.remat else UpBlock
        for level in range(self.num_levels - 1):
            features = widest // 2 ** (level + 1)
            h = block(features, self.num_classes, self.dtype, name=f'block_{level}')(
                h, label, train
            )
        out = ConvTranspose(
            self.shape[-1], _SIZE, kernel_init=_kernel_init, dtype=self.dtype, name='out'
        )(h)
        return jnp.tanh(out.astype('float32'))


class Discriminator(nn.Module):
    """Equation (2): `num_levels` halvings. The map after the first one has `channels` channels,
    each after it twice as many.

    With `num_classes` K labels are in [0, K). `dtype` is what is computed in. `remat` computes a
    block anew in the backward pass instead of keeping what it computed: less memory, more time.

    Raises:
      InputError: fields that make no network; when called, images that do not halve so often.
    """

    num_classes: int | None = None
    channels: int = 64
    num_levels: int = 3
    dtype: str = 'float32'
    remat: bool = False

    def __post_init__(self):
        check_fields(self.channels, self.num_levels)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Array, label: Array | None = None, *, train: bool) -> Array:
        """Logits float32 `[B]` of images x, float32 `[B, H, W, C]`, and label int32 `[B]` or
        None."""
        lowest_size(x.shape[1:], self.num_levels, 'num_levels')
        block = nn.remat(DownBlock, static_argnums=(2,)) if self.remat else DownBlock
        h = x
        for level in range(self.num_levels):
            h = block(self.channels * 2**level, level > 0, self.dtype, name=f'block_{level}')(
                h, train
            )
        # A game lives on differences of logits, which half precision would round away.
        h = h.reshape(len(h), -1).astype('float32')
        logits = nn.Dense(1, kernel_init=_kernel_init, name='out')(h)[:, 0]
        if self.num_classes is None:
            return logits
        table = nn.Embed(self.num_classes, h.shape[-1], embedding_init=_kernel_init, name='label')
        return logits + jnp.sum(table(label) * h, -1)


class UpBlock(nn.Module):
    """relu(norm(convT(h))): `[B, H, W, C]` to `[B, 2 H, 2 W, features]`."""

    features: int
    num_classes: int | None
    dtype: str

    @nn.compact
    def __call__(self, h: Array, label: Array | None, train: bool) -> Array:
        # The norm's shift takes the place of a bias.
        h = ConvTranspose(
            self.features,
            _SIZE,
            kernel_init=_kernel_init,
            bias=False,
            dtype=self.dtype,
            name='conv',
        )(h)
        norm = BatchNorm(self.num_classes, _scale_init, name='norm')
        return nn.relu(norm(h, label, train=train))


class DownBlock(nn.Module):
    """lrelu(norm(conv(h))), or without norm: `[B, H, W, C]` to `[B, H / 2, W / 2, features]`."""

    features: int
    has_norm: bool
    dtype: str

    @nn.compact
    def __call__(self, h: Array, train: bool) -> Array:
        h = Conv(
            self.features,
            _SIZE,
            stride=2,
            kernel_init=_kernel_init,
            bias=not self.has_norm,
            dtype=self.dtype,
            name='conv',
        )(h)
        if self.has_norm:
            h = BatchNorm(scale_init=_scale_init, name='norm')(h, train=train)
        return nn.leaky_relu(h, _SLOPE)


def check_fields(channels: int, num_levels: int) -> None:
    """Raises InputError for a number of channels or levels that makes no network."""
    if channels < 1:
        raise InputError(f'channels: {channels} must be at least 1')
    if num_levels < 1:
        raise InputError(f'num_levels: {num_levels} must be at least 1')
