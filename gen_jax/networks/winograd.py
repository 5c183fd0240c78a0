"""Convolutions of 4 x 4 kernels and stride 2, and their transposes, with 9/16 of the products.

Of the four taps of an axis two fall on even pixels and two on odd ones, so each of these phases is
filtered by two taps, at stride 1. Two neighboring outputs of such a filter take three products
instead of four (F(2, 2) of Winograd 1980, as Lavin & Gray 2016 use his algorithms):

    (1) y_0 = d_0 g_0 + d_1 g_1 = (d_0 - d_1) g_0 + d_1 (g_0 + g_1)
    (2) y_1 = d_1 g_0 + d_2 g_1 = d_1 (g_0 + g_1) - (d_1 - d_2) g_1

Along both axes that is 9 instead of 16. Each is a product of matrices, pixels x channels by
channels x channels, which XLA's CPU backend is better at than at convolutions.
"""

import itertools

import jax.numpy as jnp
from jax import lax

from gen_jax.networks.rearrange import flat_matmul, interleave
from gen_jax.types import Array


def is_for_winograd(x: Array, kernel: Array, multiple: int) -> bool:
    """Whether these forms take an image, with sides that are multiples of `multiple`, and a kernel.

    Channels are at least 8, and numbers float32: differences would lose what bfloat16 has.
    """
    return (
        kernel.shape[:2] == (4, 4)
        and min(kernel.shape[2:]) >= 8
        and x.dtype == jnp.float32
        and not any(n % multiple for n in x.shape[1:3])
    )


def halving_conv(x: Array, kernel: Array) -> Array:
    """The convolution of stride 2 with a zero on each side of x `[B, H, W, C]`, whose sides are
    multiples of 4, and a kernel `[4, 4, C, F]`: `[B, H / 2, W / 2, F]`."""
    # Output i reads even pixels i and i + 1 (by taps 1 and 3), and odd ones i - 1 and i.
    data, taps = [], []
    for i in (0, 1):
        for j in (0, 1):
            rows = _differences(x[:, i::2, j::2], (i, 1 - i), 1)
            data.append([_differences(row, (j, 1 - j), 2) for row in rows])
            taps.append(_tap_sums(kernel[1 - i :: 2, 1 - j :: 2]))
    # The phases add up, which one product does for all of them.
    return interleave(*_filtered(_beside(data, -1), _beside(taps, 0)))


def doubling_conv(x: Array, kernel: Array) -> Array:
    """Equation (1) of `transposed` for x `[B, H, W, C]`, whose sides are multiples of 2, and a
    kernel `[4, 4, C, F]`: `[B, 2 H, 2 W, F]`."""
    # Even outputs 2 m read pixels m - 1 and m (by taps 3 and 1), odd ones 2 m + 1 read m and m + 1
    # (by taps 2 and 0). So of four pixels d_0 to d_3 in a row the two even outputs that belong to
    # them see d_0 to d_2, and the two odd ones d_1 to d_3.
    data = [_differences(row, (1, 1), 2) for row in _differences(x, (1, 1), 1)]
    phases = {}
    for i in (0, 1):
        for j in (0, 1):
            seen = [row[2 * j : 2 * j + 3] for row in data[2 * i : 2 * i + 3]]
            outputs = _filtered(seen, _tap_sums(kernel[3 - i :: -2, 3 - j :: -2]))
            for k, output in enumerate(outputs):
                phases[2 * (k // 2) + i, 2 * (k % 2) + j] = output
    return interleave(*(phases[place] for place in sorted(phases)))


def _differences(x: Array, pad: tuple[int, int], axis: int) -> list[Array]:
    """d_0 - d_1, d_1, d_1 - d_2, d_2, d_2 - d_3, ...: what products are taken with.

    d_k are the pixels k, k + 2, k + 4, ... of an axis with so many zeros before it and behind.
    """
    count, padding = x.shape[axis], [(0, 0)] * x.ndim
    padding[axis] = pad
    x = jnp.pad(x, padding)
    d = [lax.slice_in_dim(x, k, k + count - 1, 2, axis) for k in range(sum(pad) + 2)]
    found = [d[0] - d[1]]
    for this, following in itertools.pairwise(d[1:]):
        found += [this, this - following]
    return found


def _tap_sums(kernel: Array) -> list[list[Array]]:
    """g_0, g_0 + g_1, g_1 of rows, and in each of columns: of `[2, 2, C, F]` 3 x 3 of `[C, F]`."""

    def of_first_axis(taps: Array) -> list[Array]:
        return [taps[0], taps[0] + taps[1], taps[1]]

    return [of_first_axis(row) for row in of_first_axis(kernel)]


def _beside(grids: list[list[list[Array]]], axis: int) -> list[list[Array]]:
    """One 3 x 3 of several, side by side along `axis`."""
    return [
        [jnp.concatenate([grid[i][j] for grid in grids], axis) for j in range(3)] for i in range(3)
    ]


def _filtered(data: list[list[Array]], taps: list[list[Array]]) -> list[Array]:
    """Equations (1) and (2) along both axes: outputs (0, 0), (0, 1), (1, 0) and (1, 1) of each
    square, as many rows and columns as the data has."""

    def outputs(products: list[Array]) -> list[Array]:
        return [products[0] + products[1], products[1] - products[2]]

    products = [
        [flat_matmul(d, g) for d, g in zip(*rows, strict=True)]
        for rows in zip(data, taps, strict=True)
    ]
    by_row = [outputs(row) for row in products]
    by_column = [outputs(list(column)) for column in zip(*by_row, strict=True)]
    return [by_column[j][i] for i in (0, 1) for j in (0, 1)]
