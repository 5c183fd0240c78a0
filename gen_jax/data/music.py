"""Music: `load` makes a Dataset of windows of tokens, `describe` tells what it would read.

`decode` turns samples of a model into notes, and `write` makes a MIDI file of them, or sound.

    folder     `data_dir` is a folder of MIDI files, searched all the way down, or one .npz file of
               pieces in four voices, in the layout that `voices.read` says
    synthetic  made-up pieces in four voices                                       progressions.py

Two encodings:

    voices     four voices on a grid of sixteenths, a token for each voice and frame    voices.py
    events     any number of instruments, note by note                                  events.py

Of a folder of MIDI files one in sixteen is held out, chosen by a hash of its path; a file that
cannot be encoded is named in a warning, with the reason, and left out. Pieces are joined and cut
into windows by `windows.py`, and batches are as it says.
"""

from pathlib import Path

import numpy as np

from gen_jax.data import events, folder, midi_files, progressions, synthesis, voices, windows
from gen_jax.data.dataset import Dataset, Description, digest
from gen_jax.data.encoding import Encoding, Unsuitable, transposition
from gen_jax.data.notes import one_after_another
from gen_jax.errors import InputError
from gen_jax.files import replacing
from gen_jax.types import DataSpec

SUFFIXES = ('.mid', '.wav')
PARTS = ('soprano', 'alto', 'tenor', 'bass', 'beginning')  # of voices, that may be given
SOURCES = ('folder', 'synthetic')
ENCODINGS = {'voices': voices.encoding, 'events': events.encoding}
_NUM_SYNTHETIC = {'train': 256, 'valid': 32, 'test': 32}
_PAUSE = 4  # beats between pieces of one file
_MOST_SECONDS = 3600  # of sound

Pieces = list[np.ndarray]


def load(
    *,
    source: str = 'folder',
    name: str | None = None,
    data_dir: str | None = None,
    encoding: str = 'voices',
    context: int = 256,
    evaluation_stride: int | None = None,
    transpose: int = 0,
    evaluation_split: str = 'test',
) -> Dataset:
    """The pieces of a source as a Dataset of windows.

    Args:
      source: one of `SOURCES`.
      name: None; music has no sets by name.
      data_dir: for `folder`, the folder or the .npz file.
      encoding: one of `ENCODINGS`.
      context: tokens of a window; of voices four make a frame, and it must be a multiple.
      evaluation_stride: tokens by which windows of evaluation advance; None: `context`. The fewer,
        the more of a piece is known where it is predicted, and the longer evaluation takes.
      transpose: training windows are moved by up to so many semitones, drawn anew each time.
      evaluation_split: 'test' or 'valid'; a folder of MIDI files has 'test' alone.

    Raises:
      InputError: naming the field that is wrong, for everything the user can mend.
    """
    _check(source, name, data_dir, encoding, transpose, evaluation_split)
    encoder = ENCODINGS[encoding]()
    frame = len(encoder.start)
    windows.check(context, evaluation_stride, frame)
    train, evaluation = (
        windows.join(pieces, encoder.start)
        for pieces in _read(source, data_dir, evaluation_split, encoder)
    )
    change = transposition(encoder, transpose) if transpose else None
    spec = encoder.spec._replace(shape=(context,))
    return Dataset(
        windows.training(train, context, encoder.per_token, frame=frame, change=change),
        windows.evaluation(evaluation, context, evaluation_stride, encoder.per_token, frame=frame),
        spec,
        digest(f'{encoder.spec}', train, evaluation),
    )


def describe(
    *,
    source: str = 'folder',
    name: str | None = None,
    data_dir: str | None = None,
    encoding: str = 'voices',
    context: int = 256,
    evaluation_stride: int | None = None,
    transpose: int = 0,
    evaluation_split: str = 'test',
) -> Description:
    """What `load` with the same arguments would read; of MIDI files, only their names are.

    Raises:
      InputError: as `load`, but for what is wrong inside MIDI files.
    """
    _check(source, name, data_dir, encoding, transpose, evaluation_split)
    encoder = ENCODINGS[encoding]()
    windows.check(context, evaluation_stride, len(encoder.start))
    if source == 'synthetic':
        where = 'made-up pieces in four voices, made in memory'
        counts = _NUM_SYNTHETIC['train'], _NUM_SYNTHETIC[evaluation_split]
    elif voices.is_file(data_dir):
        where, pieces = f'file {data_dir}', voices.read(data_dir)
        counts = len(pieces['train']), len(pieces[evaluation_split])
    else:
        root, paths = folder.search(data_dir, midi_files.SUFFIXES, 'MIDI file')
        where, counts = f'folder {root}', tuple(map(len, folder.divide(paths)))
    lines = [
        where,
        f'{counts[0]:,} training and {counts[1]:,} evaluation pieces',
        f'{encoding}: {encoder.spec.vocab_size} tokens, windows of {context}',
    ]
    if transpose:
        lines.append(f'training windows are transposed by up to {transpose} semitones')
    return Description(encoder.spec._replace(shape=(context,)), True, tuple(lines))


def decode(x: np.ndarray, spec: DataSpec) -> np.ndarray:
    """Samples, int `[N, L]`, to music, up to the first end in each row.

    Of voices: pitches by sixteenths, int8 `[N, L / 4, 4]`, -1 where silent and after the end. Of
    events: notes, int32 `[N, L // 3, 5]`, as `events.py` says, of duration 0 after the last.
    """
    return voices.decode(x) if _is_in_voices(spec) else events.decode(x, spec)


