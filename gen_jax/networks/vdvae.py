"""A very deep hierarchical VAE: an encoder on the way up, latents block by block on the way down.

Child 2021, arXiv:2011.10650; where the paper's words are short, its published code decides.

    (1) up      h <- h + f(h) at every block; average pooling from one resolution to the next. What
                the last block of a resolution says, s, is seen by every block there on the way down
    (2) prior   (m_p, log d_p, extra) = f(h),      z ~ p = N(m_p, d_p^2)        of each pixel
    (3) q       (m_q, log d_q) = f([h, s]),        z ~ q = N(m_q, d_q^2)
    (4) down    h <- h + extra + W z,  h <- h + f(h) at every block; pixels are repeated from one
                resolution to the next, where a learned bias is added
    (5) f       1x1, 3x3, 3x3 and 1x1 convolutions, GELU before each, no norm; all of them 1x1
                where there are no more than 2 x 2 pixels

Of N blocks on its way, W and the last convolution of the f of (1) and (4) start 1 / sqrt(N) as
large as others, that of (2) at zero. So does that of (3), where the published code has no zero: p
and q start equal, and a first KL divergence is nothing, not thousands of nats.

Labels, where the network is told them, are added to what enters the first block on the way up, and
at every resolution on the way down.
"""

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from gen_jax.errors import InputError
from gen_jax.networks.layers import Conv, Dropout
from gen_jax.networks.rearrange import upsample
from gen_jax.types import Array, Key

# Beyond these a law is a point, or wider than any other.
_LOG_DEVIATION_LIMITS = (-7.0, 5.0)


class Pass(NamedTuple):
    """What one way down through N blocks says of B examples; all float32.

    parameters: of the law of x given z, `[B, H, W, out_channels]`.
    latents: z of each block, the first that is drawn first: `[B, R, R, latent_channels]`.
    rates: KL(q || p) of each channel of each block, given the latents above it, summed over its
      pixels: `[N, B, latent_channels]` nats.
    log_q: the log-density of each block's z under q, `[N, B]`.
    log_ratio: log q - log p of it, `[N, B]`.
    """

    parameters: Array
    latents: tuple[Array, ...]
    rates: Array
    log_q: Array
    log_ratio: Array


class Normal(NamedTuple):
    """A law of independent numbers."""

    mean: Array
    log_deviation: Array


