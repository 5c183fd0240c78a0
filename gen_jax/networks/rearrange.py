"""Arrays in other shapes: rows made one long axis, pixels folded into channels and back.

Images are `[B, H, W, C]`.
"""

import math

import jax.numpy as jnp
from jax import lax

from gen_jax.types import Array


def flat_matmul(x: Array, kernel: Array) -> Array:
    """x `[..., C]` @ kernel `[C, D]` over one long axis of rows.

    With several axes of rows, the gradient of the kernel sums over several axes, and XLA's CPU
    backend first transposes both factors to make them one.
    """
    return (x.reshape(-1, x.shape[-1]) @ kernel).reshape(*x.shape[:-1], -1)


def interleave(*phases: Array) -> Array:
    """An image `[B, n H, n W, C]` of n^2 `[B, H, W, C]`, of which each has one pixel of every n x n
    square: (0, 0), (0, 1), ..., (1, 0), ... of it."""
    batch, height, width, _ = phases[0].shape
    side = math.isqrt(len(phases))
    rows = [jnp.stack(phases[i : i + side], 3) for i in range(0, len(phases), side)]
    return jnp.stack(rows, 2).reshape(batch, side * height, side * width, -1)


def upsample(x: Array, height: int, width: int) -> Array:
    """Repeats the pixels of x `[B, h, w, C]` as often as it takes, twice from 4 to 8 or to 7, and
    crops to height x width."""
    batch, h, w, channels = x.shape
    down, right = -(-height // h), -(-width // w)
    repeated = jnp.broadcast_to(x[:, :, None, :, None], (batch, h, down, w, right, channels))
    return repeated.reshape(batch, down * h, right * w, channels)[:, :height, :width]


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