def write(music: np.ndarray, stem: Path, suffix: str = SUFFIXES[0]) -> Path:
    """Writes what `decode` returns as one file, `stem` plus '.mid' or '.wav', and returns its path.

    The pieces follow one another with a pause between. In voices a pitch that stays is one note,
    held: the data does not tell whether it was repeated. The sound is that of `synthesis.py`; notes
    that begin after an hour of it are left out.
    """
    to_notes = voices.to_notes if music.shape[-1] == voices.NUM_VOICES else events.to_notes
    notes = one_after_another([to_notes(piece) for piece in music], _PAUSE)
    if suffix == '.wav':
        content = synthesis.write(synthesis.render(notes.before(_MOST_SECONDS)))
    else:
        content = midi_files.write(notes)
    path = stem.with_name(stem.name + suffix)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(content)
    return path


def read(path: Path, spec: DataSpec) -> np.ndarray:
    """The beginning of a MIDI file as an example of this spec: tokens `[1, L]`.

    Of a file of one part that is the soprano, and the other voices are silent.

    Raises:
      InputError: it cannot be encoded, or this spec is not of voices.
    """
    if not _is_in_voices(spec):
        raise InputError("--given: only music in the encoding 'voices' has parts")
    try:
        piece = voices.of_midi(path, melody=True)
    except (Unsuitable, OSError) as reason:
        raise InputError(f'--given: {path} cannot be encoded ({reason})') from None
    tokens = np.full(spec.shape, voices.END, np.int32)
    found = voices.to_tokens(piece)[: len(tokens)]
    tokens[: len(found)] = found
    return tokens[None]


def known(part: str, spec: DataSpec) -> np.ndarray:
    """Which tokens belong to one of `PARTS`, a voice or the first quarter: bool `[L]`."""
    if not _is_in_voices(spec):
        raise InputError("--keep: only music in the encoding 'voices' has parts")
    places = np.arange(spec.shape[0])
    if part == 'beginning':
        return places < len(places) // 4
    return places % voices.NUM_VOICES == PARTS.index(part)


def _is_in_voices(spec: DataSpec) -> bool:
    return spec.units == ('frame',)


def _check(source, name, data_dir, encoding, transpose, evaluation_split) -> None:
    if source == 'embedded':
        raise InputError(
            "data.source: 'embedded': no music ships with the packages; give your own files with "
            "data.source 'folder' and data.data_dir, or take 'synthetic'"
        )
    if source not in SOURCES:
        raise InputError(f'data.source: {source!r} for music; use one of {", ".join(SOURCES)}')
    if name is not None:
        raise InputError(f'data.name: {name!r}; music has no sets by name, leave None')
    if source == 'synthetic' and data_dir is not None:
        raise InputError(
            f"data.data_dir: {data_dir}; nothing is read when data.source is 'synthetic'; leave "
            'None'
        )
    if encoding not in ENCODINGS:
        raise InputError(f'data.encoding: {encoding!r}; use one of {", ".join(ENCODINGS)}')
    if not 0 <= transpose <= 127:
        raise InputError(f'data.transpose: {transpose} semitones; use 0 (none) to 127')
    if evaluation_split not in ('test', 'valid'):
        raise InputError(f"data.evaluation_split: {evaluation_split!r}; use 'test' or 'valid'")
    if evaluation_split == 'valid' and source == 'folder' and not voices.is_file(data_dir):
        raise InputError(
            "data.evaluation_split: 'valid'; of a folder of MIDI files only 'test' is held out"
        )


def _read(
    source: str, data_dir: str | None, evaluation_split: str, encoder: Encoding
) -> tuple[Pieces, Pieces]:
    """The tokens of each piece of the training and of the evaluation split."""
    if source == 'folder' and not voices.is_file(data_dir):
        return _read_folder(data_dir, encoder)
    if source == 'folder':
        pieces = voices.read(data_dir)
    else:
        sizes = _NUM_SYNTHETIC.items()
        pieces = {s: progressions.make(num, seed) for seed, (s, num) in enumerate(sizes)}
    train, evaluation = (
        [encoder.of_voices(piece) for piece in pieces[split]]
        for split in ('train', evaluation_split)
    )
    return train, evaluation


def _read_folder(data_dir: str | None, encoder: Encoding) -> tuple[Pieces, Pieces]:
    """The files that can be encoded, after a warning that names others, with their reasons."""
    root, paths = folder.search(data_dir, midi_files.SUFFIXES, 'MIDI file')

    def read(path: Path) -> np.ndarray | str:
        try:
            return encoder.of_file(root / path)
        except (Unsuitable, OSError) as reason:
            return f'{path.as_posix()} ({reason})'

    found = dict(zip(paths, folder.read_all(read, paths, f'reading {root}'), strict=True))
    good = [path for path, tokens in found.items() if not isinstance(tokens, str)]
    bad = [reason for reason in found.values() if isinstance(reason, str)]
    folder.check_readable(root, bad, len(good), 'cannot be encoded')
    train, evaluation = ([found[good[i]] for i in rows] for rows in folder.divide(good))
    return train, evaluation