class VDVAE(nn.Module):
    """`levels` are (resolution, blocks on the way up, blocks on the way down), the image's first.

    A resolution is that of the level before divided by a whole number, rounded up: 14, 7, 4, 1.
    The default levels and widths are those of the paper for CIFAR-10. `channels` flow between
    blocks, inside which there are 1 / `bottleneck` as many; `bias_up_to` is the largest resolution
    with a bias of (4). `shape` is that of an example. With `num_classes` K labels are in [0, K).
    `dtype` is what is computed in; latents and their laws are float32. `remat` computes a block
    anew in the backward pass instead of keeping what it computed: less memory, more time.

    Raises:
      InputError: fields that make no network, or examples that are no square images.
    """

    shape: tuple[int, ...]
    latent_channels: int
    out_channels: int
    channels: int = 384
    bottleneck: int = 4
    levels: tuple[tuple[int, int, int], ...] = (
        (32, 12, 22),
        (16, 7, 11),
        (8, 7, 6),
        (4, 4, 3),
        (1, 3, 1),
    )
    bias_up_to: int = 64
    dropout: float = 0.0
    num_classes: int | None = None
    dtype: str = 'float32'
    remat: bool = False

    def __post_init__(self):
        _check_levels(self.shape, self.levels)
        if self.bottleneck < 1 or self.channels < 1 or self.channels % self.bottleneck:
            raise InputError(
                f'channels, bottleneck: {self.channels} must be a multiple of {self.bottleneck}'
            )
        if not 0 <= self.dropout < 1:
            raise InputError(f'dropout: {self.dropout} must be from 0 to below 1')
        super().__post_init__()

    @property
    def resolutions(self) -> tuple[int, ...]:
        """Of each block on the way down, the first that draws first."""
        return tuple(level[0] for level in reversed(self.levels) for _ in range(level[2]))

    @property
    def latent_shapes(self) -> tuple[tuple[int, int, int], ...]:
        """Of one example's z in each block."""
        return tuple((r, r, self.latent_channels) for r in self.resolutions)

    def setup(self):
        shared = {
            'width': self.channels // self.bottleneck,
            'dropout': self.dropout,
            'dtype': self.dtype,
        }
        up = nn.remat(Branch, static_argnums=(2,)) if self.remat else Branch
        gain = 1 / math.sqrt(sum(level[1] for level in self.levels))
        self.conv_in = Conv(self.channels, dtype=self.dtype)
        self.up = [
            [up(self.channels, size=_kernel(r), gain=gain, **shared) for _ in range(num)]
            for r, num, _ in self.levels
        ]
        down = nn.remat(DownBlock, static_argnums=(5,)) if self.remat else DownBlock
        shared |= {'gain': 1 / math.sqrt(len(self.resolutions))}
        options = {'latent_channels': self.latent_channels, **shared}
        self.down = [down(self.channels, size=_kernel(r), **options) for r in self.resolutions]
        self.biases = {
            r: self.param(f'bias_{r}', nn.initializers.zeros_init(), (r, r, self.channels))
            for r, _, _ in self.levels
            if r <= self.bias_up_to
        }
        self.conv_out = Conv(self.out_channels, size=1, dtype=self.dtype)
        if self.num_classes is not None:
            self.label_up = nn.Embed(self.num_classes, self.channels, dtype=self.dtype)
            self.label_down = [
                nn.Embed(self.num_classes, self.channels, dtype=self.dtype) for _ in self.levels
            ]

    def __call__(
        self, x: Array, label: Array | None = None, key: Key | None = None, *, train: bool
    ) -> Pass:
        """Up and down: x float32 `[B, *shape]`, label int32 `[B]`.

        `key` draws each z from q; None takes the mean of each, given those above.
        """
        return self.infer(self.look(x, label, train=train), label, key, train=train)

    def look(self, x: Array, label: Array | None = None, *, train: bool) -> tuple[Array, ...]:
        """Equation (1): s of each level, the image's first, `[B, R, R, channels]`."""
        h, seen = self.conv_in(x), []
        if self.num_classes is not None:
            h = h + self.label_up(label)[:, None, None]
        for (resolution, _, _), blocks in zip(self.levels, self.up, strict=True):
            h = average_pool(h, resolution)
            for block in blocks:
                h = h + block(h, train)
            seen.append(h)
        return tuple(seen)

    def infer(
        self,
        seen: tuple[Array, ...],
        label: Array | None = None,
        key: Key | None = None,
        *,
        train: bool,
    ) -> Pass:
        """Equations (3) and (4), of what `look` saw."""
        seen = {s.shape[1]: s for s in seen}

        def run(block: DownBlock, number: int, h: Array) -> tuple:
            shape = (len(h), *self.latent_shapes[number])
            noise = jnp.float32(0) if key is None else _noise(key, number, shape)
            return block(h, seen[h.shape[1]], None, noise, train)

        num = len(seen[self.shape[0]])
        parameters, answers = self._descend(num, label, run)
        latents, rates, log_q, log_ratio = zip(*answers, strict=True)
        return Pass(parameters, latents, *map(jnp.stack, (rates, log_q, log_ratio)))

    def generate(
        self, key: Key, num: int, label: Array | None = None, *, temperature: float = 1.0
    ) -> Array:
        """Equations (2) and (4): parameters `[num, H, W, out_channels]` of a drawn hierarchy.

        `temperature` multiplies the deviation of every z.
        """

        def run(block: DownBlock, number: int, h: Array) -> tuple:
            noise = temperature * _noise(key, number, (num, *self.latent_shapes[number]))
            return block(h, None, None, noise, False)

        return self._descend(num, label, run)[0]

    def decode(self, latents: tuple[Array, ...], label: Array | None = None) -> Array:
        """Equation (4), of the z of every block, `[B, R, R, latent_channels]` each."""

        def run(block: DownBlock, number: int, h: Array) -> tuple:
            return block(h, None, latents[number], None, False)

        return self._descend(len(latents[0]), label, run)[0]

    def _descend(
        self, num: int, label: Array | None, run: Callable
    ) -> tuple[Array, list[tuple[Array, ...]]]:
        """The parameters, and what `run` says of each block besides the h that it passes on."""
        h = jnp.zeros((num, 1, 1, self.channels), self.dtype)
        answers = []
        for level, (resolution, _, count) in reversed(list(enumerate(self.levels))):
            h = upsample(h, resolution, resolution)
            if resolution <= self.bias_up_to:
                h = h + self.biases[resolution].astype(self.dtype)
            if self.num_classes is not None:
                h = h + self.label_down[level](label)[:, None, None]
            for _ in range(count):
                h, *answer = run(self.down[len(answers)], len(answers), h)
                answers.append(answer)
        return self.conv_out(h).astype(jnp.float32), answers


class Branch(nn.Module):
    """Equation (5): `[B, R, R, C]` to `[B, R, R, features]`, `width` channels in between."""

    features: int
    width: int
    size: int
    gain: float = 1.0
    zero: bool = False
    dropout: float = 0.0
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, h: Array, train: bool) -> Array:
        for number, size in enumerate((1, self.size, self.size)):
            h = Conv(self.width, size=size, dtype=self.dtype, name=f'conv_{number}')(nn.gelu(h))
        h = Dropout(self.dropout)(nn.gelu(h), train=train)
        last = {'gain': self.gain, 'zero': self.zero, 'dtype': self.dtype}
        return Conv(self.features, size=1, **last, name='conv_3')(h)


