"""The networks of R3GAN (Huang et al. 2024, The GAN is dead; long live the GAN!).

Neither has normalization, styles or attention; they are residual networks with wide, grouped 3 x 3
convolutions, in stages of one size each:

    (1) block           y = x + W3 a(W2 * a(W1 x)),   a(u) = leaky ReLU of u + b, slope 0.2
    (2) generator       h_1 = basis ⊙ (M [z, label]),   h_(s+1) = up(W h_s),   x = W h
    (3) discriminator   h_1 = W x,   h_(s+1) = W down(h_s),   D(x) = w · sum over space basis ⊙ h

with blocks in each stage behind what is shown. W2 goes within groups of channels and the others
are 1 x 1; W between stages is left out where it would keep the width; up and down go through the
filter (1, 3, 3, 1). A basis holds one number for each place and channel of the smallest image. With
a label w becomes a matrix, and the logit its product with a vector for that label (Miyato & Koyama
2018).

At the start W3 is 0. The other two are the smaller the more blocks there are, N in all, so that
the network's answer does not change faster with N (Zhang et al. 2019, Fixup):

    (4) W1, W2 ~ N(0, gain^2 / fan in),   gain = sqrt(2 / (1 + 0.2^2)) N^(-1/4)

Other kernels have a variance of 1 / fan in.
"""

import functools
import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from gen_jax.errors import InputError
from gen_jax.networks.convolution import conv
from gen_jax.networks.layers import lowest_size, zero_init
from gen_jax.networks.resampling import filtered_downsample, filtered_upsample
from gen_jax.types import Array

_SLOPE = 0.2


def plain_grouped_conv(x: Array, kernel: Array) -> Array:
    """A convolution within groups of channels as XLA has it, 'SAME' padding: x `[B, H, W, G I]`,
    kernel `[rows, columns, I, G O]`, to `[B, H, W, G O]`."""
    groups = x.shape[-1] // kernel.shape[2]
    return lax.conv_general_dilated(
        x,
        kernel,
        (1, 1),
        'SAME',
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
        feature_group_count=groups,
    )


def grouped_conv(x: Array, kernel: Array) -> Array:
    """`plain_grouped_conv`, in the form that suits the backend.

    XLA's CPU backend runs the gradients of a grouped convolution in naive loops, and is quick with
    one convolution after the other.
    """
    groups = x.shape[-1] // kernel.shape[2]
    if groups == 1:
        return conv(x, kernel)
    if jax.default_backend() != 'cpu':
        return plain_grouped_conv(x, kernel)
    parts = zip(jnp.split(x, groups, -1), jnp.split(kernel, groups, -1), strict=True)
    return jnp.concatenate([conv(part, own) for part, own in parts], -1)


class Convolution(nn.Module):
    """A size x size convolution within groups of `group_width` channels, or of all; no bias."""

    features: int
    size: int = 1
    group_width: int | None = None
    gain: float = 1.0
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, x: Array) -> Array:
        init = nn.initializers.variance_scaling(self.gain**2, 'fan_in', 'normal')
        shape = (self.size, self.size, self.group_width or x.shape[-1], self.features)
        kernel = self.param('kernel', init if self.gain else zero_init, shape)
        return grouped_conv(x.astype(self.dtype), kernel.astype(self.dtype))


class Block(nn.Module):
    """Equation (1) of `expansion` times as many channels inside, of `num_blocks` in all."""

    expansion: int
    group_width: int
    num_blocks: int
    dtype: str

    @nn.compact
    def __call__(self, x: Array) -> Array:
        gain = math.sqrt(2 / (1 + _SLOPE**2)) * self.num_blocks**-0.25
        inside = functools.partial(
            Convolution, self.expansion * x.shape[-1], gain=gain, dtype=self.dtype
        )

        def activated(h: Array, name: str) -> Array:
            bias = self.param(name, nn.initializers.zeros_init(), (h.shape[-1],))
            return nn.leaky_relu(h + bias.astype(self.dtype), _SLOPE)

        h = activated(inside(name='conv_0')(x), 'bias_0')
        h = activated(inside(3, self.group_width, name='conv_1')(h), 'bias_1')
        return x + Convolution(x.shape[-1], gain=0.0, dtype=self.dtype, name='conv_2')(h)


class Basis(nn.Module):
    """One number for each place and channel of the smallest image, `size` high and wide."""

    size: tuple[int, int]
    channels: int
    deviation: float  # of what the numbers are at first

    @nn.compact
    def __call__(self) -> Array:
        shape = (*self.size, self.channels)
        return self.param('embedding', nn.initializers.normal(self.deviation), shape)


