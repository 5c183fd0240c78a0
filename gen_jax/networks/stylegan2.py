"""The generator of StyleGAN2 (Karras et al. 2020, Analyzing and Improving the Image Quality of
StyleGAN), as ADA has it (Karras et al. 2020, Training GANs with Limited Data).

    (1) style      w = mapping(z, label);   s = A w + 1 in each layer that w steers
    (2) modulated  y_o = d_o sum_i W_io * (s_i x_i),   d_o = 1 / sqrt(sum_(i, place) (s_i W_io)^2)
    (3) layer      h <- a(y + strength · noise + b),   a the leaky ReLU of `equalized`
    (4) image      x_(stage) = up(x_(stage - 1)) + modulated 1 x 1 of h + b, where d_o = 1

`up` doubles the image through the filter (1, 3, 3, 1), and the first layer of a stage doubles h
through it. (2) is written with the weights modulated for each example, W_io s_i d_o; since * is
linear, s may go to its inputs and d to its outputs, and all examples share one convolution.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from gen_jax.errors import InputError
from gen_jax.networks.convolution import conv
from gen_jax.networks.equalized import EqualizedDense, Mapping, equalized_kernel, leaky
from gen_jax.networks.layers import lowest_size
from gen_jax.networks.resampling import filtered_upsample, filtered_upsample_conv
from gen_jax.types import Array

# How much of the running mean of w a step keeps.
_DECAY = 0.995


def demodulation(kernel: Array, style: Array) -> Array:
    """d of equation (2), float32 `[B, F]`, of a kernel `[rows, columns, C, F]` and s `[B, C]`."""
    squares = (kernel.astype('float32') ** 2).sum((0, 1)).astype(kernel.dtype)
    style = style.astype(kernel.dtype)
    sums = jnp.matmul(style * style, squares, preferred_element_type='float32')
    return lax.rsqrt(sums + 1e-8)


class Styled(nn.Module):
    """Equations (2) and (3): h `[B, H, W, C]` and w `[B, D]` to `[B, H, W, features]`, or to twice
    the height and width with `up`. Draws from the 'noise' key; without one the noise is 0."""

    features: int
    up: bool
    dtype: str

    @nn.compact
    def __call__(self, h: Array, w: Array) -> Array:
        style = EqualizedDense(h.shape[-1], bias=1.0, dtype=self.dtype, name='style')(w)
        kernel = equalized_kernel(self, 3, h.shape[-1])
        h = h * style[:, None, None]
        h = filtered_upsample_conv(h, kernel) if self.up else conv(h, kernel)
        h = h * demodulation(kernel, style)[:, None, None].astype(self.dtype)
        strength = self.param('scale', nn.initializers.zeros_init(), ())
        if self.has_rng('noise'):
            noise = jax.random.normal(self.make_rng('noise'), (*h.shape[:-1], 1))
            h = h + (strength * noise).astype(self.dtype)
        bias = self.param('bias', nn.initializers.zeros_init(), (self.features,))
        return leaky(h + bias.astype(self.dtype))


class ToImage(nn.Module):
    """What a stage adds to the image, by equation (4): h `[B, H, W, C]` and w `[B, D]` to
    `[B, H, W, features]`."""

    features: int
    dtype: str

    @nn.compact
    def __call__(self, h: Array, w: Array) -> Array:
        style = EqualizedDense(h.shape[-1], bias=1.0, dtype=self.dtype, name='style')(w)
        kernel = equalized_kernel(self, 1, h.shape[-1])
        bias = self.param('bias', nn.initializers.zeros_init(), (self.features,))
        return conv(h * style[:, None, None], kernel) + bias.astype(self.dtype)


class Stage(nn.Module):
    """All of one size: h and the image so far, of half that size, to h `[B, H, W, width]` and the
    image. The first stage has no image so far and keeps the size of h. w is `[B, layers, D]`, one
    for each layer: that which doubles h, unless it is the first stage, another, and the image's."""

    width: int
    image_channels: int
    dtype: str

    @nn.compact
    def __call__(self, h: Array, image: Array | None, w: Array) -> tuple[Array, Array]:
        if image is not None:
            h = Styled(self.width, up=True, dtype=self.dtype, name='up')(h, w[:, 0])
            image = filtered_upsample(image)
        h = Styled(self.width, up=False, dtype=self.dtype, name='conv')(h, w[:, -2])
        added = ToImage(self.image_channels, dtype=self.dtype, name='image')(h, w[:, -1])
        return h, added if image is None else image + added


