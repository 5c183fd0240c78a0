"""Do samples copy training examples? Distances to the nearest one, beside those of unseen data.

Samples of a model that has learned the distribution lie as far from the training set as unseen real
examples do. With d(x) the distance of x to its nearest training example, s samples and h held-out
examples of an equal number:

    (1) nearer  = P(d(s) < d(h)) + P(d(s) = d(h)) / 2      1/2 where samples are like unseen data;
                  the Mann-Whitney statistic, as in Meehan et al. 2020
    (2) copied  = P(d(s) <= q) - P(d(h) <= q),  q the 1 % quantile of d(h)      near duplicates
    (3) exact   = P(s is in the training set)                                   exact duplicates

(1) sees a model that leans towards its training set everywhere; (2) one that copies now and then.
A model is flagged where Fisher's exact test finds more near duplicates among the samples than among
held-out examples, or (1) lies above 1/2, each at half the level.
"""

import hashlib
from collections.abc import Set
from typing import NamedTuple

import numpy as np

from gen_jax.metrics.mann_whitney import mann_whitney
from gen_jax.metrics.neighbors import nearest

_NEAR = 0.01  # the quantile q of (2)


class Memorization(NamedTuple):
    """Equations (1) and (2) with standard errors, and the verdict."""

    nearer: float
    nearer_error: float
    copied: float
    copied_error: float
    p_value: float
    flagged: bool


def memorization(
    train: np.ndarray, samples: np.ndarray, held_out: np.ndarray, level: float = 0.01
) -> Memorization:
    """Measures features or pixels `[N, D]`; larger sets are cut so that both have one size,
    by taking examples spread evenly over them.

    `level` is the chance of flagging a model that draws real, unseen examples.

    Raises:
      ValueError: fewer than 20 samples or held-out examples.
    """
    from scipy import stats

    size = min(len(samples), len(held_out))
    if size < 20:
        raise ValueError(f'{len(samples)} samples, {len(held_out)} held out; at least 20 of each')
    ours, unseen = (nearest(_spread(a, size), train)[0][:, 0] for a in (samples, held_out))
    nearer, nearer_error = mann_whitney(unseen, ours)
    test = stats.mannwhitneyu(unseen, ours, alternative='greater')
    # A value of the sample: one between two would have fewer of `unseen` below it than of `ours`.
    limit = np.quantile(unseen, _NEAR, method='inverted_cdf')
    near, usual = int((ours <= limit).sum()), int((unseen <= limit).sum())
    table = [[near, size - near], [usual, size - usual]]
    copies = stats.fisher_exact(table, alternative='greater').pvalue
    p_value = min(1.0, 2 * min(test.pvalue, copies))  # Bonferroni, for two tests
    shares = near / size, usual / size
    return Memorization(
        nearer=nearer,
        nearer_error=nearer_error,
        copied=shares[0] - shares[1],
        copied_error=float(np.sqrt(sum(p * (1 - p) for p in shares) / size)),
        p_value=float(p_value),
        flagged=bool(p_value < level),
    )


def digests(examples: np.ndarray) -> set[bytes]:
    """What stands for each of examples `[N, ...]` when only their equality is asked."""
    return {hashlib.blake2b(example.tobytes(), digest_size=16).digest() for example in examples}


def exact_copies(train: Set[bytes], samples: np.ndarray) -> tuple[float, float]:
    """Equation (3) for the digests of the training examples, and its standard error."""
    copied = np.array([not digests(sample[None]).isdisjoint(train) for sample in samples], float)
    return float(copied.mean()), float(np.sqrt(copied.var() / len(copied)))


def _spread(a: np.ndarray, size: int) -> np.ndarray:
    return a[np.linspace(0, len(a) - 1, size).round().astype(int)]
