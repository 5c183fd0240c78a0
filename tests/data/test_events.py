"""Music as events: there and back through the library's tokens."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gen_jax.data import events, midi_files, progressions, voices
from gen_jax.data.encoding import Unsuitable
from gen_jax.data.notes import DRUMS, Notes
from gen_jax.errors import InputError

pytest.importorskip('miditok')


@pytest.fixture(scope='module')
def encoding():
    return events.encoding()


def ensemble(num: int = 60) -> Notes:
    """Notes of five players on the grid of twelfths, their velocities among the sixteen."""
    rng = np.random.default_rng(0)
    start = np.sort(rng.integers(0, 12 * 40, num))
    program = rng.choice([0, 19, 40, 73, DRUMS], num)
    pitch = np.where(program == DRUMS, rng.integers(35, 60, num), rng.integers(0, 128, num))
    velocity = 7 + 8 * rng.integers(0, 16, num)
    notes = Notes(start, rng.integers(1, 48, num), pitch, velocity, program, program, 12, 120)
    # One player cannot strike a pitch again while it sounds.
    keys = dict.fromkeys(zip(pitch.tolist(), program.tolist(), strict=True))
    first = [next(i for i in range(num) if (pitch[i], program[i]) == key) for key in keys]
    return Notes(*(column[np.sort(first)] for column in notes[:6]), 12, 120)


def test_notes_come_back_as_they_were(encoding, tmp_path):
    notes, path = ensemble(), tmp_path / 'x.mid'
    path.write_bytes(midi_files.write(notes))
    tokens = encoding.of_file(path)
    assert tokens.max() < encoding.spec.vocab_size and encoding.start[0] not in tokens
    found = events.decode(tokens[None].astype(np.int32), encoding.spec)[0]
    assert found.shape == (len(tokens) // 3, events.NOTE)
    back = events.to_notes(found)
    assert len(back.start) == len(notes.start) == encoding.per_token[tokens].sum()
    rows = [sorted(zip(*(c.tolist() for c in n[:5]), strict=True)) for n in (back, notes)]
    assert [row[:3] + row[4:] for row in rows[0]] == [row[:3] + row[4:] for row in rows[1]]
    assert max(abs(a[3] - b[3]) for a, b in zip(*rows, strict=True)) <= 4  # half a step of velocity


def test_pieces_in_voices_are_events_too(encoding):
    piece = progressions.make(1, seed=0)[0]
    found = events.decode(encoding.of_voices(piece)[None], encoding.spec)[0]
    found, expected = events.to_notes(found), voices.to_notes(piece)
    assert sorted(zip(found.start, found.duration, found.pitch, strict=True)) == sorted(
        zip(3 * expected.start, 3 * expected.duration, expected.pitch, strict=True)
    )
    assert set(found.program.tolist()) == {19}


def test_pitches_and_notes_are_told_by_their_tokens(encoding):
    words = encoding.spec.words
    assert len(words) == encoding.spec.vocab_size
    for number, word in enumerate(words):
        kind, value = word.split('_', 1)
        assert encoding.pitches[number] == (int(value) if kind == 'Pitch' else -1)
        assert encoding.per_token[number, 0] == (kind in ('Pitch', 'PitchDrum'))
    assert words[encoding.spec.start_token] == 'EOS_None'
    sounding = np.flatnonzero(encoding.pitches >= 0)  # transposition counts on this
    assert np.all(np.diff(sounding) == 1) and np.all(np.diff(encoding.pitches[sounding]) == 1)


def test_any_tokens_are_music_up_to_the_first_end(encoding):
    rng = np.random.default_rng(0)
    x = rng.integers(0, encoding.spec.vocab_size, (20, 600))
    x[:, 400] = encoding.spec.start_token
    found = events.decode(x, encoding.spec)
    assert found.shape == (20, 200, events.NOTE) and found.dtype == np.int32
    assert np.all((found[..., 1] >= 0) & (found[..., 2:4] >= 0).all(-1) & (found[..., 4] >= DRUMS))
    x[:, 400:] = encoding.spec.start_token
    np.testing.assert_array_equal(events.decode(x, encoding.spec), found)
    assert not events.decode(np.full((1, 30), encoding.spec.start_token), encoding.spec).any()
    for length in range(1, 7):
        few = rng.integers(1, encoding.spec.vocab_size, (200, length))
        assert events.decode(few, encoding.spec).shape == (200, length // 3, events.NOTE)


@pytest.mark.parametrize(
    ('content', 'reason'),
    [
        (b'', 'not readable as MIDI'),
        (b'no MIDI at all', 'not readable as MIDI'),
        (midi_files.write(Notes(*np.zeros((6, 0), int), 12, 120)), 'no notes'),
        (
            midi_files.write(Notes(*np.array([[12 * 20000, 1, 60, 80, 0, 0]]).T, 12, 120)),
            'longer than 16,384 beats',
        ),
    ],
)
def test_files_that_are_no_music_say_why(encoding, tmp_path, content, reason):
    path: Path = tmp_path / 'x.mid'
    path.write_bytes(content)
    with pytest.raises(Unsuitable, match=reason):
        encoding.of_file(path)


def test_damage_never_crashes(encoding, tmp_path):
    good = np.frombuffer(midi_files.write(ensemble()), np.uint8)
    rng, path, reasons = np.random.default_rng(0), tmp_path / 'x.mid', 0
    for number in range(200):
        damaged = good.copy()
        damaged[rng.integers(len(good), size=1 + number % 5)] = rng.integers(256)
        if number % 3 == 0:
            damaged = damaged[: rng.integers(len(good))]
        path.write_bytes(damaged.tobytes())
        try:
            tokens = encoding.of_file(path)
        except Unsuitable:
            reasons += 1
        else:
            assert len(tokens) and tokens.max() < encoding.spec.vocab_size
    assert 50 < reasons < 200


def test_another_vocabulary_is_an_input_error(encoding):
    spec = encoding.spec._replace(words=('Beat', *encoding.spec.words[1:]))
    with pytest.raises(InputError, match=r'data\.encoding: .* another vocabulary'):
        events.decode(np.zeros((1, 3), int), spec)


@pytest.mark.parametrize('present', ['torch', 'miditok'])
def test_torch_is_never_loaded_and_the_library_is_asked_for(tmp_path, present):
    """Packages are planted: a torch that leaves a mark, or a miditok that cannot be imported."""
    (tmp_path / present).mkdir()
    (tmp_path / present / '__init__.py').write_text(
        f'import pathlib\npathlib.Path({str(tmp_path / "mark")!r}).touch()\n'
        'raise ImportError("planted")\n'
    )
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, '-c', 'from gen_jax.data import events; events.encoding()'],
        env=os.environ | {'PYTHONPATH': path},
        capture_output=True,
        text=True,
    )
    if present == 'torch':
        assert done.returncode == 0, done.stderr
        assert not (tmp_path / 'mark').exists()
    else:
        assert "data.encoding: 'events' needs miditok; pip install" in done.stderr
