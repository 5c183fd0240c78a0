"""The mean over what examples hold, where they do not all hold equally much."""

import numpy as np


def ratio(totals: np.ndarray, counts: np.ndarray) -> tuple[float, float | None]:
    """sum(totals) / sum(counts), both `[N]`, and its standard error where examples are independent
    (Cochran 1977, equation 6.13, for a large population); None for a single example."""
    n, mean = len(totals), float(totals.sum() / counts.sum())
    if n < 2:
        return mean, None
    variance = ((totals - mean * counts) ** 2).sum() / (n - 1)
    return mean, float(np.sqrt(n * variance) / counts.sum())
