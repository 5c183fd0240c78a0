"""Music in four voices: ranges, crossings and pitch classes, where they can be counted by hand."""

import numpy as np
import pytest

from gen_jax.metrics import music

A = np.array([[72, 67, 60, 48], [72, 67, 60, 48], [74, 65, -1, 50]], np.int8)
B = np.array([[81, 60, 62, 36]], np.int8)  # the tenor lies above the alto


def test_ranges_are_those_of_what_sounds():
    assert music.ranges([A, B]).tolist() == [[72, 81], [60, 67], [60, 62], [36, 50]]
    with pytest.raises(ValueError, match='never sounds'):
        music.ranges([np.array([[60, 55, -1, 40]])])


def test_notes_are_counted_where_they_begin():
    of_voices = np.array([[60, 73], [60, 81], [60, 81], [36, 60]])
    # A begins seven notes, of which the soprano's 74 is too high; of B's four the 81 is.
    value, stderr = music.in_range([A], of_voices)
    assert (value, stderr) == (pytest.approx(6 / 7), None)
    value, stderr = music.in_range([A, B], of_voices)
    assert value == pytest.approx(9 / 11)
    residuals = np.array([6 - 9 / 11 * 7, 3 - 9 / 11 * 4])
    assert stderr == pytest.approx(np.sqrt(2 * (residuals**2).sum()) / 11)
    assert music.in_range([A, B], music.ranges([A, B])) == (1, pytest.approx(0))
    with pytest.raises(ValueError, match='no notes'):
        music.in_range([np.full((3, 4), -1)], of_voices)


def test_a_pitch_that_returns_is_a_note_again():
    piece = np.array([[60, -1, -1, -1], [-1] * 4, [60, -1, -1, -1], [59, -1, -1, -1]])
    assert music.in_range([piece], np.array([[60, 60]] * 4))[0] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ('frame', 'crossed'),
    [
        ([72, 67, 60, 48], 0),
        ([60, 60, 60, 60], 0),  # in unison
        ([60, 62, 50, 40], 1),
        ([60, -1, 61, 40], 1),  # over a silent voice
        ([60, 55, 50, 52], 1),
        ([-1, 55, 50, -1], 0),
    ],
)
def test_voices_cross_where_a_lower_one_sounds_higher(frame, crossed):
    assert music.crossing([np.array([frame], np.int8)]) == (crossed, None)


def test_frames_of_one_voice_cannot_cross():
    alone = np.array([[60, -1, -1, -1], [-1] * 4], np.int8)
    assert music.crossing([A, B, alone])[0] == pytest.approx(1 / 4)
    with pytest.raises(ValueError, match='no frames'):
        music.crossing([alone])


def test_pitch_classes_are_told_apart_by_how_long_they_sound():
    c, d = np.array([[60, 48, 72, -1]]), np.array([[62, 50, 74, -1]])
    assert music.pitch_classes([c], [c]) == (0, None)
    assert music.pitch_classes([c], [d]) == (1, None)
    # Three of four against one of two.
    three = np.concatenate([c, c, c, d])
    assert music.pitch_classes([three], [np.concatenate([c, d])])[0] == pytest.approx(0.25)
    silent = np.full((2, 4), -1)
    assert music.pitch_classes([silent, three], [silent, c])[0] == pytest.approx(0.25)
    with pytest.raises(ValueError, match='no notes'):
        music.pitch_classes([silent], [c])


def test_the_error_is_that_of_repeated_draws():
    rng = np.random.default_rng(0)
    reference = [rng.integers(48, 72, (20, 4)) for _ in range(4000)]

    def draw():
        pieces = [48 + rng.binomial(11, 0.5, (20, 4)) for _ in range(40)]
        return music.pitch_classes(pieces, reference)

    values, errors = np.array([draw() for _ in range(40)]).T
    assert errors.mean() == pytest.approx(values.std(), rel=0.4)
