"""Affine maps of images: of pixels to pixels, and of places between them.

A map is a matrix A `[B, 3, 3]` for each image that says where an output pixel is read:

    (1) y(q) = x(A q),   q = (row, column, 1) from the center of the image, in pixels

so the product of two maps, A B, is what A makes of x, and B of that. Beyond its edges x goes on as
its mirror image, without the edge pixel twice, as often as it takes.

Between pixels x is what a low-pass filter h says of it at twice the resolution, interpolated
linearly; h then brings y down again, so that what was shrunk does not alias (Karras et al. 2020a,
appendix B):

    (2) u = up(x) = sum_i x_i 2 h(j/2 - 1/4 - i),   y_i = sum_j h(j/2 - 1/4 - i) u(A q_j)

Here h is a root raised cosine with rolloff 1/2, cut to 16 taps and of sum 1. It is symmetric, so
that turned and mirrored images stay in their place, and within 1 % it is orthogonal to its shifts,
so that (2) is the identity where A is. The paper's sym6 wavelet is that exactly, but it leans to
one side: what is mirrored moves by 0.4 pixels, which is much in a small image. Where h is symmetric
u mirrors itself as x does, and its values on the image are enough.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from gen_jax.types import Array

_TAPS, _ROLLOFF = 16, 0.5
# Pixels of u that h reads beyond the first and the last pixel.
_REACH = _TAPS // 2 - 1


def scaling(rows: Array, columns: Array) -> Array:
    """The maps that enlarge by these factors, `[B]`."""
    return _matrices([[1 / rows, 0, 0], [0, 1 / columns, 0], [0, 0, 1]])


def translation(rows: Array, columns: Array) -> Array:
    """The maps that move what is seen down and right by so many pixels, `[B]`."""
    return _matrices([[1, 0, -rows], [0, 1, -columns], [0, 0, 1]])


def rotation(cosine: Array, sine: Array) -> Array:
    """The maps that turn what is seen counterclockwise, by the angle of this cosine and sine."""
    return _matrices([[cosine, sine, 0], [-sine, cosine, 0], [0, 0, 1]])


def moved(x: Array, matrix: Array) -> Array:
    """Equation (1) of x `[B, H, W, C]`, for maps of pixels to pixels: the nearest one is read."""
    height, width = x.shape[1:3]
    rows, columns = _read_at(matrix, np.arange(height), np.arange(width), (height, width))
    return _at(x, _nearest(rows, height), _nearest(columns, width))


def warped(x: Array, matrix: Array) -> Array:
    """Equations (1) and (2) of x `[B, H, W, C]`, height and width at least 2."""
    height, width = x.shape[1:3]
    doubled = _resample(x, _up(height), _up(width))
    places = [(np.arange(2 * n + 2 * _REACH) - _REACH) / 2 - 0.25 for n in (height, width)]
    rows, columns = _read_at(matrix, *places, (height, width))
    sampled = _bilinear(doubled, 2 * fold(rows, height) + 0.5, 2 * fold(columns, width) + 0.5)
    return _resample(sampled, _down(height), _down(width))


def fold(place: Array | np.ndarray, n: int) -> Array | np.ndarray:
    """Where in 0 ... n - 1 a place on the line is that goes on as its mirror image."""
    return n - 1 - abs(place % (2 * n - 2) - (n - 1))


def _matrices(rows: list[list[Array | int]]) -> Array:
    """The matrices `[B, 3, 3]` with these entries, each `[B]` or the same for all."""
    entries = jnp.broadcast_arrays(*(jnp.asarray(e, jnp.float32) for row in rows for e in row))
    return jnp.stack(entries, -1).reshape(-1, len(rows), len(rows))


def _read_at(
    matrix: Array, rows: np.ndarray, columns: np.ndarray, size: tuple[int, int]
) -> tuple[Array, Array]:
    """A q for all q of these rows and columns, as rows and columns, each `[B, rows, columns]`.

    All are counted from the first pixel, not from the center.
    """
    middle = [(n - 1) / 2 for n in size]
    rows = jnp.asarray(rows - middle[0], jnp.float32)[:, None]
    columns = jnp.asarray(columns - middle[1], jnp.float32)[None, :]
    entry = matrix[:, :, :, None, None]
    return tuple(
        entry[:, i, 0] * rows + entry[:, i, 1] * columns + entry[:, i, 2] + middle[i]
        for i in range(2)
    )


def _nearest(place: Array, n: int) -> Array:
    return fold(jnp.floor(place + 0.5).astype(jnp.int32), n)


def _bilinear(u: Array, rows: Array, columns: Array) -> Array:
    """u between its pixels, at places within it."""
    row, column = jnp.floor(rows), jnp.floor(columns)
    down, right = (rows - row)[..., None], (columns - column)[..., None]
    row, column = row.astype(jnp.int32), column.astype(jnp.int32)
    above = (1 - right) * _at(u, row, column) + right * _at(u, row, column + 1)
    below = (1 - right) * _at(u, row + 1, column) + right * _at(u, row + 1, column + 1)
    return (1 - down) * above + down * below


def _at(x: Array, rows: Array, columns: Array) -> Array:
    """The pixels of x `[B, H, W, C]` at int32 places `[B, h, w]`, which exist."""
    batch, height, width, channels = x.shape
    index = (rows * width + columns).reshape(batch, -1, 1)
    flat = x.reshape(batch, height * width, channels)
    picked = jnp.take_along_axis(flat, index, 1, mode='promise_in_bounds')
    return picked.reshape(*rows.shape, channels)


def _resample(x: Array, rows: np.ndarray, columns: np.ndarray) -> Array:
    """One matrix for all columns of x `[B, H, W, C]`, one for its rows."""
    product = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
    return product('jw,biwc->bijc', columns, product('ih,bhwc->biwc', rows, x))


@functools.cache
def _up(n: int) -> np.ndarray:
    """The matrix from n pixels, mirrored beyond them, to 2 n: the first half of (2)."""
    source = np.arange(-_TAPS, n + _TAPS)
    return 2 * _weights(np.arange(2 * n), source) @ np.eye(n, dtype=np.float32)[fold(source, n)]


@functools.cache
def _down(n: int) -> np.ndarray:
    """The matrix from 2 n pixels and `_REACH` on both sides to n: the other half."""
    return _weights(np.arange(2 * n + 2 * _REACH) - _REACH, np.arange(n)).T


def _weights(doubled: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """h(j/2 - 1/4 - i) for each pixel j at twice the resolution and each i, float32."""
    t = (np.arange(_TAPS) - (_TAPS - 1) / 2) / 2
    b = _ROLLOFF
    taps = np.sin(np.pi * t * (1 - b)) + 4 * b * t * np.cos(np.pi * t * (1 + b))
    taps = taps / (t * (1 - (4 * b * t) ** 2))
    tap = doubled[:, None] - 2 * pixels[None, :] + _REACH
    inside = (tap >= 0) & (tap < _TAPS)
    return np.where(inside, (taps / taps.sum())[tap % _TAPS], 0).astype(np.float32)
