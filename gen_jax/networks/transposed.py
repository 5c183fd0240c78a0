"""Transposed convolutions of stride 2: each pixel adds its kernel to an image of twice the size.

    (1) y[2 i + u - low, 2 j + v - low] += x[i, j] K[u, v],   low = (size - 1) // 2

for 0 <= u, v < size; what falls outside y is dropped. K is `[size, size, C in, C out]`. With a
size of 4 this is PyTorch's `ConvTranspose2d(4, stride=2, padding=1)`, with 3 that of padding 1 and
output padding 1. The `whole` of y has low = 0, and 2 H + size - 2 rows: nothing falls outside.

XLA has (1) as a convolution of an image with holes, whose gradients its CPU backend runs in naive
loops (see `convolution`). So there forms without holes take its place, each equal to the plain one
within float error: that of taps for few output channels, whose sums are small, and for images of
one row or column; else Winograd's for what it takes, and that of phases for the rest.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from gen_jax.errors import InputError
from gen_jax.networks.convolution import padded_conv
from gen_jax.networks.layers import kernel_init, with_weights
from gen_jax.networks.rearrange import flat_matmul, interleave
from gen_jax.networks.winograd import doubling_conv, is_for_winograd
from gen_jax.types import Array


def conv_transpose(x: Array, kernel: Array, *, whole: bool = False) -> Array:
    """Equation (1) in the form that suits the backend: x `[B, H, W, C]` to `[B, 2 H, 2 W, F]`, or
    to the whole of y."""
    if jax.default_backend() != 'cpu':
        return plain_conv_transpose(x, kernel, whole=whole)
    if kernel.shape[-1] < 16 or min(x.shape[1:3]) == 1:
        return taps_conv_transpose(x, kernel, whole=whole)
    if not whole and is_for_winograd(x, kernel, 2):
        return doubling_conv(x, kernel)
    return phases_conv_transpose(x, kernel, whole=whole)


def _low(size: int, whole: bool) -> int:
    return 0 if whole else (size - 1) // 2


def _height(pixels: int, size: int, whole: bool) -> int:
    """Rows of y for so many of x, and columns alike."""
    return 2 * pixels + (size - 2 if whole else 0)


def plain_conv_transpose(x: Array, kernel: Array, *, whole: bool = False) -> Array:
    """Equation (1) as XLA has it."""
    size = len(kernel)
    low = _low(size, whole)
    pad = (size - 1 - low, size - 1 if whole else low + 1)
    return lax.conv_general_dilated(
        x,
        kernel[::-1, ::-1],
        (1, 1),
        (pad, pad),
        lhs_dilation=(2, 2),
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )


def phases_conv_transpose(x: Array, kernel: Array, *, whole: bool = False) -> Array:
    """Equation (1) as four convolutions, one for the outputs of each phase: in a row, even ones see
    the taps u whose u - low is even, odd ones the others."""
    size, low = len(kernel), _low(len(kernel), whole)
    height, width = (_height(pixels, size, whole) for pixels in x.shape[1:3])
    more = -(-height // 2) - x.shape[1]  # outputs of a phase beyond those of x's pixels
    # As many inputs as outputs, else a gradient slides a kernel over an image that is smaller.
    x = jnp.pad(x, ((0, 0), (0, more), (0, more), (0, 0)))
    parts = []
    for phase in (0, 1):
        taps = [u for u in reversed(range(size)) if (u - low) % 2 == phase]
        # Output 2 m + phase reads pixel m - (u - low) // 2.
        pad = ((taps[0] - low) // 2, -((taps[-1] - low) // 2))
        parts.append((slice(taps[0], None, -2), pad))
    image = interleave(
        *(
            padded_conv(x, kernel[rows, columns], (row_pad, column_pad))
            for rows, row_pad in parts
            for columns, column_pad in parts
        )
    )
    return image[:, :height, :width]


def taps_conv_transpose(x: Array, kernel: Array, *, whole: bool = False) -> Array:
    """Equation (1) as one matrix product for what each tap adds, then shifted sums.

    Taps (2 a + r, 2 b + s) of one (a, b) add to one 2 x 2 square of outputs: so there are a quarter
    as many sums as taps, of squares, which are unfolded at the end.
    """
    size, _, inputs, outputs = kernel.shape
    height, width = (_height(pixels, size, whole) for pixels in x.shape[1:3])
    low, half = _low(size, whole), -(-size // 2)
    even = (0, 2 * half - size)
    squares = jnp.pad(kernel, (even, even, (0, 0), (0, 0)))
    squares = squares.reshape(half, 2, half, 2, inputs, outputs).transpose(4, 0, 2, 1, 3, 5)
    added = flat_matmul(x, squares.reshape(inputs, -1))
    total = 0
    for a in range(half):
        for b in range(half):
            start = (a * half + b) * 4 * outputs
            pads = ((0, 0), (a, half - 1 - a), (b, half - 1 - b), (0, 0))
            total = total + jnp.pad(added[..., start : start + 4 * outputs], pads)
    image = interleave(*jnp.split(total, 4, -1))
    return image[:, low : low + height, low : low + width]


class ConvTranspose(nn.Module):
    """A layer of equation (1): `[B, H, W, C]` to `[B, 2 H, 2 W, features]`.

    Raises:
      InputError: a kernel that leaves pixels out.
    """

    features: int
    size: int = 4
    kernel_init: nn.initializers.Initializer = kernel_init
    bias: bool = True
    dtype: str = 'float32'

    def __post_init__(self):
        if self.size < 2:
            raise InputError(f'size: {self.size} must be at least 2, to reach every pixel')
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x, kernel, bias = with_weights(self, x, self.size, self.kernel_init, bias=self.bias)
        return conv_transpose(x, kernel) + bias
