"""Encoders and decoders: an example to a code of few numbers, and back.

    (1) code        c = encode(x)     [B, code_channels], or a map [B, h, w, code_channels]
    (2) parameters  p = decode(z)     [B, ..., out_channels] of the law of x given z

What the numbers of (1) and (2) mean, and how c becomes z, of `latent_channels` where c has
`code_channels`, the method says. Both halves are one module, since they are trained, averaged and
restored together.

`ConvAutoencoder` has residual blocks (He et al. 2016, with the norm of groups of Wu & He 2018),
halves the image from level to level, and doubles it again by repeating pixels; nothing in it is a
transposed convolution. `MLPAutoencoder` is for vectors and small images (Kingma & Welling 2014).
Labels, where a network is told them, are added to what enters the first block of either half.
"""

import math

import flax.linen as nn

from gen_jax.errors import InputError
from gen_jax.networks.layers import Conv, Dropout, GroupNorm, UpsampleConv
from gen_jax.types import Array

ACTIVATIONS = {'silu': nn.silu, 'gelu': nn.gelu, 'tanh': nn.tanh, 'relu': nn.relu}


class MLPAutoencoder(nn.Module):
    """Layers of `widths` numbers from x to the code, and the same in reverse order back.

    `shape` is that of an example. With `num_classes` K labels are in [0, K). `dtype` is what is
    computed in.

    Raises:
      InputError: fields that make no network.
    """

    shape: tuple[int, ...]
    code_channels: int
    latent_channels: int
    out_channels: int
    widths: tuple[int, ...] = (200, 200)
    activation: str = 'silu'
    dropout: float = 0.0
    num_classes: int | None = None
    dtype: str = 'float32'

    last_layer = 'to_parameters'  # of the decoder

    def __post_init__(self):
        if not self.widths or any(not isinstance(w, int) or w < 1 for w in self.widths):
            raise InputError(f'widths: {self.widths} must be whole numbers from 1 on')
        _check(self.activation, self.dropout)
        super().__post_init__()

    def setup(self):
        first, last = self.widths[0], self.widths[-1]
        self.encoder = [nn.Dense(width, dtype=self.dtype) for width in self.widths]
        self.to_code = nn.Dense(self.code_channels, dtype=self.dtype)
        self.decoder = [nn.Dense(width, dtype=self.dtype) for width in reversed(self.widths)]
        size = math.prod(self.shape[:-1]) * self.out_channels
        self.to_parameters = nn.Dense(size, dtype=self.dtype)
        self.drop = Dropout(self.dropout)
        if self.num_classes is not None:
            self.label_in = nn.Embed(self.num_classes, first, dtype=self.dtype)
            self.label_out = nn.Embed(self.num_classes, last, dtype=self.dtype)

    def __call__(self, x: Array, label: Array | None = None, *, train: bool) -> Array:
        """What the decoder says of the first numbers of a code; for making parameters."""
        return _through(self, x, label, train)

    def encode(self, x: Array, label: Array | None = None, *, train: bool) -> Array:
        """Equation (1): x float32 `[B, *shape]`, label int32 `[B]`, to float32."""
        told = None if self.num_classes is None else self.label_in(label)
        h = self._layers(self.encoder, x.reshape(len(x), -1), told, train)
        return self.to_code(h).astype('float32')

    def decode(self, z: Array, label: Array | None = None, *, train: bool) -> Array:
        """Equation (2): z float32 `[B, D]`, label int32 `[B]`, to float32."""
        told = None if self.num_classes is None else self.label_out(label)
        h = self.to_parameters(self._layers(self.decoder, z, told, train))
        return h.reshape(len(z), *self.shape[:-1], self.out_channels).astype('float32')

    def _layers(self, layers: list, h: Array, told: Array | None, train: bool) -> Array:
        for number, layer in enumerate(layers):
            h = layer(h)
            h = h + told if number == 0 and told is not None else h
            h = self.drop(ACTIVATIONS[self.activation](h), train=train)
        return h


