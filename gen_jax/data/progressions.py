"""Four-part music made of arithmetic: pieces that need no files, and that a model can learn.

Each piece is a random walk over the chords of a major key, a chord a beat, from the tonic back to
the tonic by the dominant. Every voice goes to the note of the chord that is nearest to halfway from
where it was to the middle of its range, above the voice below; now and then the soprano takes a
passing note.
"""

import numpy as np

# Of soprano, alto, tenor and bass. Each reaches seven semitones higher than the one below, in which
# every triad has a note.
_RANGES = ((60, 81), (55, 74), (48, 67), (41, 60))
_SCALE = np.array([0, 2, 4, 5, 7, 9, 11])
_DEGREES = {0: (3, 4, 5, 1), 1: (4, 6), 3: (4, 1, 0), 4: (0, 5), 5: (1, 3), 6: (0,)}  # what follows
_FRAMES = 4  # of a chord


def make(num: int, seed: int) -> list[np.ndarray]:
    """`num` pieces, int8 `[T, 4]` as in `voices.py`; the same seed, the same pieces."""
    return [_piece(np.random.default_rng((seed, number))) for number in range(num)]


def _piece(rng: np.random.Generator) -> np.ndarray:
    degrees = [0]
    for _ in range(4 * rng.integers(2, 6) - 4):
        degrees.append(int(rng.choice(_DEGREES[degrees[-1]])))
    degrees += [3, 4, 0]
    key = int(rng.integers(12))
    chords, before = [], np.mean(_RANGES, axis=1)
    for degree in degrees:
        before = _voicing((key + _SCALE[(degree + np.arange(0, 5, 2)) % 7]) % 12, before)
        chords.append(before)
    piece = np.repeat(chords, _FRAMES, axis=0)
    scale = np.isin((np.arange(128) - key) % 12, _SCALE)
    for i in np.flatnonzero(rng.random(len(chords) - 1) < 0.5):
        now, then = chords[i][0], chords[i + 1][0]
        between = np.flatnonzero(scale[min(now, then) + 1 : max(now, then)]) + min(now, then) + 1
        if len(between):  # a passing note
            piece[(i + 1) * _FRAMES - _FRAMES // 2 : (i + 1) * _FRAMES, 0] = between[
                len(between) // 2
            ]
    return np.concatenate([piece, np.repeat(piece[-1:], _FRAMES, axis=0)]).astype(np.int8)


def _voicing(chord: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Pitches `[4]` of a chord whose first pitch class is the bass's, each near the one before."""
    voices, floor = [], 0
    for voice in reversed(range(4)):
        low, high = _RANGES[voice]
        classes = chord[:1] if voice == 3 else chord
        pitches = np.arange(max(low, floor + 1), high + 1)
        pitches = pitches[np.isin(pitches % 12, classes)]
        aim = (before[voice] + (low + high) / 2) / 2
        voices.insert(0, int(pitches[np.abs(pitches - aim).argmin()]))
        floor = voices[0]
    return np.array(voices)
