"""Music end to end: sources, encodings, windows, and files to listen to."""

import importlib.util
import os
import wave
from pathlib import Path

import mido
import numpy as np
import pytest

from gen_jax.data import midi_files, music, progressions, synthesis, voices
from gen_jax.data.dataset import evaluation_batches, training_batches
from gen_jax.errors import InputError

REAL = os.environ.get('GEN_JAX_DATA')
ENCODINGS = [
    'voices',
    pytest.param(
        'events',
        marks=pytest.mark.skipif(
            importlib.util.find_spec('miditok') is None, reason='miditok is not installed'
        ),
    ),
]


def write_folder(folder: Path, num: int = 40) -> list[np.ndarray]:
    pieces = progressions.make(num, seed=5)
    for number, piece in enumerate(pieces):
        path = folder / ('deep/down' if number % 2 else '.') / f'{number}.mid'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(midi_files.write(voices.to_notes(piece)))
    return pieces


def pieces_in(split) -> set[bytes]:
    """The pieces of an evaluation split of voices, whole."""
    (batch,) = evaluation_batches(split, batch_size=split.num_examples)
    stream = batch['x'][batch['weight'] == 1].reshape(-1, 4)
    ends = np.flatnonzero((stream == voices.END).all(-1))
    assert ends[-1] == len(stream) - 1
    parts = np.split(stream, ends + 1)[:-1]
    return {part[:-1].astype(np.uint8).tobytes() for part in parts}


@pytest.mark.parametrize('encoding', ENCODINGS)
def test_synthetic_music_has_the_spec_of_real_music(tmp_path, encoding):
    write_folder(tmp_path, num=4)
    made = music.load(source='synthetic', encoding=encoding, context=32)
    read = music.load(source='folder', data_dir=str(tmp_path), encoding=encoding, context=32)
    assert made.spec == read.spec and made.spec.shape == (32,) and made.spec.dtype == 'int32'
    assert made.fingerprint != read.fingerprint
    assert made.fingerprint == music.load(source='synthetic', encoding=encoding).fingerprint
    stream = training_batches(made.train, batch_size=8, seed=0)
    batch = next(stream)
    stream.close()
    assert batch['x'].shape == batch['weight'].shape == (8, 32)
    assert batch['counts'].shape == (8, len(made.spec.units))
    assert batch['x'].max() < made.spec.vocab_size
    x = batch['x'][:, 4:] if encoding == 'voices' else batch['x']
    native = music.decode(x, made.spec)
    for suffix in music.SUFFIXES:
        assert music.write(native, tmp_path / 'new' / 'x', suffix).stat().st_size > 100


@pytest.mark.parametrize('source', ['synthetic', 'folder'])
@pytest.mark.parametrize('encoding', ENCODINGS)
def test_describe_agrees_with_load(tmp_path, monkeypatch, source, encoding):
    write_folder(tmp_path)
    arguments = {'source': source, 'encoding': encoding, 'context': 16, 'transpose': 3}
    if source == 'folder':
        arguments['data_dir'] = str(tmp_path)
    loaded = music.load(**arguments)
    monkeypatch.setattr(mido, 'MidiFile', None)  # describe opens none
    described = music.describe(**arguments)
    assert described.present and described.spec == loaded.spec
    text = ' '.join(described.lines)
    assert 'up to 3 semitones' in text and f'{loaded.spec.vocab_size} tokens' in text
    assert ('256 training and 32 evaluation' if source == 'synthetic' else str(tmp_path)) in text


def test_frames_stay_together_in_training_and_are_counted():
    dataset = music.load(source='synthetic', context=24, transpose=4)
    stream = training_batches(dataset.train, batch_size=64, seed=1)
    for batch in (next(stream) for _ in range(10)):
        frames = batch['x'].reshape(64, 6, 4)
        ends = (frames == voices.END).sum(-1)
        assert set(np.unique(ends)) <= {0, 4}
        np.testing.assert_array_equal(batch['counts'][:, 0], (ends == 0).sum(1))
        assert np.all(np.diff(frames, axis=-1) <= 0)  # soprano first, bass last
    stream.close()


