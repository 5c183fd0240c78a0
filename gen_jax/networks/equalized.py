"""Layers whose weights all learn at one rate (Karras et al. 2018, section 4.1; 2019, appendix C).

    (1) y = c W x + λ b,   W ~ N(0, 1 / λ^2) at first,   c = λ / sqrt(fan in)

So each weight is of order 1 when λ = 1, whatever its layer, and an optimizer whose steps do not
depend on the gradient's size, like Adam, changes all in the same proportion. λ < 1 slows a layer
down. `leaky` keeps the variance at about 1.
"""

import math

import flax.linen as nn
import jax.numpy as jnp
from jax import lax

from gen_jax.networks.convolution import conv
from gen_jax.networks.rearrange import flat_matmul
from gen_jax.networks.resampling import filtered_downsample, filtered_downsample_conv
from gen_jax.types import Array

_SLOPE = 0.2


def leaky(x: Array) -> Array:
    """sqrt(2) times x, or 0.2 x where that is negative."""
    return math.sqrt(2) * nn.leaky_relu(x, _SLOPE)


def unit_square(x: Array) -> Array:
    """x `[..., D]` divided by the root of the mean of its squares; float32."""
    x = x.astype('float32')
    return x * lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-8)


class EqualizedDense(nn.Module):
    """Equation (1): `[B, D]` to `[B, features]`. `bias` is what b is at first, times 1 / λ."""

    features: int
    rate: float = 1.0  # λ
    bias: float = 0.0
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (x.shape[-1], self.features)
        kernel = self.param('kernel', nn.initializers.normal(1 / self.rate), shape)
        start = nn.initializers.constant(self.bias / self.rate)
        bias = self.param('bias', start, (self.features,))
        kernel = (kernel * (self.rate / math.sqrt(x.shape[-1]))).astype(self.dtype)
        return flat_matmul(x.astype(self.dtype), kernel) + (self.rate * bias).astype(self.dtype)


class EqualizedConv(nn.Module):
    """Equation (1), λ = 1, as a size x size convolution: `[B, H, W, C]` to `[B, H, W, features]`.

    `down` halves the image through the filter, 1 x 1 kernels behind it and 3 x 3 ones with it.
    """

    features: int
    size: int = 3
    down: bool = False
    use_bias: bool = True
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = x.astype(self.dtype)
        kernel = equalized_kernel(self, self.size, x.shape[-1])
        if not self.down:
            y = conv(x, kernel)
        elif self.size == 1:
            y = conv(filtered_downsample(x), kernel)
        else:
            y = filtered_downsample_conv(x, kernel)
        if not self.use_bias:
            return y
        bias = self.param('bias', nn.initializers.zeros_init(), (self.features,))
        return y + bias.astype(self.dtype)


def equalized_kernel(module: nn.Module, size: int, inputs: int) -> Array:
    """c W of a size x size convolution to the module's `features`, in the module's `dtype`."""
    shape = (size, size, inputs, module.features)
    kernel = module.param('kernel', nn.initializers.normal(1.0), shape)
    return (kernel / math.sqrt(size * size * inputs)).astype(module.dtype)


class Mapping(nn.Module):
    """What StyleGAN2 makes of latents and labels before all else: `num_layers` dense layers of
    `channels`, which learn 100 times slower than others.

    Latents `[B, D]`, or None, and one of `num_classes` labels `[B]`, or None, to float32
    `[B, channels]`; each is brought to a mean square of 1 first, the label through a table.
    """

    channels: int
    num_layers: int
    num_classes: int | None
    dtype: str

    @nn.compact
    def __call__(self, z: Array | None, label: Array | None) -> Array:
        parts = [] if z is None else [unit_square(z)]
        if self.num_classes is not None:
            table = EqualizedDense(self.channels, dtype=self.dtype, name='label')
            parts.append(unit_square(table(nn.one_hot(label, self.num_classes))))
        h = jnp.concatenate(parts, -1)
        for i in range(self.num_layers):
            layer = EqualizedDense(self.channels, rate=0.01, dtype=self.dtype, name=f'dense_{i}')
            h = leaky(layer(h))
        return h.astype('float32')
