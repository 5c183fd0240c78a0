"""What music in four voices is like.

Pieces are int `[T, 4]` each: MIDI pitches of soprano, alto, tenor and bass by frames, -1 where one
is silent. A note begins where a voice sounds a pitch that it did not sound in the frame before.
Every function takes pieces of any lengths and gives a value and its standard error over pieces,
which is None for a single one.

    (1) in_range        the share of notes that lie between the lowest and the highest pitch that
                        their voice has in the training set
    (2) crossing        the share of frames, of those in which two voices or more sound, where one
                        lies below another that should be under it
    (3) pitch_classes   1/2 sum_c |p_c - q_c|: the total variation distance between how long samples
                        and how long the reference sound each of the twelve pitch classes, 0 to 1;
                        above 0 even between samples of one law, the more the smaller they are
"""

from collections.abc import Iterable

import numpy as np

from gen_jax.metrics.ratio import ratio

Pieces = Iterable[np.ndarray]


def ranges(pieces: Pieces) -> np.ndarray:
    """The lowest and the highest pitch of each voice, int `[4, 2]`.

    Raises:
      ValueError: a voice that never sounds.
    """
    steps = np.concatenate(list(pieces)).astype(int)
    if not (steps >= 0).any(0).all():
        raise ValueError('a voice never sounds, so it has no range')
    low = np.where(steps < 0, 128, steps).min(0)
    return np.stack([low, steps.max(0)], axis=1)


def in_range(pieces: Pieces, of_voices: np.ndarray) -> tuple[float, float | None]:
    """Equation (1); `of_voices` is what `ranges` says of the training set.

    Raises:
      ValueError: there are no notes.
    """
    low, high = of_voices.T
    rows = []
    for piece in pieces:
        before = np.concatenate([np.full_like(piece[:1], -1), piece[:-1]])
        begins = (piece >= 0) & (piece != before)
        rows.append(((begins & (piece >= low) & (piece <= high)).sum(), begins.sum()))
    return _share(rows, 'notes')


def crossing(pieces: Pieces) -> tuple[float, float | None]:
    """Equation (2).

    Raises:
      ValueError: two voices never sound together.
    """
    rows = []
    for piece in pieces:
        # The lowest pitch of this voice and those above it; silent voices change nothing.
        above = np.minimum.accumulate(np.where(piece < 0, 128, piece.astype(int)), axis=1)
        crossed = ((piece[:, 1:] >= 0) & (piece[:, 1:] > above[:, :-1])).any(1)
        rows.append((crossed.sum(), ((piece >= 0).sum(1) > 1).sum()))
    return _share(rows, 'frames in which two voices sound')


def pitch_classes(pieces: Pieces, reference: Pieces) -> tuple[float, float | None]:
    """Equation (3), and the jackknife's standard error over the pieces of both.

    Raises:
      ValueError: one of them is silent.
    """
    counts, others = _histograms(pieces), _histograms(reference)
    if not len(counts) or not len(others):
        raise ValueError('no notes, so no pitch classes')
    p, q = counts.sum(0), others.sum(0)
    if min(len(counts), len(others)) < 2:
        return float(_distance(p, q)), None
    variance = sum(
        (len(left_out) - 1) * np.var(left_out)
        for left_out in (_distance(p - counts, q), _distance(p, q - others))
    )
    return float(_distance(p, q)), float(np.sqrt(variance))


def _histograms(pieces: Pieces) -> np.ndarray:
    """How many frames of each piece sound each pitch class, `[N, 12]`; silent pieces left out."""
    counts = [np.bincount(piece[piece >= 0] % 12, minlength=12) for piece in pieces]
    return np.array([row for row in counts if row.any()])


def _distance(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Half the sum of |p - q|, both `[..., 12]` and scaled to sum to 1."""
    p, q = (np.asarray(h) / h.sum(-1, keepdims=True) for h in (p, q))
    return np.abs(p - q).sum(-1) / 2


def _share(rows: list[tuple[int, int]], what: str) -> tuple[float, float | None]:
    totals, counts = np.array(rows, float).reshape(-1, 2).T
    if not counts.any():
        raise ValueError(f'no {what}')
    return ratio(totals, counts)
