"""Four voices: tokens and back, MIDI and back, and what is no such music."""

import os
from pathlib import Path

import numpy as np
import pytest

from gen_jax.data import midi_files, progressions, voices
from gen_jax.data.encoding import Unsuitable
from gen_jax.errors import InputError

REAL = os.environ.get('GEN_JAX_DATA')


def write_midi(path: Path, tracks, ticks_per_beat: int = 480, kind: int = 1) -> Path:
    """Notes (channel, pitch, start, end) in ticks, a list for each track."""
    import mido

    file = mido.MidiFile(ticks_per_beat=ticks_per_beat, type=kind)
    for notes in tracks:
        events = [(start, 'note_on', *note) for *note, start, _ in notes]
        events += [(end, 'note_off', *note) for *note, _, end in notes]
        track, now = mido.MidiTrack(), 0
        for tick, name, channel, pitch in sorted(events, key=lambda e: (e[0], e[1] == 'note_on')):
            message = mido.Message(name, channel=channel, note=pitch, time=tick - now)
            track.append(message)
            now = tick
        file.tracks.append(track)
    file.save(path)
    return path


def line(channel: int, pitch: int, step: int = 120, num: int = 4, late: int = 0):
    """Ascending notes, one a step."""
    return [(channel, pitch + i, i * step + late, (i + 1) * step + late) for i in range(num)]


FOUR = [line(i, 72 - 7 * i) for i in range(4)]
PIECE = 72 - 7 * np.arange(4) + np.arange(4)[:, None]


def test_tokens_and_back():
    piece = np.array([[60, -1, 127, 0], [-1, -1, -1, -1], [81, 74, 69, 36]], np.int8)
    tokens = voices.to_tokens(piece)
    assert tokens.tolist() == [60, 128, 127, 0, 128, 128, 128, 128, 81, 74, 69, 36]
    np.testing.assert_array_equal(voices.decode(tokens[None])[0], piece)


def test_nothing_sounds_from_the_first_end_on():
    row = [60, 55, 50, 45, 60, 129, 50, 45, 61, 56, 51, 46]
    assert voices.decode(np.array([row])).tolist() == [[[60, 55, 50, 45], [-1] * 4, [-1] * 4]]
    assert voices.decode(np.full((2, 8), voices.END)).tolist() == [[[-1] * 4] * 2] * 2


def test_a_frame_of_music_is_counted_as_one():
    encoding = voices.encoding()
    tokens = np.array([60, 128, 50, 45, 129, 129, 129, 129])
    assert encoding.per_token[tokens].sum() == 1
    assert encoding.spec.vocab_size == 130 and encoding.spec.start_token == 129
    assert encoding.start.tolist() == [129] * 4


def test_equal_pitches_are_one_note():
    piece = np.array([[60, -1, -1, 40], [60, -1, 50, 40], [62, -1, 50, -1], [62, -1, -1, 40]])
    notes = voices.to_notes(piece)
    found = zip(notes.part, notes.pitch, notes.start, notes.duration, strict=True)
    assert sorted(tuple(map(int, note)) for note in found) == [
        (0, 60, 0, 2),
        (0, 62, 2, 2),
        (2, 50, 1, 2),
        (3, 40, 0, 2),
        (3, 40, 3, 1),
    ]


def test_midi_and_back(tmp_path):
    for number, piece in enumerate(progressions.make(5, seed=3)):
        piece[4:6, 2] = -1
        path = tmp_path / f'{number}.mid'
        path.write_bytes(midi_files.write(voices.to_notes(piece)))
        np.testing.assert_array_equal(voices.of_midi(path), piece)


@pytest.mark.parametrize('ticks_per_beat', [4, 96, 480])
@pytest.mark.parametrize('shuffled', [[0, 1, 2, 3], [2, 0, 3, 1]])
def test_parts_are_ordered_by_pitch_whether_tracks_or_channels(tmp_path, shuffled, ticks_per_beat):
    step = ticks_per_beat // 4
    lines = [line(i, 72 - 7 * i, step) for i in shuffled]
    tracks = write_midi(tmp_path / 'tracks.mid', lines, ticks_per_beat)
    channels = write_midi(
        tmp_path / 'channels.mid',
        [[note for notes in lines for note in notes]],
        ticks_per_beat,
        kind=0,
    )
    for path in (tracks, channels):
        np.testing.assert_array_equal(voices.of_midi(path), PIECE)


