"""How evenly the codes of a quantizer are used, over a whole set of examples."""

import numpy as np


def usage(codes: np.ndarray, num_codes: int) -> float:
    """The share of codes that occur in `[N, positions, depth]`, each below `num_codes`; the mean
    over the depth, whose codes are of codebooks of their own."""
    return float(np.mean([np.count_nonzero(count) / num_codes for count in _counts(codes)]))


def perplexity(codes: np.ndarray) -> float:
    """exp of the entropy of the codes' frequencies, so from 1 to their number; the mean over the
    depth."""
    values = []
    for count in _counts(codes):
        share = count[count > 0] / count.sum()
        values.append(np.exp(-np.sum(share * np.log(share))))
    return float(np.mean(values))


def _counts(codes: np.ndarray) -> list[np.ndarray]:
    """How often each code occurs, for each place in the depth."""
    of_each = np.moveaxis(codes, -1, 0).reshape(codes.shape[-1], -1)
    return [np.bincount(own.astype(np.int64)) for own in of_each]
