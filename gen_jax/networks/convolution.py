"""Convolutions, and the forms of them that are fast on a CPU.

Images are `[B, H, W, C]`, kernels `[kernel height, kernel width, C in, C out]`.

On GPU and TPU a convolution is `lax.conv_general_dilated`. XLA's CPU backend is good at some
convolutions only: those of few channels feed its matrix unit badly, and where the kernel is larger
than the image that it slides over, not counting padding and holes, XLA swaps the two and runs the
turned kernel in naive loops, 50 times as slow. Among the gradients of a strided convolution, and
the gradients of those, are such. So there `conv` takes these as matrix products. Any gradient is
run in naive loops inside a loop or a branch of the program (parts of a batch, lazy turns): XLA
brings axes into the order that its quick code asks for outside of these only. So `padded_conv`
has them in that order from the start. Each form equals the plain one within float error.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from gen_jax.networks.rearrange import flat_matmul, interleave, stride_to_channels, upsample
from gen_jax.networks.winograd import halving_conv, is_for_winograd
from gen_jax.types import Array


def plain_conv(x: Array, kernel: Array, stride: int = 1) -> Array:
    """The convolution as XLA has it: x `[B, H, W, C]`, 'SAME' padding, no bias.

    With stride 2, a kernel of 3 x 3 and an even size, 'SAME' pads below and to the right only, as
    TensorFlow does and as the published DDPM networks were trained.
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
    if stride == 2 and is_for_winograd(x, kernel, 4):
        return halving_conv(x, kernel)
    if stride > 1 or inputs < 8 or size > min(x.shape[1:3]):
        return patches_conv(x, kernel, stride)
    if outputs < 8:
        return taps_conv(x, kernel)
    low = (size - 1) // 2
    return padded_conv(x, kernel, ((low, size - 1 - low),) * 2)


Pads = tuple[tuple[int, int], tuple[int, int]]


def padded_conv(x: Array, kernel: Array, pads: Pads) -> Array:
    """The convolution of stride 1 with `pads` of zeros above and below, left and right.

    On a CPU it has no derivatives forward (`jax.jvp`), only backward, of any order.
    """
    return (_closed_conv if jax.default_backend() == 'cpu' else _xla_conv)(x, kernel, pads)


def _xla_conv(x: Array, kernel: Array, pads: Pads) -> Array:
    return lax.conv_general_dilated(
        x, kernel, (1, 1), pads, dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _closed_conv(x: Array, kernel: Array, pads: Pads) -> Array:
    """`padded_conv` whose gradients are convolutions of its own kind, and so are theirs."""
    return _xla_conv(x, kernel, pads)


def _closed_conv_forward(x: Array, kernel: Array, pads: Pads) -> tuple[Array, tuple[Array, Array]]:
    return _closed_conv(x, kernel, pads), (x, kernel)


def _closed_conv_backward(
    pads: Pads, inputs: tuple[Array, Array], cotangent: Array
) -> tuple[Array, Array]:
    """From y[i] = sum_u x[i + u - low] K[u] follow dx[j] = sum_u dy[j + low - u] K[u]^T, with the
    kernel turned around, and dK[u] = sum_i x[i + u - low]^T dy[i], whose kernel is dy: channels of
    x are its examples, and examples its channels."""
    x, kernel = inputs
    turned = kernel[::-1, ::-1].swapaxes(2, 3)
    rest = tuple(
        (taps - 1 - low, taps - 1 - high)
        for taps, (low, high) in zip(kernel.shape[:2], pads, strict=True)
    )
    by_channel = _closed_conv(x.transpose(3, 1, 2, 0), cotangent.transpose(1, 2, 0, 3), pads)
    return _closed_conv(cotangent, turned, rest), by_channel.transpose(1, 2, 0, 3)


_closed_conv.defvjp(_closed_conv_forward, _closed_conv_backward)


def window_conv(x: Array, kernel: Array, stride: int = 1) -> Array:
    """The convolution with no padding ('VALID'), of a kernel of any size, for the backend."""
    rows, columns, inputs, outputs = kernel.shape
    if x.shape[1:3] == (rows, columns):  # one window
        return (x.reshape(len(x), -1) @ kernel.reshape(-1, outputs))[:, None, None]
    if stride == 1 and inputs >= 8:
        return padded_conv(x, kernel, ((0, 0), (0, 0)))
    if jax.default_backend() != 'cpu':
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
    """`plain_conv` as one matrix product with the patches under the kernel ('im2col')."""
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
    doubled = 2 * x.shape[1], 2 * x.shape[2]
    if jax.default_backend() != 'cpu' or (height, width) != doubled or min(doubled) == 2:
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
            phases.append(padded_conv(x, square.swapaxes(0, 1), ((1 - i, i), (1 - j, j))))
    return interleave(*phases)
