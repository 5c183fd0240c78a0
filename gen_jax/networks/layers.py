"""Layers of the convolutional networks.

Images are `[B, H, W, C]`. Parameters are float32; `dtype` is what a layer computes in. Statistics
and softmax are float32 whatever it says.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from gen_jax.errors import InputError
from gen_jax.keys import scramble
from gen_jax.networks.convolution import conv, upsample_conv
from gen_jax.networks.rearrange import flat_matmul
from gen_jax.types import Array


def scaled_init(gain: float) -> nn.initializers.Initializer:
    """Draws from U(-a, a), a^2 = 3 gain^2 / mean(fan in, fan out)."""
    return nn.initializers.variance_scaling(gain**2, 'fan_avg', 'uniform')


# So Ho et al. 2020 draw every kernel, with a gain of 1 ...
kernel_init = scaled_init(1.0)
# ... but those that end a residual branch or the network, which start at (almost) nothing.
zero_init = nn.initializers.zeros_init()

# Names of the axes of a matrix, inputs first: 'channels' are those of the residual stream, 'hidden'
# is what lives inside a branch. They say where `parallel.state_shardings` may split it.
INTO_BRANCH, OUT_OF_BRANCH = ('channels', 'hidden'), ('hidden', 'channels')


class Conv(nn.Module):
    """A size x size convolution, 'SAME' padding: `[B, H, W, C]` to `[B, H/s, W/s, F]`."""

    features: int
    size: int = 3
    stride: int = 1
    zero: bool = False
    gain: float = 1.0  # what the first kernel is multiplied by
    kernel_init: nn.initializers.Initializer | None = None  # instead of what the two above say
    bias: bool = True
    axes: tuple[str, str] | None = None  # names of those of the channels
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, x: Array) -> Array:
        init = self.kernel_init or (zero_init if self.zero else scaled_init(self.gain))
        if self.axes is not None:
            init = nn.with_logical_partitioning(init, (None, None, *self.axes))
        x, kernel, bias = with_weights(self, x, self.size, init, bias=self.bias)
        return conv(x, kernel, self.stride) + bias


class UpsampleConv(nn.Module):
    """`upsample` to height x width, then a 3 x 3 convolution with bias; the same parameters."""

    features: int
    height: int
    width: int
    gain: float = 1.0
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x, kernel, bias = with_weights(self, x, 3, scaled_init(self.gain))
        return upsample_conv(x, kernel, self.height, self.width) + bias


def with_weights(
    module: nn.Module, x: Array, size: int, init: nn.initializers.Initializer, *, bias: bool = True
) -> tuple[Array, Array, Array]:
    """x, and the module's kernel and bias, in the type that it computes in; 0 for no bias."""
    kernel = module.param('kernel', init, (size, size, x.shape[-1], module.features))
    zeros = nn.initializers.zeros_init()
    added = module.param('bias', zeros, (module.features,)) if bias else jnp.zeros(())
    return tuple(array.astype(module.dtype) for array in (x, kernel, added))


def dense(
    features: int,
    axes: tuple[str, str],
    init=kernel_init,
    *,
    bias: bool = True,
    dtype: str,
    name: str,
) -> nn.Dense:
    """A linear layer whose kernel's axes have names; its rows are one long axis."""
    return nn.Dense(
        features,
        use_bias=bias,
        kernel_init=nn.with_logical_partitioning(init, axes),
        dot_general=lambda x, kernel, *_, **__: flat_matmul(x, kernel),
        dtype=dtype,
        name=name,
    )


class GroupNorm(nn.Module):
    """Group normalization (Wu & He 2018) of x `[B, ..., C]`, statistics over all but B and groups.

    One pass over x gives the sums of x and x^2 of each channel; what remains is one scale and one
    shift for each example and channel.
    """

    num_groups: int
    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x: Array) -> Array:
        channels = x.shape[-1]
        if channels % self.num_groups:
            raise InputError(
                f'num_groups: {channels} channels do not divide into {self.num_groups} groups'
            )
        scale = self.param('scale', nn.initializers.ones_init(), (channels,))
        bias = self.param('bias', nn.initializers.zeros_init(), (channels,))
        inner = tuple(range(1, x.ndim - 1))
        wide = x.astype(jnp.float32)
        count = x.size // (x.shape[0] * self.num_groups)

        def over_group(sums: Array) -> Array:
            grouped = sums.reshape(-1, self.num_groups, channels // self.num_groups)
            mean = grouped.sum(-1, keepdims=True) / count
            return jnp.broadcast_to(mean, grouped.shape).reshape(sums.shape)

        mean = over_group(wide.sum(inner))
        variance = jnp.maximum(over_group((wide * wide).sum(inner)) - mean * mean, 0)
        gain = lax.rsqrt(variance + self.epsilon) * scale
        shift = bias - mean * gain
        shape = (x.shape[0], *(1 for _ in inner), channels)
        return (wide * gain.reshape(shape) + shift.reshape(shape)).astype(x.dtype)


class Dropout(nn.Module):
    """Sets each number of x to 0 with probability `rate` and scales the rest up (Srivastava 2014).

    The mask is a hash of each number's position, keyed by two words of the 'dropout' key. JAX's own
    generator is written for streams of independent keys; it takes several passes over memory, 4 %
    of a training step on a CPU, where the hash is fused into the multiplication.
    """

    rate: float

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        if not train or self.rate == 0:
            return x
        words = jax.random.bits(self.make_rng('dropout'), (2,), jnp.uint32)
        position = lax.iota(jnp.uint32, x.size).reshape(x.shape)
        bits = scramble(scramble(position ^ words[0]) + words[1])
        keep = bits >= jnp.uint32(self.rate * 2**32)
        return jnp.where(keep, x / (1 - self.rate), 0).astype(x.dtype)


def timestep_embedding(t: Array, features: int, time_scale: float = 1000.0) -> Array:
    """Sinusoids of time, `[B]` to `[B, features]` (Vaswani et al. 2017, as in Ho et al. 2020).

        [sin(s t w_0), ..., cos(s t w_0), ...],   w_i = 10000^(-i / (features / 2 - 1))

    t is in [0, 1]; `time_scale` s brings it to the 1000 steps that the frequencies were made for.
    """
    half = features // 2
    frequencies = jnp.exp(-math.log(10_000) / (half - 1) * jnp.arange(half, dtype=jnp.float32))
    angles = time_scale * t.astype(jnp.float32)[:, None] * frequencies
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], -1)


def lowest_size(shape: tuple[int, ...], halvings: int, field: str) -> tuple[int, int]:
    """Height and width of images of `shape` `[H, W, C]`, halved so many times.

    Raises:
      InputError: naming the network's field that says how often, for an image that does not halve
        so often; or for what is no image.
    """
    if len(shape) != 3:
        raise InputError(
            f'name: this network is for images, and examples are of shape {tuple(shape)}; use one '
            "of 'gan_mlp'"
        )
    (height, width), whole = shape[:2], 2**halvings
    if height % whole or width % whole:
        raise InputError(
            f'{field}: {halvings} halvings need a height and a width that divide by {whole}, and '
            f'images are {height} x {width}'
        )
    return height // whole, width // whole
