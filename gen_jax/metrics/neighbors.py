"""Exact nearest neighbors between sets of features, in blocks, float64.

    (1) |x - y|^2 = |x|^2 + |y|^2 - 2 x . y

Matrix products make (1) as fast as the machine; in float64 its rounding error is far below the gaps
that matter, and in float32 it would not be.
"""

from collections.abc import Iterator

import numpy as np

_CHUNK = 1024  # rows of a distance matrix that are held at once


def distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Equation (1)'s root: `[M, N]` distances of x `[M, D]` to y `[N, D]`, float64."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    squares = (x * x).sum(1)[:, None] + (y * y).sum(1) - 2 * x @ y.T
    return np.sqrt(squares.clip(0))


def distance_blocks(x: np.ndarray, y: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Distances of x `[M, D]` to y `[N, D]`, rows in blocks: (which rows, `[rows, N]`)."""
    for start in range(0, len(x), _CHUNK):
        rows = slice(start, min(start + _CHUNK, len(x)))
        yield rows, distances(x[rows], y)


def nearest(x: np.ndarray, y: np.ndarray, k: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest of y for each x: distances and positions in y, both `[M, k]`, nearest first.

    Raises:
      ValueError: y has fewer than k.
    """
    if len(y) < k:
        raise ValueError(f'{k} nearest neighbors among {len(y)} examples')
    found, positions = np.empty((len(x), k)), np.empty((len(x), k), np.int64)
    for rows, block in distance_blocks(x, y):
        near = np.argpartition(block, k - 1, axis=1)[:, :k]
        # Once more, without the rounding of (1): a copy is at distance 0.
        exact = np.linalg.norm(np.asarray(x[rows], np.float64)[:, None] - y[near], axis=-1)
        order = np.argsort(exact, axis=1, kind='stable')
        found[rows] = np.take_along_axis(exact, order, 1)
        positions[rows] = np.take_along_axis(near, order, 1)
    return found, positions


def radii(x: np.ndarray, k: int) -> np.ndarray:
    """The distance `[M]` of each x to its k-th nearest other one of x."""
    return nearest(x, x, k + 1)[0][:, k]  # each is its own nearest
