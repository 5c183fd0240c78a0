"""The Fréchet distance between Gaussians fitted to two sets of features.

    (1) d^2 = |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))           (Dowson & Landau 1982)
    (2) tr (C1 C2)^(1/2) = sum_i lambda_i^(1/2),  lambda the eigenvalues of A^T C2 A,  C1 = A A^T
    (3) two parts of a sample of n = n1 + n2, with means m1, m2 and scatters S1, S2:
        m = m1 + (m2 - m1) n2 / n,  S = S1 + S2 + (m2 - m1)(m2 - m1)^T n1 n2 / n  (Chan et al. 1979)

On the features of one particular Inception network this is FID (Heusel et al. 2017); on any other
features it is not. (2) needs only symmetric eigenvalues, which never come out complex, where the
usual square root of the product C1 C2 can. Everything is float64.

The distance of finite samples is biased upward, by more the fewer and the wider the features are;
it compares only with distances of as many samples.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np


class Moments(NamedTuple):
    """What (1) needs of a sample of n features: mean `[D]`, and the scatter `[D, D]` about it."""

    n: int
    mean: np.ndarray
    scatter: np.ndarray

    @property
    def covariance(self) -> np.ndarray:
        """`[D, D]`, unbiased (n - 1), as the published FID code has it."""
        return self.scatter / (self.n - 1)


def moments(features: np.ndarray) -> Moments:
    """Moments of features `[N, D]`."""
    features = np.asarray(features, np.float64)
    mean = features.mean(0)
    centered = features - mean
    return Moments(len(features), mean, centered.T @ centered)


def merge(parts: Iterable[Moments]) -> Moments:
    """Moments of the whole sample from those of its parts: equation (3)."""
    parts = iter(parts)
    n, mean, scatter = next(parts)
    for part in parts:
        total, gap = n + part.n, part.mean - mean
        scatter = scatter + part.scatter + np.outer(gap, gap) * (n * part.n / total)
        mean = mean + gap * (part.n / total)
        n = total
    return Moments(n, mean, scatter)


def frechet_distance(first: Moments, second: Moments) -> float:
    """Equation (1), squared as everybody reports it; at least 0.

    Raises:
      ValueError: features of different width, or fewer than two of them.
    """
    if first.mean.shape != second.mean.shape:
        raise ValueError(f'features of {first.mean.size} and of {second.mean.size} dimensions')
    if min(first.n, second.n) < 2:
        raise ValueError('a covariance needs at least two examples')
    values, vectors = np.linalg.eigh(first.covariance)
    root = vectors * np.sqrt(values.clip(0))  # A of (2)
    cross = np.linalg.eigvalsh(root.T @ second.covariance @ root)
    gap = first.mean - second.mean
    spread = np.trace(first.covariance) + np.trace(second.covariance)
    return float(max(gap @ gap + spread - 2 * np.sqrt(cross.clip(0)).sum(), 0.0))


def frechet_with_error(
    features: np.ndarray, reference: Moments, num_groups: int = 10
) -> tuple[float, float]:
    """The distance of features `[N, D]` from a reference, and its standard error.

    The error is the delete-a-group jackknife's over the features (Quenouille 1956), the reference
    taken as given; moments merge, so each of its distances costs one decomposition.
    """
    groups = min(num_groups, len(features) // 2)
    if groups < 2:
        raise ValueError(f'a distance with an error of {len(features)} examples; it needs 4')
    parts = [moments(part) for part in np.array_split(features, groups)]
    value = frechet_distance(merge(parts), reference)
    without = [
        frechet_distance(merge(parts[:i] + parts[i + 1 :]), reference) for i in range(groups)
    ]
    return value, float(np.sqrt((groups - 1) * np.var(without)))
