"""Maximum mean discrepancy: how far two samples are apart for a kernel (Gretton et al. 2012).

    (1) MMD^2 = 1/(m(m-1)) sum_{i != j} k(x_i, x_j) + 1/(n(n-1)) sum_{i != j} k(y_i, y_j)
                - 2/(mn) sum_{i, j} k(x_i, y_j)                     unbiased, and at times below 0
    (2) KID: k(x, y) = (x . y / D + 1)^3                               (Binkowski et al. 2018)
    (3) Gaussian: k(x, y) = exp(-|x - y|^2 / (2 h^2)), h the median distance within the second
        sample, which is the real one: so all models are measured with one kernel

Both are computed on all pairs. The published KID averages (1) over random subsets, which has the
same expectation and a larger variance. The standard error is the jackknife's: leaving out x_i
changes (1) by the sums of its row of the kernel, so the error costs no further pair.
"""

from collections.abc import Callable

import numpy as np

from gen_jax.metrics.neighbors import distances

Kernel = Callable[[np.ndarray, np.ndarray], np.ndarray]  # [M, D], [N, D] -> [M, N]

_CHUNK = 2048  # rows of a kernel matrix that are held at once


def mmd(x: np.ndarray, y: np.ndarray, kernel: Kernel) -> tuple[float, float]:
    """Equation (1) for samples x `[M, D]` and y `[N, D]`, and its standard error.

    Raises:
      ValueError: fewer than three examples in a sample.
    """
    m, n = len(x), len(y)
    if min(m, n) < 3:
        raise ValueError(f'MMD of {m} and {n} examples; it needs at least 3 of each')
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    xx, yy = _row_sums(x, x, kernel)[0], _row_sums(y, y, kernel)[0]
    xx, yy = xx - _diagonal(x, kernel), yy - _diagonal(y, kernel)
    xy, yx = _row_sums(x, y, kernel)

    def value(within_x, within_y, across, m, n):
        return within_x / (m * (m - 1)) + within_y / (n * (n - 1)) - 2 * across / (m * n)

    whole = value(xx.sum(), yy.sum(), xy.sum(), m, n)
    without_x = value(xx.sum() - 2 * xx, yy.sum(), xy.sum() - xy, m - 1, n)
    without_y = value(xx.sum(), yy.sum() - 2 * yy, xy.sum() - yx, m, n - 1)
    variance = (m - 1) * np.var(without_x) + (n - 1) * np.var(without_y)
    return float(whole), float(np.sqrt(variance))


def kid(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Equation (1) with the kernel (2), and its standard error."""
    return mmd(x, y, lambda a, b: (a @ b.T / a.shape[1] + 1) ** 3)


def gaussian_mmd(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Equation (1) with the kernel (3), and its standard error."""
    few = np.asarray(y[:: max(1, len(y) // 1000)], np.float64)
    width = np.median(distances(few, few)[np.triu_indices(len(few), 1)])
    return mmd(x, y, lambda a, b: np.exp(-0.5 * (distances(a, b) / width) ** 2))


def _row_sums(x: np.ndarray, y: np.ndarray, kernel: Kernel) -> tuple[np.ndarray, np.ndarray]:
    """Sums of the kernel matrix along its rows `[M]` and its columns `[N]`."""
    rows, columns = [], np.zeros(len(y))
    for start in range(0, len(x), _CHUNK):
        block = kernel(x[start : start + _CHUNK], y)
        rows.append(block.sum(1))
        columns += block.sum(0)
    return np.concatenate(rows), columns


def _diagonal(x: np.ndarray, kernel: Kernel) -> np.ndarray:
    blocks = (x[start : start + 64] for start in range(0, len(x), 64))
    return np.concatenate([np.diagonal(kernel(block, block)) for block in blocks])
