"""MIDI files: read back by another library, and damaged in every way without a crash."""

import io

import mido
import numpy as np
import pytest

from gen_jax.data import midi_files, progressions, voices
from gen_jax.data.encoding import Unsuitable
from gen_jax.data.notes import DRUMS, Notes


def notes_of(rows, ticks_per_beat: int = 12, beats_per_minute: float = 100) -> Notes:
    """Rows of start, duration, pitch, velocity, program, part."""
    columns = np.array(rows, int).reshape(-1, 6).T
    return Notes(*columns, ticks_per_beat, beats_per_minute)


def read_by_symusic(midi: bytes) -> tuple[set, float]:
    """(start, duration, pitch, velocity, program) in beats, and beats per minute."""
    symusic = pytest.importorskip('symusic')
    score = symusic.Score.from_midi(midi)
    notes = {
        (
            note.start / score.tpq,
            note.duration / score.tpq,
            note.pitch,
            note.velocity,
            DRUMS if track.is_drum else track.program,
        )
        for track in score.tracks
        for note in track.notes
    }
    return notes, score.tempos[0].qpm


def test_another_library_reads_the_same_notes_programs_and_tempo():
    rng = np.random.default_rng(0)
    rows = [
        (6 * i, 3, 40 + i % 40, rng.integers(1, 128), (0, 19, 48, DRUMS)[i % 4], i % 4)
        for i in range(100)
    ]
    found, tempo = read_by_symusic(midi_files.write(notes_of(rows)))
    assert found == {(s / 12, d / 12, p, v, program) for s, d, p, v, program, _ in rows}
    assert tempo == pytest.approx(100, abs=0.01)


def test_more_players_than_channels_keep_their_programs():
    rows = [(12 * i, 12, 60, 80, i, i) for i in range(40)]
    found, _ = read_by_symusic(midi_files.write(notes_of(rows)))
    assert found == {(i, 1, 60, 80, i) for i in range(40)}


def test_a_note_that_is_struck_again_ends_where_it_begins_anew():
    midi = midi_files.write(notes_of([(0, 12, 60, 80, 0, 0), (12, 12, 60, 80, 0, 0)]))
    found, _ = read_by_symusic(midi)
    assert found == {(0, 1, 60, 80, 0), (1, 1, 60, 80, 0)}
    messages = mido.MidiFile(file=io.BytesIO(midi)).tracks[1]
    kinds = [message.type for message in messages if message.type.startswith('note')]
    assert kinds == ['note_on', 'note_off'] * 2


def test_no_notes_are_a_file_still():
    assert mido.MidiFile(file=io.BytesIO(midi_files.write(notes_of([])))).length == 0


def test_what_never_ends_does_so_with_the_track(tmp_path):
    messages = [
        mido.Message('note_on', note=60, velocity=80, time=0),
        mido.Message('note_on', note=60, velocity=80, time=480),  # struck again
        mido.Message('note_on', note=64, velocity=0, time=0),  # never began
        mido.MetaMessage('end_of_track', time=960),
    ]
    mido.MidiFile(tracks=[mido.MidiTrack(messages)]).save(tmp_path / 'x.mid')
    (part,) = midi_files.read_parts(tmp_path / 'x.mid')
    assert (part.start.tolist(), part.end.tolist(), part.pitch.tolist()) == (
        [0, 1],
        [1, 3],
        [60] * 2,
    )


@pytest.mark.parametrize(
    ('content', 'reason'),
    [
        (b'', 'not readable as MIDI: '),
        (b'not a MIDI file at all', 'not readable as MIDI: '),
        (b'MThd\0\0\0\x06\0\x01\0\x00\xe7\x28', 'not in beats'),  # 25 frames a second
        (b'MThd\0\0\0\x06\0\x01\0\x00\0\0', 'not in beats'),
        (b'MThd\0\0\0\x06\0\x02\0\x00\x01\xe0', 'of type 2'),
        (b'MThd\0\0\0\x06\0\x01\0\x00\x01\xe0', 'no notes'),
    ],
)
def test_files_that_are_no_music_say_why(tmp_path, content, reason):
    path = tmp_path / 'x.mid'
    path.write_bytes(content)
    with pytest.raises(Unsuitable, match=reason):
        midi_files.read_parts(path)


def test_damage_of_any_kind_never_crashes(tmp_path):
    """Bytes changed and ends cut off at random: a piece comes out, or a reason."""
    good = np.frombuffer(midi_files.write(voices.to_notes(progressions.make(1, 0)[0])), np.uint8)
    rng, path, reasons = np.random.default_rng(0), tmp_path / 'x.mid', 0
    for number in range(300):
        damaged = good.copy()
        damaged[rng.integers(len(good), size=1 + number % 5)] = rng.integers(256)
        if number % 3 == 0:
            damaged = damaged[: rng.integers(len(good))]
        path.write_bytes(damaged.tobytes())
        try:
            piece = voices.of_midi(path)
        except Unsuitable:
            reasons += 1
        else:
            assert piece.dtype == np.int8 and piece.shape[1:] == (4,) and piece.max() >= 0
    assert 100 < reasons < 300
