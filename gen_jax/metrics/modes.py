"""Which classes of its data a model draws, how clearly and how evenly, as a classifier sees them.

Of N samples with class probabilities p(y|x), n_k are of class k = argmax_y p(y|x); K classes:

    (1) confident        the share of samples with max_y p(y|x) > 0.9
    (2) modes            how many classes have at least one such sample
    (3) smallest_class   K min_k n_k / N, at most 1        where all classes are equally common
        largest_class    K max_k n_k / N, at least 1       both are 1
    (4) class_kl         sum_k p_k log(p_k / q_k), in nats,  p_k = n_k / N,
                         q_k = (m_k + 1/2) / (M + K/2)  of M real examples

(2) and (4) are told of stacked digits, K = 1,000 (Metz et al. 2017; Srivastava et al. 2017, and
others after them with 26,000 samples). There any sample counts for its class: (2), which wants a
clear one, is stricter. Srivastava et al. call the samples of (1) high-quality where the classes are
those of `features/mixture.py`. The half example in q_k keeps (4) finite where the real examples
lack a class; with 60 real ones in each class the difference is below what could be seen.

(1) is unbiased. Of finite samples (2) and smallest_class are biased downward, largest_class upward,
(4) upward by about (K - 1)/2 (1/N + 1/M): (2) to (4) compare only at equal N. All of them are of
what the classifier sees, right or wrong: what real, held-out examples get is the best there is.
"""

import numpy as np
from scipy import special


def mode_coverage(
    probabilities: np.ndarray, threshold: float = 0.9
) -> dict[str, tuple[float, float | None]]:
    """Equations (1) to (3) for `[N, K]`: `{name: (value, standard error)}`.

    The error of (1) is that of a mean, that of (2) the jackknife's, which is rather too large
    (Efron & Stein 1981). That of (3) takes it as given which class it is; where there is no sample
    of the smallest class it is None, for nothing tells how rare it is.

    Raises:
      ValueError: fewer than two samples.
    """
    num, num_classes = probabilities.shape
    if num < 2:
        raise ValueError(f'{num} samples to count classes of; use 2 or more')
    label, confident = probabilities.argmax(1), probabilities.max(1) > threshold
    clear = np.bincount(label[confident], minlength=num_classes)
    # Left out, the only sample of its class takes one from the count, and any other nothing.
    alone = np.count_nonzero(clear == 1) / num
    share = np.bincount(label, minlength=num_classes) / num
    times, errors = num_classes * share, num_classes * np.sqrt(share * (1 - share) / num)
    rarest, commonest = share.argmin(), share.argmax()
    error = float(errors[rarest]) if share[rarest] > 0 else None
    return {
        'confident': (float(confident.mean()), float(confident.std(ddof=1) / np.sqrt(num))),
        'modes': (float(np.count_nonzero(clear)), float(np.sqrt((num - 1) * alone * (1 - alone)))),
        'smallest_class': (float(times[rarest]), error),
        'largest_class': (float(times[commonest]), float(errors[commonest])),
    }


def class_kl(probabilities: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
    """Equation (4) for samples `[N, K]` and real examples `[M, K]`, and its standard error: by the
    jackknife over samples, with the real examples taken as given.

    Raises:
      ValueError: fewer than two samples.
    """
    num, num_classes = probabilities.shape
    if num < 2:
        raise ValueError(f'{num} samples to count classes of; use 2 or more')
    ours, real = (
        np.bincount(p.argmax(1), minlength=num_classes) for p in (probabilities, reference)
    )
    q = (real + 0.5) / (len(reference) + num_classes / 2)

    def divergence(count: np.ndarray) -> np.ndarray:
        return special.rel_entr(count / count.sum(-1, keepdims=True), q).sum(-1)

    present = np.flatnonzero(ours)
    without = divergence(ours - np.eye(num_classes)[present])  # one sample of each class present
    share = ours[present] / num
    spread = share @ (without - share @ without) ** 2
    return float(divergence(ours)), float(np.sqrt((num - 1) * spread))