class ConvAutoencoder(nn.Module):
    """Level i has `num_blocks` blocks of `channels * channel_multipliers[i]` channels.

    Each level but the first halves the resolution. The code is a map at the last one, or, with
    `vector`, so many numbers in all. `shape` is that of an example. With `num_classes` K labels are
    in [0, K). `dtype` is what is computed in. `remat` computes a block anew in the backward pass
    instead of keeping what it computed: less memory, more time.

    Raises:
      InputError: fields that make no network, or an example that is no image.
    """

    shape: tuple[int, ...]
    code_channels: int
    latent_channels: int
    out_channels: int
    channels: int = 64
    channel_multipliers: tuple[int, ...] = (1, 2)
    num_blocks: int = 1
    num_groups: int = 8
    vector: bool = True
    dropout: float = 0.0
    num_classes: int | None = None
    dtype: str = 'float32'
    remat: bool = False

    last_layer = 'conv_out'  # of the decoder

    def __post_init__(self):
        if len(self.shape) != 3:
            raise InputError(
                f'name: ConvAutoencoder is for images, and examples are of shape {self.shape}; use '
                "'autoencoder.MLPAutoencoder'"
            )
        if self.num_blocks < 1:
            raise InputError(f'num_blocks: {self.num_blocks} must be at least 1')
        multipliers = self.channel_multipliers
        if not multipliers or any(not isinstance(m, int) or m < 1 for m in multipliers):
            raise InputError(f'channel_multipliers: {multipliers} must be whole numbers from 1 on')
        if self.channels < 1 or self.num_groups < 1 or self.channels % self.num_groups:
            raise InputError(
                f'channels, num_groups: {self.channels} channels do not divide into '
                f'{self.num_groups} groups'
            )
        _check('silu', self.dropout)
        super().__post_init__()

    def setup(self):
        sizes, widths = self._levels()
        block = nn.remat(Block, static_argnums=(2,)) if self.remat else Block
        shared = {'num_groups': self.num_groups, 'dropout': self.dropout, 'dtype': self.dtype}
        down, up = [], []
        for level, width in enumerate(widths):
            if level > 0:
                down.append(Conv(width, stride=2, dtype=self.dtype))
            down += [block(width, **shared) for _ in range(self.num_blocks)]
        for level, width in reversed(list(enumerate(widths))):
            up += [block(width, **shared) for _ in range(self.num_blocks)]
            if level > 0:
                up.append(UpsampleConv(widths[level - 1], *sizes[level - 1], dtype=self.dtype))
        self.down, self.up = down, up
        self.conv_in = Conv(widths[0], dtype=self.dtype)
        self.norm_code, self.norm_out = GroupNorm(self.num_groups), GroupNorm(self.num_groups)
        if self.vector:
            self.to_code = nn.Dense(self.code_channels, dtype=self.dtype)
            self.from_code = nn.Dense(math.prod(sizes[-1]) * widths[-1], dtype=self.dtype)
        else:
            self.to_code = Conv(self.code_channels, dtype=self.dtype)
            self.from_code = Conv(widths[-1], dtype=self.dtype)
        self.conv_out = Conv(self.out_channels, dtype=self.dtype)
        if self.num_classes is not None:
            self.label_in = nn.Embed(self.num_classes, widths[0], dtype=self.dtype)
            self.label_out = nn.Embed(self.num_classes, widths[-1], dtype=self.dtype)

    def __call__(self, x: Array, label: Array | None = None, *, train: bool) -> Array:
        """What the decoder says of the first numbers of a code; for making parameters."""
        return _through(self, x, label, train)

    def encode(self, x: Array, label: Array | None = None, *, train: bool) -> Array:
        """Equation (1): x float32 `[B, H, W, C]`, label int32 `[B]`, to float32."""
        h = self.conv_in(x)
        if self.num_classes is not None:
            h = h + self.label_in(label)[:, None, None]
        h = nn.silu(self.norm_code(_run(self.down, h, train)))
        return self.to_code(h.reshape(len(h), -1) if self.vector else h).astype('float32')

    def decode(self, z: Array, label: Array | None = None, *, train: bool) -> Array:
        """Equation (2): z float32 `[B, D]` or `[B, h, w, D]`, label int32 `[B]`, to float32."""
        (height, width), channels = self._levels()[0][-1], self._levels()[1][-1]
        h = self.from_code(z).reshape(len(z), height, width, channels)
        if self.num_classes is not None:
            h = h + self.label_out(label)[:, None, None]
        h = nn.silu(self.norm_out(_run(self.up, h, train)))
        return self.conv_out(h).astype('float32')

    def _levels(self) -> tuple[list[tuple[int, int]], list[int]]:
        """The sizes of the levels, and their channels."""
        sizes = [self.shape[:2]]
        for _ in self.channel_multipliers[1:]:
            sizes.append(tuple(-(-n // 2) for n in sizes[-1]))
        return sizes, [self.channels * multiplier for multiplier in self.channel_multipliers]


class Block(nn.Module):
    """y = shortcut(x) + conv(silu(norm(conv(silu(norm(x)))))), the last kernel zero at first."""

    features: int
    num_groups: int
    dropout: float
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        h = nn.silu(GroupNorm(self.num_groups, name='norm_0')(x))
        h = Conv(self.features, dtype=self.dtype, name='conv_0')(h)
        h = nn.silu(GroupNorm(self.num_groups, name='norm_1')(h))
        h = Dropout(self.dropout)(h, train=train)
        h = Conv(self.features, zero=True, dtype=self.dtype, name='conv_1')(h)
        if x.shape[-1] != self.features:
            x = Conv(self.features, size=1, dtype=self.dtype, name='shortcut')(x)
        return x + h


def _run(layers: list, h: Array, train: bool) -> Array:
    for layer in layers:
        h = layer(h) if isinstance(layer, Conv | UpsampleConv) else layer(h, train)
    return h


def _through(network: nn.Module, x: Array, label: Array | None, train: bool) -> Array:
    code = network.encode(x, label, train=train)
    return network.decode(code[..., : network.latent_channels], label, train=train)


def _check(activation: str, dropout: float) -> None:
    if activation not in ACTIVATIONS:
        raise InputError(f'activation: no {activation!r}; choose from {", ".join(ACTIVATIONS)}')
    if not 0 <= dropout < 1:
        raise InputError(f'dropout: {dropout} must be from 0 to below 1')
