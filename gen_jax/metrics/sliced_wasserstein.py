"""The sliced Wasserstein distance: optimal transport along random lines (Rabin et al. 2011).

    (1) SW_2^2 = E_u integral_0^1 (F_u^-1(q) - G_u^-1(q))^2 dq,   u uniform on the unit sphere

with F_u and G_u the distributions of both samples projected on u. For samples of one size the
integral is the mean over pairs of the sorted projections; for others it is taken piece by piece.
"""

import numpy as np


def sliced_wasserstein(
    x: np.ndarray, y: np.ndarray, num_projections: int = 500, seed: int = 0
) -> tuple[float, float]:
    """SW_2 of x `[M, D]` and y `[N, D]`, and its standard error over the projections."""
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(x.shape[1], num_projections))
    directions /= np.linalg.norm(directions, axis=0)
    x, y = (np.sort(np.asarray(a, np.float64) @ directions, axis=0) for a in (x, y))
    # Between these quantiles both inverse distribution functions are constant.
    quantiles = np.union1d(np.arange(1, len(x) + 1) / len(x), np.arange(1, len(y) + 1) / len(y))
    widths = np.diff(quantiles, prepend=0)
    middle = quantiles - widths / 2
    gap = x[(middle * len(x)).astype(int)] - y[(middle * len(y)).astype(int)]
    squares = widths @ gap**2
    value = np.sqrt(squares.mean())
    error = squares.std(ddof=1) / np.sqrt(num_projections)
    return float(value), float(error / (2 * value) if value > 0 else 0.0)  # by the delta method
