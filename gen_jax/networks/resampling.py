"""Resampling of images through a filter, without aliases (Karras et al. 2019, 2020).

Along each axis of an image, with n_i = 0 where i / up is no whole number inside of x:

    (1) n_i = x_(i / up)                                 put up - 1 zeros behind each pixel
    (2) p = n with `low` zeros before it and `high` behind; as many less where they are negative
    (3) y_o = sqrt(gain) sum_k taps_k p_(down o + K - 1 - k)      convolve, keep each down-th

That is StyleGAN2's `upfirdn2d` for a filter that is the outer product of K taps with themselves.
Most of what (3) sums up are zeros: of K taps an output sees those of one phase, K / up of them. So
it is written as sums of shifted x for each phase, which need no convolution with holes or groups.
"""

import math
from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax

from gen_jax.errors import InputError
from gen_jax.networks.convolution import window_conv
from gen_jax.networks.transposed import conv_transpose
from gen_jax.types import Array

# Of a triangle that is four pixels wide, as in all of StyleGAN2.
BINOMIAL = (1, 3, 3, 1)


def upfirdn(
    x: Array,
    taps: Sequence[float],
    *,
    up: int = 1,
    down: int = 1,
    pad: tuple[int, int] = (0, 0),
    gain: float = 1.0,
) -> Array:
    """Equations (1) to (3) along both axes of x `[B, H, W, C]`, with taps as they are.

    Returns `[B, h, w, C]` of x's type, h = (H up + low + high - K) // down + 1, and w alike.

    Raises:
      InputError: fewer pixels than taps, or an argument out of its range.
    """
    if len(taps) < 1 or up < 1 or down < 1 or gain < 0:
        raise InputError(
            f'taps, up, down, gain: {taps}, {up}, {down}, {gain}: there must be taps, factors of '
            'at least 1 and a gain of at least 0'
        )
    taps = [math.sqrt(gain) * float(tap) for tap in taps]
    for axis in (1, 2):
        if x.shape[axis] * up + sum(pad) < len(taps):
            raise InputError(
                f'pad: {x.shape[axis]} pixels, {up} times as many, padded by {pad} are fewer than '
                f'{len(taps)} taps'
            )
        x = _upfirdn_axis(x, taps, up, down, pad, axis)
    return x


def filtered_upsample(x: Array, taps: Sequence[float] = BINOMIAL) -> Array:
    """x `[B, H, W, C]` to `[B, 2H, 2W, C]`; what is constant stays so, but for the border.

    Taps may have any sum but 0. With (1, 3, 3, 1), y_(2i) = (x_(i-1) + 3 x_i) / 4 and y_(2i+1) =
    (3 x_i + x_(i+1)) / 4: bilinear, with zeros around x.
    """
    size = len(taps)
    return upfirdn(x, _of_sum_1(taps), up=2, pad=((size + 1) // 2, (size - 2) // 2), gain=4)


def filtered_downsample(x: Array, taps: Sequence[float] = BINOMIAL) -> Array:
    """x `[B, H, W, C]` to `[B, H/2, W/2, C]`, of taps of any sum but 0, with zeros around x.

    With (1, 3, 3, 1), y_i = (x_(2i-1) + 3 x_(2i) + 3 x_(2i+1) + x_(2i+2)) / 8.
    """
    size = len(taps)
    return upfirdn(x, _of_sum_1(taps), down=2, pad=((size - 1) // 2, (size - 2) // 2))


def blur(
    x: Array,
    taps: Sequence[float] = BINOMIAL,
    *,
    pad: tuple[int, int] | None = None,
    gain: float = 1.0,
) -> Array:
    """x `[B, H, W, C]` filtered, of taps of any sum but 0, with zeros around x.

    Without `pad` to the same size; an even number of taps then moves the image by half a pixel, to
    the right and down.
    """
    size = len(taps)
    pad = (size // 2, (size - 1) // 2) if pad is None else pad
    return upfirdn(x, _of_sum_1(taps), pad=pad, gain=gain)


def filtered_upsample_conv(x: Array, kernel: Array, taps: Sequence[float] = BINOMIAL) -> Array:
    """x `[B, H, W, C]` with zeros between pixels, through a kernel `[3, 3, C, F]` and the filter:
    `[B, 2H, 2W, F]`.

    That is the convolution of `filtered_upsample(x)` with the kernel turned by half a circle, but
    for the border, with a quarter of its multiplications.
    """
    size = len(taps)
    pad = ((size - 1) // 2, (size - 2) // 2)
    return blur(conv_transpose(x, kernel, whole=True), taps, pad=pad, gain=4)


def filtered_downsample_conv(x: Array, kernel: Array, taps: Sequence[float] = BINOMIAL) -> Array:
    """The filter, and each second pixel of a convolution with a kernel `[3, 3, C, F]`: x
    `[B, H, W, C]` to `[B, H/2, W/2, F]`, with zeros around x."""
    size = len(taps)
    return window_conv(blur(x, taps, pad=((size + 1) // 2, size // 2)), kernel, 2)


def _of_sum_1(taps: Sequence[float]) -> list[float]:
    return [tap / sum(taps) for tap in taps]


def _upfirdn_axis(
    x: Array, taps: list[float], up: int, down: int, pad: tuple[int, int], axis: int
) -> Array:
    """Equations (1) to (3) along one axis, without the gain."""
    inputs, size = x.shape[axis], len(taps)
    length = inputs * up + sum(pad) - size + 1  # with down = 1
    outputs = -(-length // up)  # of each phase
    # Output up q + phase sees x_(q + offset) through these taps.
    seen = [[] for _ in range(up)]
    for phase in range(up):
        for k, tap in enumerate(taps):
            offset, rest = divmod(phase + size - 1 - k - pad[0], up)
            if rest == 0:
                seen[phase].append((offset, tap))
    offsets = [offset for terms in seen for offset, _ in terms]
    before = max(0, -min(offsets))
    behind = max(0, max(offsets) + outputs - inputs)
    padding = [(0, 0)] * x.ndim
    padding[axis] = (before, behind)
    padded = jnp.pad(x, padding)

    def shifted(offset: int) -> Array:
        start = before + offset
        return lax.slice_in_dim(padded, start, start + outputs, axis=axis)

    nothing = [(offsets[0], 0.0)]  # a phase that no tap falls on
    phases = [sum(tap * shifted(offset) for offset, tap in terms or nothing) for terms in seen]
    y = phases[0]
    if up > 1:
        shape = (*x.shape[:axis], up * outputs, *x.shape[axis + 1 :])
        y = jnp.stack(phases, axis + 1).reshape(shape)
    return lax.slice_in_dim(y, 0, length, stride=down, axis=axis)