def test_training_is_transposed_and_evaluation_is_not():
    plain, moved = (music.load(source='synthetic', context=24, transpose=t) for t in (0, 5))
    assert plain.fingerprint == moved.fingerprint
    numbers = np.arange(plain.train.num_examples)
    rows = {'plain': plain.train, 'moved': moved.train}
    bits = np.random.default_rng(0).integers(2**63, size=len(numbers)).astype(np.uint64)
    found = {n: split.transform(split.fetch(numbers), bits) for n, split in rows.items()}
    before, after = (
        np.concatenate([found[n]['before'][:, None], found[n]['x']], axis=1).astype(int)
        for n in rows
    )
    sounds = before < voices.SILENT
    np.testing.assert_array_equal(after[~sounds], before[~sounds])
    moves = np.ma.array(after - before, mask=~sounds)
    np.testing.assert_array_equal(moves.min(1), moves.max(1))  # all of a row alike
    assert set(moves.compressed().tolist()) == set(range(-5, 6))
    assert after[sounds].min() >= 36 and after[sounds].max() <= 81
    for dataset in (plain, moved):
        assert pieces_in(dataset.evaluation) == {
            voices.to_tokens(piece).tobytes() for piece in progressions.make(32, seed=2)
        }


def test_a_folder_is_divided_and_every_piece_is_in_one_part(tmp_path):
    pieces = {voices.to_tokens(piece).tobytes() for piece in write_folder(tmp_path)}
    dataset = music.load(data_dir=str(tmp_path), context=32, evaluation_stride=8)
    held_out = pieces_in(dataset.evaluation)
    assert held_out < pieces and 1 <= len(held_out) <= 8
    numbers = np.arange(dataset.train.num_examples)
    batch = dataset.train.transform(dataset.train.fetch(numbers), np.zeros_like(numbers, np.uint64))
    text = batch['x'].astype(np.uint8).tobytes()
    for piece in pieces:
        assert (piece in text) != (piece in held_out)


