"""Music as tokens: what an encoding is, and how its training windows are transposed."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gen_jax.types import DataSpec


class Unsuitable(ValueError):
    """A file that cannot be encoded; the message says why in a few words."""


class Encoding(NamedTuple):
    """A way from pieces to tokens.

    spec: of windows, but for their shape.
    start: START of the stream, int `[F]`, a frame of start tokens.
    per_token: float32 `[V, U]`, how many of each of the spec's units a token makes.
    pitches: int `[V]`, the MIDI pitch that a token stands for and that may be transposed, or -1.
    compass: the lowest and the highest pitch that transposition leads to.
    of_voices: a piece in voices, int8 `[T, 4]`, to tokens; see `voices.py`.
    of_file: a MIDI file to tokens; raises Unsuitable.
    """

    spec: DataSpec
    start: np.ndarray
    per_token: np.ndarray
    pitches: np.ndarray
    compass: tuple[int, int]
    of_voices: Callable[[np.ndarray], np.ndarray]
    of_file: Callable[[Path], np.ndarray]


def transposition(encoding: Encoding, most: int) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """A function `(tokens [B, L], bits [B]) -> tokens` that moves every row by some semitones.

    All pitches of a row move by the same number, one of those from -most to most that keep them
    within the compass, all equally likely; a row that reaches beyond it already moves no further
    out on that side. Bits of zero leave the row as it is. `encoding.pitches` must rise by one from
    each token that stands for a pitch to the next.
    """
    pitches = encoding.pitches
    lowest, highest = encoding.compass

    def change(tokens: np.ndarray, bits: np.ndarray) -> np.ndarray:
        pitch = pitches[tokens]
        sounds = pitch >= 0
        down = np.where(sounds, pitch, highest).min(1) - lowest
        up = highest - np.where(sounds, pitch, lowest).max(1)
        down, up = np.clip(down, 0, most), np.clip(up, 0, most)
        # 0 for bits of zero, and each of down + up + 1 moves for as many remainders.
        remainder = (bits % (down + up + 1).astype(np.uint64)).astype(np.int64)
        moves = np.where(remainder > up, remainder - (down + up + 1), remainder)
        return np.where(sounds, tokens + moves[:, None], tokens).astype(tokens.dtype)

    return change