def test_notes_near_the_grid_go_to_it_and_ornaments_are_left_out(tmp_path):
    late = [line(i, 72 - 7 * i, late=20) for i in range(4)]
    late[0].append((0, 90, 130, 160))  # shorter than half a sixteenth
    found = voices.of_midi(write_midi(tmp_path / 'x.mid', late))
    np.testing.assert_array_equal(found, PIECE)


def test_a_later_note_sounds_over_an_earlier_one(tmp_path):
    lines = [line(i, 72 - 7 * i, step=960) for i in range(4)]
    lines[0][0] = (0, 80, 0, 960 + 120)  # it lingers on for a sixteenth
    lines[0].append((0, 90, 2880, 3000))  # begins together with the last one
    found = voices.of_midi(write_midi(tmp_path / 'x.mid', lines))
    assert found[:, 0].tolist() == [80] * 8 + [73] * 8 + [74] * 8 + [90] + [75] * 7


CHORD = [(0, 76 + i, i * 120, (i + 1) * 120) for i in range(4)]


@pytest.mark.parametrize(
    ('tracks', 'reason'),
    [
        ([], 'no notes'),
        (FOUR[:3], r'3 part\(s\) instead of 4'),
        ([*FOUR, line(5, 40)], r'5 part\(s\)'),
        ([*FOUR[:3], line(9, 40)], 'drums'),
        ([line(i, 72 - 7 * i, step=160) for i in range(4)], 'not on a grid of sixteenths'),
        ([FOUR[0] + CHORD, *FOUR[1:]], 'a part with chords'),
        ([[(0, 72, 0, 9)], *FOUR[1:]], 'a part without a note of a sixteenth'),
        ([[(0, 72, 0, 480 * 20000)], *FOUR[1:]], 'longer than 16,384 beats'),
    ],
)
def test_music_that_is_not_in_four_voices_is_refused_with_the_reason(tmp_path, tracks, reason):
    with pytest.raises(Unsuitable, match=reason):
        voices.of_midi(write_midi(tmp_path / 'x.mid', tracks))


def pieces_in(path: Path, **change) -> str:
    arrays = {}
    for split in ('train', 'valid', 'test'):
        arrays[f'{split}_steps'] = np.tile(np.arange(60, 64, dtype=np.int8), (10, 1))
        arrays[f'{split}_offsets'] = np.array([0, 4, 10])
    np.savez(path, **{name: a for name, a in (arrays | change).items() if a is not None})
    return str(path)


def test_a_file_of_pieces(tmp_path):
    found = voices.read(pieces_in(tmp_path / 'x.npz'))
    assert {split: [len(piece) for piece in pieces] for split, pieces in found.items()} == {
        'train': [4, 6],
        'valid': [4, 6],
        'test': [4, 6],
    }
    assert found['train'][0].dtype == np.int8


@pytest.mark.parametrize(
    'change',
    [
        {'test_steps': None},
        {'valid_steps': np.zeros((10, 3), np.int8)},
        {'train_steps': np.full((10, 4), 128)},
        {'train_steps': np.zeros((10, 4))},
        {'train_offsets': np.array([0, 4, 9])},
        {'train_offsets': np.array([0, 6, 4, 10])},
    ],
)
def test_another_layout_is_an_input_error(tmp_path, change):
    with pytest.raises(InputError, match=r'data\.data_dir: .*(must hold|must be pitches)'):
        voices.read(pieces_in(tmp_path / 'x.npz', **change))


def test_no_file_and_no_archive(tmp_path):
    with pytest.raises(InputError, match=r'data\.data_dir: there is no file'):
        voices.read(str(tmp_path / 'absent.npz'))
    (tmp_path / 'x.npz').write_bytes(b'PK nothing')
    with pytest.raises(InputError, match=r'data\.data_dir: .*must hold'):
        voices.read(str(tmp_path / 'x.npz'))


@pytest.mark.skipif(not REAL, reason='GEN_JAX_DATA names no folder with music/ in it')
def test_chorales_go_through_midi_unchanged(tmp_path):
    pieces = voices.read(f'{REAL}/music/jsb_chorales_16th.npz')
    assert {split: len(p) for split, p in pieces.items()} == {'train': 229, 'valid': 76, 'test': 77}
    for piece in pieces['test'][:10]:
        path = tmp_path / 'x.mid'
        path.write_bytes(midi_files.write(voices.to_notes(piece)))
        found = voices.of_midi(path)
        np.testing.assert_array_equal(found, piece[: len(found)])
        assert np.all(piece[len(found) :] == -1)