@pytest.mark.parametrize('encoding', ENCODINGS)
def test_broken_files_are_counted_named_and_left_out(tmp_path, encoding):
    write_folder(tmp_path, num=10)
    expected = music.load(data_dir=str(tmp_path), encoding=encoding).fingerprint
    good = (tmp_path / '0.mid').read_bytes()
    (tmp_path / 'cut.mid').write_bytes(good[: len(good) // 2])
    (tmp_path / 'empty.midi').write_bytes(b'')
    (tmp_path / 'text.mid').write_text('not music')
    (tmp_path / 'readme.txt').write_text('no MIDI file by its name')
    message = r'3 file\(s\) in .* cannot be encoded and are left out: cut\.mid \(.*\), empty\.midi'
    with pytest.warns(UserWarning, match=message) as caught:
        dataset = music.load(data_dir=str(tmp_path), encoding=encoding)
    assert len(caught) == 1
    assert dataset.fingerprint == expected


def test_a_file_that_is_unsuitable_for_voices_says_why(tmp_path):
    write_folder(tmp_path, num=4)
    three = voices.to_notes(np.full((8, 4), [70, 65, 60, -1]))
    (tmp_path / 'trio.mid').write_bytes(midi_files.write(three))
    with pytest.warns(UserWarning, match=r'1 file\(s\).*trio\.mid \(3 part\(s\) instead of 4\)'):
        music.load(data_dir=str(tmp_path))


def test_files_of_voices_are_what_was_written(tmp_path):
    piece = progressions.make(1, seed=7)[0]
    path = music.write(piece[None], tmp_path / 'x')
    assert path == tmp_path / 'x.mid'
    np.testing.assert_array_equal(voices.of_midi(path), piece)
    # Two with a pause of four beats between them, and what is silent at an end takes no time.
    silent = np.concatenate([piece, np.full((50, 4), -1, np.int8)])
    both = voices.of_midi(music.write(np.stack([silent, silent]), tmp_path / 'y'))
    np.testing.assert_array_equal(both, np.concatenate([piece, np.full((16, 4), -1), piece]))
    with wave.open(str(music.write(silent[None], tmp_path / 'y', '.wav'))) as file:
        seconds = file.getnframes() / file.getframerate()
    assert seconds == pytest.approx(len(piece) / 4 * 60 / 80, abs=0.2)  # at 80 beats a minute
    assert sorted(p.name for p in tmp_path.iterdir()) == ['x.mid', 'y.mid', 'y.wav']


def test_sound_ends_after_an_hour(tmp_path, monkeypatch):
    monkeypatch.setattr(music, '_MOST_SECONDS', 3.0)
    pieces = np.full((2, 16, 4), [70, 65, 60, 50], np.int8)  # three seconds each
    with wave.open(str(music.write(pieces, tmp_path / 'x', '.wav'))) as file:
        assert file.getnframes() / synthesis.RATE == pytest.approx(3.1, abs=0.01)


def test_nothing_sampled_is_written_too(tmp_path):
    nothing = music.decode(np.full((3, 8), voices.END), music.describe(source='synthetic').spec)
    for suffix in music.SUFFIXES:
        assert music.write(nothing, tmp_path / 'x', suffix).exists()


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'source': 'embedded'}, r"data\.source: 'embedded': no music ships with the packages"),
        ({'source': 'tfds'}, r"data\.source: 'tfds' for music; use one of folder, synthetic"),
        ({'source': 'folder'}, r'data\.data_dir: give the folder of MIDI files'),
        ({'source': 'folder', 'data_dir': 'absent'}, r'data\.data_dir: there is no folder absent'),
        ({'source': 'folder', 'data_dir': 'a.npz'}, r'data\.data_dir: there is no file a\.npz'),
        ({'data_dir': 'x'}, r"data\.data_dir: x; nothing is read .* 'synthetic'"),
        ({'name': 'chorales'}, r"data\.name: 'chorales'; music has no sets by name"),
        ({'encoding': 'abc'}, r"data\.encoding: 'abc'; use one of voices, events"),
        ({'context': 30}, r'data\.context: 30 tokens; use a positive multiple of 4'),
        (
            {'context': 32, 'evaluation_stride': 33},
            r'data\.evaluation_stride: 33 tokens; use 4 to 32',
        ),
        ({'transpose': -1}, r'data\.transpose: -1 semitones'),
        ({'evaluation_split': 'train'}, r"data\.evaluation_split: 'train'; use 'test' or 'valid'"),
        (
            {'source': 'folder', 'data_dir': 'x', 'evaluation_split': 'valid'},
            r"data\.evaluation_split: 'valid'; of a folder of MIDI files only 'test'",
        ),
    ],
)
@pytest.mark.parametrize('call', [music.load, music.describe])
def test_bad_arguments_name_the_field(call, arguments, message):
    with pytest.raises(InputError, match=message):
        call(**{'source': 'synthetic'} | arguments)


@pytest.mark.skipif(not REAL, reason='GEN_JAX_DATA names no folder with music/ in it')
@pytest.mark.parametrize(('split', 'num_frames'), [('test', 18_900), ('valid', 18_408)])
def test_the_chorales(split, num_frames):
    arguments = {'data_dir': f'{REAL}/music/jsb_chorales_16th.npz', 'evaluation_split': split}
    dataset = music.load(**arguments, context=256, evaluation_stride=128)
    counted, ends = 0.0, 0
    for batch in evaluation_batches(dataset.evaluation, batch_size=64):
        rows = batch['mask'] == 1
        counted += batch['counts'][rows].sum()
        ends += ((batch['x'] == voices.END) & (batch['weight'] == 1))[rows].sum()
    assert counted == num_frames
    assert ends == 4 * {'test': 77, 'valid': 76}[split]
    described = ' '.join(music.describe(**arguments).lines)
    assert f'229 training and {ends // 4} evaluation pieces' in described
