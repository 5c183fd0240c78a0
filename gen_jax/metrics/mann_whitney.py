"""How often a number of one sample lies above one of another: the Mann-Whitney statistic."""

import numpy as np


def mann_whitney(first: np.ndarray, second: np.ndarray) -> tuple[float, float | None]:
    """P(a > b) + P(a = b) / 2 over all pairs of `first` `[N]` and `second` `[M]`, and its standard
    error, from how it varies over the examples of each (DeLong 1988); None for a single example.
    NaN where one of them is."""
    if np.isnan(first).any() or np.isnan(second).any():
        return float('nan'), None
    rank = np.searchsorted
    low, high = np.sort(second), np.sort(first)
    of_first = (rank(low, first, 'left') + rank(low, first, 'right')) / (2 * len(second))
    of_second = (rank(high, second, 'left') + rank(high, second, 'right')) / (2 * len(first))
    share = float(of_first.mean())
    if min(len(first), len(second)) < 2:
        return share, None
    variance = of_first.var(ddof=1) / len(first) + of_second.var(ddof=1) / len(second)
    return share, float(np.sqrt(variance))