class Generator(nn.Module):
    """Equations (1) to (4): stage s has `widths[s]` channels, and twice the height and width of the
    one before it. The first is as high and wide as `shape` `[H, W, C]` says, 4 x 4 of 32 x 32 with
    four stages, 7 x 7 of 28 x 28 with three.

    w has `style_channels` numbers, made by `num_mapping_layers` layers, 2 of which ADA has for
    CIFAR-10, where it has 512 channels throughout. With `num_classes` K labels are in [0, K).
    `dtype` is what is computed in. `remat` computes a stage anew in the backward pass instead of
    keeping what it computed: less memory, more time.

    The collection `batch_stats` has `w_mean` `[style_channels]`, the running mean of w.

    Raises:
      InputError: fields that make no network.
    """

    shape: tuple[int, ...]
    latent_channels: int
    num_classes: int | None = None
    widths: Sequence[int] = (512, 512, 512, 512)
    style_channels: int = 512
    num_mapping_layers: int = 8
    dtype: str = 'float32'
    remat: bool = False

    def __post_init__(self):
        for name in ('style_channels', 'num_mapping_layers'):
            if getattr(self, name) < 1:
                raise InputError(f'{name}: {getattr(self, name)} must be at least 1')
        if not self.widths or min(self.widths) < 1:
            raise InputError(f'widths: {self.widths} must be one number above 0 for each stage')
        lowest_size(self.shape, len(self.widths) - 1, 'widths')
        super().__post_init__()

    @property
    def num_styles(self) -> int:
        """Layers that a w of their own may steer. A stage's image and the next stage's first layer
        share one."""
        return 2 * len(self.widths)

    def setup(self):
        self.mapping = Mapping(
            self.style_channels, self.num_mapping_layers, self.num_classes, self.dtype
        )
        self.w_mean = self.variable('batch_stats', 'w_mean', jnp.zeros, (self.style_channels,))
        shape = (*lowest_size(self.shape, len(self.widths) - 1, 'widths'), self.widths[0])
        self.constant = self.param('embedding', nn.initializers.normal(1.0), shape)
        stage = nn.remat(Stage) if self.remat else Stage
        self.block = [stage(width, self.shape[-1], self.dtype) for width in self.widths]

    def __call__(self, z: Array, label: Array | None = None, *, train: bool) -> Array:
        """z float32 `[B, latent_channels]` and labels int32 `[B]` to float32 `[B, *shape]`."""
        return self.synthesize(self.styles(z, label, train=train), train=train)

    def styles(self, z: Array, label: Array | None = None, *, train: bool) -> Array:
        """w of equation (1) for each layer, all the same: float32 `[B, num_styles, D]`.

        With `train`, and if `batch_stats` may change, it moves the running mean.
        """
        w = self.mapping(z, label)
        if train and not self.is_initializing() and self.is_mutable_collection('batch_stats'):
            self.w_mean.value = _DECAY * self.w_mean.value + (1 - _DECAY) * w.mean(0)
        return jnp.broadcast_to(w[:, None], (len(w), self.num_styles, w.shape[-1]))

    def synthesize(self, w: Array, *, train: bool) -> Array:
        """Equations (2) to (4): w `[B, num_styles, D]` to float32 `[B, *shape]`."""
        h = jnp.broadcast_to(self.constant.astype(self.dtype), (len(w), *self.constant.shape))
        image = None
        for i, stage in enumerate(self.block):
            h, image = stage(h, image, w[:, max(2 * i - 1, 0) : 2 * i + 2])
        return image.astype('float32')