class Generator(nn.Module):
    """Equation (2): stage s has `widths[s]` channels, `num_blocks[s]` blocks, and twice the height
    and width of the one before it. The first is as high and wide as `shape` `[H, W, C]` says,
    4 x 4 of 32 x 32 with four stages, 7 x 7 of 28 x 28 with three.

    Inside a block are `expansion` times as many channels, in groups of `group_width`. With
    `num_classes` K labels are in [0, K). `dtype` is what is computed in. `remat` computes a block
    anew in the backward pass instead of keeping what it computed: less memory, more time.

    The defaults are the paper's for CIFAR-10, where z has 64 numbers.

    Raises:
      InputError: fields that make no network.
    """

    shape: tuple[int, ...]
    latent_channels: int
    num_classes: int | None = None
    widths: Sequence[int] = (768, 768, 768, 768)
    num_blocks: Sequence[int] = (2, 2, 2, 2)
    expansion: int = 2
    group_width: int = 16
    dtype: str = 'float32'
    remat: bool = False

    def __post_init__(self):
        _check_fields(self)
        lowest_size(self.shape, len(self.widths) - 1, 'widths')
        super().__post_init__()

    @nn.compact
    def __call__(self, z: Array, label: Array | None = None, *, train: bool) -> Array:
        """z float32 `[B, latent_channels]` and labels int32 `[B]` to float32 `[B, *shape]`."""
        size = lowest_size(self.shape, len(self.widths) - 1, 'widths')
        if self.num_classes is not None:
            init = nn.initializers.normal(1 / math.sqrt(self.num_classes))
            table = nn.Embed(
                self.num_classes, self.latent_channels, embedding_init=init, name='label'
            )
            z = jnp.concatenate([z, table(label)], -1)
        modulation = _linear(self.widths[0], self.dtype, 'modulation')(z)
        basis = Basis(size, self.widths[0], 1.0, name='basis')().astype(self.dtype)
        h = basis * modulation[:, None, None]
        for stage, width in enumerate(self.widths):
            if h.shape[-1] != width:
                h = Convolution(width, dtype=self.dtype, name=f'match_{stage}')(h)
            if stage > 0:
                h = filtered_upsample(h)
            h = _blocks(self, h, stage)
        return Convolution(self.shape[-1], dtype=self.dtype, name='out')(h).astype('float32')


class Discriminator(nn.Module):
    """Equation (3), with the generator's fields: the last of `widths` belongs to the largest image,
    where this network begins, and the first to the smallest, where it ends.

    The defaults are the paper's for CIFAR-10.

    Raises:
      InputError: fields that make no network, and an image that it cannot halve that often.
    """

    num_classes: int | None = None
    widths: Sequence[int] = (768, 768, 768, 768)
    num_blocks: Sequence[int] = (2, 2, 2, 2)
    expansion: int = 2
    group_width: int = 16
    dtype: str = 'float32'
    remat: bool = False

    def __post_init__(self):
        _check_fields(self)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Array, label: Array | None = None, *, train: bool) -> Array:
        """x `[B, H, W, C]` and labels int32 `[B]` to logits, float32 `[B]`."""
        size = lowest_size(x.shape[1:], len(self.widths) - 1, 'widths')
        h = Convolution(self.widths[-1], dtype=self.dtype, name='in')(x)
        for stage in reversed(range(len(self.widths))):
            if h.shape[-1] != self.widths[stage]:
                h = Convolution(self.widths[stage], dtype=self.dtype, name=f'match_{stage}')(h)
            h = _blocks(self, h, stage)
            if stage > 0:
                h = filtered_downsample(h)
        basis = Basis(size, self.widths[0], 1 / math.sqrt(math.prod(size)), name='basis')()
        features = (h.astype('float32') * basis).sum((1, 2))
        # A game lives on differences of logits, which half precision would round away.
        if self.num_classes is None:
            return _linear(1, 'float32', 'out')(features)[:, 0]
        channels = self.widths[0]
        init = nn.initializers.normal(1 / math.sqrt(self.num_classes * channels))
        table = nn.Embed(self.num_classes, channels, embedding_init=init, name='label')
        projected = _linear(channels, 'float32', 'out')(features)
        return (projected * table(label)).sum(-1)


def _blocks(network: Generator | Discriminator, h: Array, stage: int) -> Array:
    """h through the blocks of a stage."""
    block = nn.remat(Block) if network.remat else Block
    first = sum(network.num_blocks[:stage])
    for i in range(first, first + network.num_blocks[stage]):
        h = block(
            expansion=network.expansion,
            group_width=network.group_width,
            num_blocks=sum(network.num_blocks),
            dtype=network.dtype,
            name=f'block_{i}',
        )(h)
    return h


def _linear(features: int, dtype: str, name: str) -> nn.Dense:
    init = nn.initializers.variance_scaling(1.0, 'fan_in', 'normal')
    return nn.Dense(features, use_bias=False, kernel_init=init, dtype=dtype, name=name)


def _check_fields(network: Generator | Discriminator) -> None:
    for name in ('expansion', 'group_width'):
        if getattr(network, name) < 1:
            raise InputError(f'{name}: {getattr(network, name)} must be at least 1')
    if not network.widths or min(network.widths) < 1:
        raise InputError(f'widths: {network.widths} must be one number above 0 for each stage')
    if len(network.num_blocks) != len(network.widths) or min(network.num_blocks) < 1:
        raise InputError(
            f'num_blocks: {network.num_blocks} must be one number of at least 1 for each of '
            f'{len(network.widths)} widths'
        )
    for width in network.widths:
        if width * network.expansion % network.group_width:
            raise InputError(
                f'group_width: {network.expansion} * {width} channels do not divide into groups '
                f'of {network.group_width}'
            )
