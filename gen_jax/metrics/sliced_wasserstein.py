"""The sliced Wasserstein distance: optimal transport along random lines (Rabin et al. 2011).

    (1) SW_2^2 = E_u integral_0^1 (F_u^-1(q) - G_u^-1(q))^2 dq,   u uniform on the unit sphere

with F_u and G_u the distributions of both samples projected on u. For samples of one size the
integral is the mean over pairs of the sorted projections; for others it is taken piece by piece.
"""

import numpy as np

_GROUPS = 10


def sliced_wasserstein(
    x: np.ndarray, y: np.ndarray, num_projections: int = 500, seed: int = 0
) -> tuple[float, float]:
    """SW_2 of x `[M, D]` and y `[N, D]`, and its standard error for these projections.

    The error is the delete-a-group jackknife's over x, with y taken as given.

    Raises:
      ValueError: fewer than ten examples of x.
    """
    if len(x) < _GROUPS:
        raise ValueError(f'sliced Wasserstein distance of {len(x)} examples; {_GROUPS} are needed')
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(x.shape[1], num_projections))
    directions /= np.linalg.norm(directions, axis=0)
    x, y = (np.asarray(a, np.float64) @ directions for a in (x, y))
    y = np.sort(y, axis=0)
    order = np.argsort(x, axis=0)
    x, group = np.take_along_axis(x, order, 0), order % _GROUPS  # shuffled or not, groups are even
    value = _distance(x, y)
    without = []
    for number in range(_GROUPS):
        left = x.T[(group != number).T].reshape(num_projections, -1).T  # sorted still
        without.append(_distance(left, y))
    return value, float(np.sqrt((_GROUPS - 1) * np.var(without)))


def _distance(x: np.ndarray, y: np.ndarray) -> float:
    """Equation (1) for sorted projections `[M, P]` and `[N, P]`."""
    # Between these quantiles both inverse distribution functions are constant.
    quantiles = np.union1d(np.arange(1, len(x) + 1) / len(x), np.arange(1, len(y) + 1) / len(y))
    widths = np.diff(quantiles, prepend=0)
    middle = quantiles - widths / 2
    gap = x[(middle * len(x)).astype(int)] - y[(middle * len(y)).astype(int)]
    return float(np.sqrt((widths @ gap**2).mean()))
