"""Layers of the convolutional networks, and the forms of them that are fast on a CPU.

Images are `[B, H, W, C]`, kernels `[kernel height, kernel width, C in, C out]`. Parameters are
float32; `dtype` is what a layer computes in. Statistics and softmax are float32 whatever it says.

On GPU and TPU a convolution is `lax.conv_general_dilated`. XLA's CPU backend is good at some
convolutions only: those of few channels feed its matrix unit badly, and where the kernel is larger
than the image that it slides over, not counting padding and holes, XLA swaps the two and runs the
turned kernel in naive loops, 50 times as slow. So there `conv` takes these as matrix products; each
form equals the plain one within float error.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from gen_jax.errors import InputError
from gen_jax.keys import scramble
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


def plain_conv(x: Array, kernel: Array, stride: int = 1) -> Array:
    """The convolution as XLA has it: x `[B, H, W, C]`, 'SAME' padding, no bias.

    With stride 2 and an even size, 'SAME' pads below and to the right only, as TensorFlow does
    and as the published DDPM networks were trained.
    """
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )


def conv(x: Array, kernel: Array, stride: int = 1) -> Array:
    """`plain_conv`, in the form that suits the backend."""
    if jax.default_backend() != 'cpu':
        return plain_conv(x, kernel, stride)
    size, _, inputs, outputs = kernel.shape
    if size == 1 and stride == 1:
        return flat_matmul(x, kernel[0, 0])
    if stride == 2 and size % 2 == 0 and inputs >= 8:
        return halving_conv(x, kernel)
    if stride > 1 or inputs < 8 or size > min(x.shape[1:3]):
        return patches_conv(x, kernel, stride)
    if outputs < 8:
        return taps_conv(x, kernel)
    return plain_conv(x, kernel, stride)


def window_conv(x: Array, kernel: Array, stride: int = 1) -> Array:
    """The convolution with no padding ('VALID'), of a kernel of any size, for the backend."""
    rows, columns, inputs, outputs = kernel.shape
    if x.shape[1:3] == (rows, columns):  # one window
        return (x.reshape(len(x), -1) @ kernel.reshape(-1, outputs))[:, None, None]
    if jax.default_backend() != 'cpu' or (stride == 1 and inputs >= 8):
        return lax.conv_general_dilated(
            x, kernel, (stride, stride), 'VALID', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
        )
    height, width = x.shape[1] - rows + 1, x.shape[2] - columns + 1
    patches = [
        x[:, i : i + height : stride, j : j + width : stride]
        for i in range(rows)
        for j in range(columns)
    ]
    return flat_matmul(jnp.concatenate(patches, -1), kernel.reshape(-1, outputs))


def patches_conv(x: Array, kernel: Array, stride: int = 1) -> Array:
    """`plain_conv` as one matrix product with the patches under the kernel ('im2col').

    It suits strided convolutions (see `halving_conv`) and few input channels.
    """
    size, outputs = kernel.shape[0], kernel.shape[-1]
    height, width = (-(-n // stride) for n in x.shape[1:3])
    blocks = stride_to_channels(x, size, stride)
    channels = x.shape[-1]
    patches = []
    for row in range(size):
        for column in range(size):
            # Tap (row, column) reads phase (row % stride, column % stride) of a block.
            i, j = row // stride, column // stride
            phase = row % stride * stride + column % stride
            start = phase * channels
            patches.append(blocks[:, i : i + height, j : j + width, start : start + channels])
    return flat_matmul(jnp.concatenate(patches, -1), kernel.reshape(-1, outputs))


def halving_conv(x: Array, kernel: Array) -> Array:
    """`plain_conv` of stride 2 as the sum of four convolutions, one of each phase of x (its even or
    odd rows and columns) with the taps that fall on it.

    They have as many inputs as outputs. Of a strided convolution's gradients one, or one of the
    gradients of them, slides a kernel over an image that is smaller.
    """
    size, axes = len(kernel), []
    for n in x.shape[1:3]:
        outputs = -(-n // 2)
        low = max((outputs - 1) * 2 + size - n, 0) // 2
        parts = []
        for phase in (0, 1):
            # Output i reads row 2 i + u - low.
            taps = [u for u in range(size) if (u - low) % 2 == phase]
            if taps:
                pad = (-((taps[0] - low) // 2), (taps[-1] - low) // 2)
                parts.append((slice(phase, None, 2), slice(taps[0], None, 2), pad))
        axes.append(parts)
    even = [(0, 0), *((0, n % 2) for n in x.shape[1:3]), (0, 0)]
    x, total = jnp.pad(x, even), 0
    for rows, row_taps, row_pad in axes[0]:
        for columns, column_taps, column_pad in axes[1]:
            total = total + lax.conv_general_dilated(
                x[:, rows, columns],
                kernel[row_taps, column_taps],
                (1, 1),
                (row_pad, column_pad),
                dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
            )
    return total


def taps_conv(x: Array, kernel: Array) -> Array:
    """`plain_conv` of stride 1: one matrix product for what each tap adds, then shifted sums.

    With few output channels the sums are small, and a product with few columns would be slow.
    """
    size, _, inputs, outputs = kernel.shape
    height, width = x.shape[1:3]
    low = (size - 1) // 2
    added = flat_matmul(x, kernel.transpose(2, 0, 1, 3).reshape(inputs, -1))
    pad = (low, size - 1 - low)
    added = jnp.pad(added, ((0, 0), pad, pad, (0, 0)))
    total = 0
    for row in range(size):
        for column in range(size):
            start = (row * size + column) * outputs
            tap = added[:, row : row + height, column : column + width, start : start + outputs]
            total = total + tap
    return total


def upsample_conv(x: Array, kernel: Array, height: int, width: int) -> Array:
    """`plain_conv` of x `[B, h, w, C]` doubled by `upsample` to height x width, kernel 3 x 3."""
    if jax.default_backend() != 'cpu' or (height, width) != (2 * x.shape[1], 2 * x.shape[2]):
        return conv(upsample(x, height, width), kernel)
    return phases_conv(x, kernel)


def phases_conv(x: Array, kernel: Array) -> Array:
    """The same to twice the size, with 4/9 of the multiplications.

    Of three neighbors in a doubled row two are equal. So an output pixel sees two pixels of x,
    and one of four 2 x 2 kernels, each for the outputs of one phase (even or odd row and column),
    does what the 3 x 3 one did.
    """

    def halves(kernel: Array) -> tuple[Array, Array]:
        """Along the first axis: what even outputs see of (i - 1, i), and odd ones of (i, i + 1)."""
        low, center, high = kernel
        return jnp.stack([low, center + high]), jnp.stack([low + center, high])

    phases = []
    for i, taps in enumerate(halves(kernel)):
        for j, square in enumerate(halves(taps.swapaxes(0, 1))):
            phases.append(
                lax.conv_general_dilated(
                    x,
                    square.swapaxes(0, 1),
                    (1, 1),
                    ((1 - i, i), (1 - j, j)),
                    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
                )
            )
    return interleave(*phases)


def interleave(*phases: Array) -> Array:
    """An image `[B, 2 H, 2 W, C]` of four `[B, H, W, C]`: its pixels in even rows and even columns,
    in even rows and odd columns, in odd rows and even columns, in odd rows and odd columns."""
    batch, height, width, _ = phases[0].shape
    rows = [jnp.stack(phases[:2], 3), jnp.stack(phases[2:], 3)]
    return jnp.stack(rows, 2).reshape(batch, 2 * height, 2 * width, -1)


def flat_matmul(x: Array, kernel: Array) -> Array:
    """x `[..., C]` @ kernel `[C, D]` over one long axis of rows.

    With several axes of rows, the gradient of the kernel sums over several axes, and XLA's CPU
    backend first transposes both factors to make them one.
    """
    return (x.reshape(-1, x.shape[-1]) @ kernel).reshape(*x.shape[:-1], -1)


def stride_to_channels(x: Array, size: int, stride: int) -> Array:
    """Pads x as 'SAME' does and folds each stride x stride square into channels.

    The taps of a strided convolution are then contiguous slices.
    """
    pads, blocks = [(0, 0)], []
    for n in x.shape[1:3]:
        outputs = -(-n // stride)
        reach = outputs + (size - 1) // stride  # blocks that the last output reads
        low = max((outputs - 1) * stride + size - n, 0) // 2
        pads.append((low, reach * stride - n - low))
        blocks.append(reach)
    x = lax.pad(x, jnp.zeros((), x.dtype), [(*pad, 0) for pad in [*pads, (0, 0)]])
    if stride == 1:
        return x
    batch, channels = x.shape[0], x.shape[-1]
    x = x.reshape(batch, blocks[0], stride, blocks[1], stride, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, *blocks, stride * stride * channels)


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


def upsample(x: Array, height: int, width: int) -> Array:
    """Repeats the pixels of x `[B, h, w, C]` as often as it takes, twice from 4 to 8 or to 7, and
    crops to height x width."""
    batch, h, w, channels = x.shape
    down, right = -(-height // h), -(-width // w)
    repeated = jnp.broadcast_to(x[:, :, None, :, None], (batch, h, down, w, right, channels))
    return repeated.reshape(batch, down * h, right * w, channels)[:, :height, :width]


def beside_latents(z: Array, label: Array | None, num_classes: int | None) -> Array:
    """z `[B, D]` with the embedding of a label beside it, of as many numbers, `[B, 2 D]`; or z
    where there are no classes. Called inside a network, whose table is named 'label'."""
    if num_classes is None:
        return z
    init = nn.initializers.normal(1.0)
    told = nn.Embed(num_classes, z.shape[-1], embedding_init=init, name='label')(label)
    return jnp.concatenate([z, told], -1)


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
