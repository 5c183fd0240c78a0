"""Made-up pieces: in four parts, and always the same."""

import numpy as np

from gen_jax.data import progressions


def test_pieces_are_the_same_each_time_and_differ_from_each_other():
    first, again, others = (progressions.make(20, seed) for seed in (0, 0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    bodies = {piece.tobytes() for piece in first + others}
    assert len(bodies) == 40


def test_voices_keep_their_ranges_and_their_order_and_make_chords():
    for piece in progressions.make(50, seed=2):
        assert piece.dtype == np.int8 and piece.shape[1] == 4 and len(piece) % 4 == 0
        assert np.all((piece >= [60, 55, 48, 41]) & (piece <= [81, 74, 67, 60]))
        assert np.all(np.diff(piece[::4].astype(int), axis=1) < 0)
        # A triad on each beat: at most three pitch classes, and the bass has its root.
        for chord in piece[::4]:
            above = {(int(p) - int(chord[3])) % 12 for p in chord}
            assert above <= {0, 3, 4, 6, 7} and len(above) <= 3


def test_pieces_end_where_they_began():
    for piece in progressions.make(50, seed=3):
        assert piece[0, 3] % 12 == piece[-1, 3] % 12
        scale = {(int(pitch) - int(piece[0, 3])) % 12 for pitch in piece.ravel()}
        assert scale <= {0, 2, 4, 5, 7, 9, 11}  # major
