"""Transposition: by as much as asked, within the compass, and evenly."""

import numpy as np
import pytest

from gen_jax.data import voices
from gen_jax.data.encoding import transposition

ENCODING = voices.encoding()


def moved(row, most: int, bits) -> np.ndarray:
    bits = np.array(bits, np.uint64)
    tokens = np.tile(np.array(row, np.int32), (len(bits), 1))
    return transposition(ENCODING, most)(tokens, bits)


def test_bits_of_zero_leave_everything_and_all_moves_are_equally_likely():
    row = [60, 55, 128, 129, 50, 72]
    assert moved(row, 5, [0]).tolist() == [row]
    found = moved(row, 5, range(110))
    moves = found[:, 0] - 60
    assert np.unique(moves, return_counts=True)[1].tolist() == [10] * 11  # -5 to 5
    pitches = [0, 1, 4, 5]
    assert np.all(found[:, pitches] - np.array(row)[pitches] == moves[:, None])
    assert np.all(found[:, 2] == 128) and np.all(found[:, 3] == 129)


@pytest.mark.parametrize(
    ('row', 'low', 'high'),
    [
        ([38, 60], 36, 65),  # two down to the lowest, five up
        ([60, 80], 55, 81),
        ([36, 81], 36, 81),  # no room at all
        ([30, 60], 30, 65),  # below already: no further down
        ([100, 127], 95, 127),  # above already, and never above 127
    ],
)
def test_rows_stay_within_the_compass_or_where_they_were(row, low, high):
    found = moved(row, 5, range(1000))
    assert (found.min(), found.max()) == (low, high)


def test_silence_is_not_moved():
    assert moved([128, 129], 12, range(50)).tolist() == [[128, 129]] * 50