class DownBlock(nn.Module):
    """Equations (2) to (4) of one block."""

    channels: int
    width: int
    latent_channels: int
    size: int
    gain: float
    dropout: float = 0.0
    dtype: str = 'float32'

    def setup(self):
        shared = {
            'width': self.width,
            'size': self.size,
            'dropout': self.dropout,
            'dtype': self.dtype,
        }
        self.prior = Branch(2 * self.latent_channels + self.channels, zero=True, **shared)
        self.posterior = Branch(2 * self.latent_channels, zero=True, **shared)
        self.residual = Branch(self.channels, gain=self.gain, **shared)
        self.from_latent = Conv(self.channels, size=1, gain=self.gain, dtype=self.dtype)

    def __call__(
        self, h: Array, seen: Array | None, z: Array | None, noise: Array | None, train: bool
    ) -> tuple[Array, ...]:
        """h, z, and where s is `seen` the rates, log q and log q - log p of a `Pass`.

        z is drawn from q, or from p where nothing is seen, by `noise`; unless it is given.
        """
        law, extra = jnp.split(self.prior(h, train), (2 * self.latent_channels,), -1)
        p, measures = _law(law), ()
        if seen is not None:
            q = _law(self.posterior(jnp.concatenate([h, seen], -1), train))
            z = q.mean + jnp.exp(q.log_deviation) * noise
            measures = _measure(q, p, z, noise)
        elif z is None:
            z = p.mean + jnp.exp(p.log_deviation) * noise
        h = h + extra + self.from_latent(z)
        return h + self.residual(h, train), z, *measures


def divergence(q: Normal, p: Normal) -> Array:
    """KL(q || p) of each number, in nats."""
    scaled = (q.mean - p.mean) * jnp.exp(-p.log_deviation)
    log_ratio = q.log_deviation - p.log_deviation
    return 0.5 * (jnp.expm1(2 * log_ratio) + scaled**2) - log_ratio


def average_pool(x: Array, size: int) -> Array:
    """x `[B, R, R, C]` to `[B, size, size, C]`: means over squares, cut at the lower and the right
    border where they do not fit."""
    batch, resolution, _, channels = x.shape
    if resolution == size:
        return x
    side = -(-resolution // size)
    pad = (0, size * side - resolution)
    padded = jnp.pad(x, ((0, 0), pad, pad, (0, 0))).astype(jnp.float32)
    total = padded.reshape(batch, size, side, size, side, channels).sum((2, 4))
    lengths = np.minimum(side, resolution - side * np.arange(size))
    return (total / (lengths[:, None] * lengths)[..., None]).astype(x.dtype)


def _law(numbers: Array) -> Normal:
    mean, log_deviation = jnp.split(numbers.astype(jnp.float32), 2, -1)
    return Normal(mean, jnp.clip(log_deviation, *_LOG_DEVIATION_LIMITS))


def _measure(q: Normal, p: Normal, z: Array, noise: Array) -> tuple[Array, Array, Array]:
    """The rates, log q and log q - log p of a z that the noise made of q."""
    log_q = -0.5 * noise**2 - q.log_deviation
    log_p = -0.5 * ((z - p.mean) * jnp.exp(-p.log_deviation)) ** 2 - p.log_deviation
    constant = 0.5 * math.log(2 * math.pi)
    everywhere = (1, 2, 3)
    return (
        divergence(q, p).sum((1, 2)),
        (log_q - constant).sum(everywhere),
        (log_q - log_p).sum(everywhere),
    )


def _noise(key: Key, number: int, shape: tuple[int, ...]) -> Array:
    """That of block `number`."""
    return jax.random.normal(jax.random.fold_in(key, number), shape)


def _kernel(resolution: int) -> int:
    return 3 if resolution > 2 else 1


def _check_levels(shape: tuple[int, ...], levels: tuple) -> None:
    if len(shape) != 3 or shape[0] != shape[1]:
        raise InputError(
            f'name: VDVAE is for square images, and examples are of shape {shape}; set '
            "data.image_size, or use method 'vae.vae'"
        )
    whole = all(
        len(level) == 3 and all(isinstance(n, int) and n >= 1 for n in level) for level in levels
    )
    if not levels or not whole:
        raise InputError(
            f'levels: {levels} must be (resolution, blocks up, blocks down), whole numbers from 1'
        )
    if levels[0][0] != shape[0]:
        raise InputError(f'levels: the first resolution must be that of the data, {shape[0]}')
    for (upper, _, _), (lower, _, _) in itertools.pairwise(levels):
        if lower >= upper or -(-upper // -(-upper // lower)) != lower:
            raise InputError(
                f'levels: {lower} is not {upper} divided by a whole number and rounded up'
            )
