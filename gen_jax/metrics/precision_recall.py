"""Precision, recall, density and coverage: where samples lie among real examples, and the reverse.

With B_k(x) the ball around x that reaches to the k-th nearest other example of its own set:

    (1) precision  the share of samples that lie in some real ball      (Kynkaanniemi et al. 2019)
    (2) recall     the share of real examples that lie in some sample's ball
    (3) density    1/k times the mean number of real balls that a sample lies in (Naeem et al. 2020)
    (4) coverage   the share of real balls that hold some sample

All depend on both sample sizes and on k; compare only equals.
"""

import numpy as np

from gen_jax.metrics.neighbors import distance_blocks, radii


def precision_recall(
    real: np.ndarray, samples: np.ndarray, k: int = 5
) -> dict[str, tuple[float, float]]:
    """Equations (1) to (4) for features `[N, D]` and `[M, D]`: `{name: (value, standard error)}`.

    The error is that of the mean over the examples that are counted, the balls taken as given.

    Raises:
      ValueError: a set of k examples or fewer.
    """
    if min(len(real), len(samples)) <= k:
        raise ValueError(f'{len(real)} real and {len(samples)} examples; more than k = {k} needed')
    real_radii, sample_radii = radii(real, k), radii(samples, k)
    balls = np.zeros(len(samples))  # real balls that each sample lies in
    recalled = np.empty(len(real), bool)
    covered = np.empty(len(real), bool)
    for rows, distance in distance_blocks(real, samples):
        inside = distance < real_radii[rows, None]
        balls += inside.sum(0)
        recalled[rows] = (distance < sample_radii).any(1)
        covered[rows] = distance.min(1) < real_radii[rows]
    columns = {
        'precision': balls > 0,
        'recall': recalled,
        'density': balls / k,
        'coverage': covered,
    }
    return {
        name: (float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values))))
        for name, values in columns.items()
    }
