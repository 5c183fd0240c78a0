"""Four voices on a grid of sixteenths, frame by frame: the encoding 'voices'.

A piece is int8 `[T, 4]`: the MIDI pitch, 0 to 127, of soprano, alto, tenor and bass in each of T
sixteenths, or -1 where a voice is silent. As tokens, in this order,

    s_1 a_1 t_1 b_1 s_2 a_2 t_2 b_2 ...      0 to 127: that pitch    128: silent    129: end

and START, before each piece and after the last, is one frame of ends. A pitch that is held and
one that is repeated are the same.

A MIDI file becomes such a piece if it has four parts, a part being the notes of one channel in one
track: the highest on average is the soprano. Onsets and ends go to the nearest sixteenth, and a
note that has no length then, an ornament, is left out. Where two notes of a part overlap, the later
one sounds, and of two that begin together the higher one.
"""

from pathlib import Path

import numpy as np

from gen_jax.data import midi_files
from gen_jax.data.encoding import Encoding, Unsuitable
from gen_jax.data.notes import Notes
from gen_jax.errors import InputError
from gen_jax.types import DataSpec

NUM_VOICES = 4
SILENT, END = 128, 129
FRAMES_PER_BEAT = 4
_VELOCITY, _ORGAN, _BEATS_PER_MINUTE = 80, 19, 80  # how pieces are played
_SPLITS = ('train', 'valid', 'test')
_OFF_GRID = 0.25  # sixteenths from the grid
_MOST_ASTRAY = 0.1  # the share of onsets off the grid, or of frames that hold a chord in one voice


def encoding() -> Encoding:
    """Its unit is the frame of music, a quarter of which each token makes that is no end."""
    per_token = np.full((END + 1, 1), 1 / NUM_VOICES, np.float32)
    per_token[END] = 0
    return Encoding(
        DataSpec((), 'int32', vocab_size=END + 1, start_token=END, units=('frame',)),
        np.full(NUM_VOICES, END, np.uint8),
        per_token,
        np.where(np.arange(END + 1) < SILENT, np.arange(END + 1), -1),
        (36, 81),  # of four-part writing: from the bass's C two octaves below middle C
        to_tokens,
        lambda path: to_tokens(of_midi(path)),
    )


def to_tokens(piece: np.ndarray) -> np.ndarray:
    """Pitches `[T, 4]`, -1 where silent, to tokens, uint8 `[4 T]`."""
    return np.where(piece < 0, SILENT, piece.astype(np.uint8)).reshape(-1)


def decode(x: np.ndarray) -> np.ndarray:
    """Tokens `[N, 4 T]` to pitches, int8 `[N, T, 4]`; -1 where silent, and from the first frame on
    in which a voice ends: each row is one piece, or its beginning."""
    frames = np.asarray(x).reshape(len(x), -1, NUM_VOICES)
    ended = np.logical_or.accumulate((frames == END).any(-1), axis=1)
    return np.where(ended[..., None] | (frames == SILENT), -1, frames).astype(np.int8)


def to_notes(piece: np.ndarray) -> Notes:
    """Pitches `[T, 4]` as notes: equal pitches of a voice in a row are one note, held."""
    padded = np.pad(piece.astype(int), ((1, 1), (0, 0)), constant_values=-1)
    changes = padded[1:] != padded[:-1]  # [T + 1, 4]: at which frames something begins or ends
    columns = []
    for voice in range(NUM_VOICES):
        at = np.flatnonzero(changes[:, voice])
        pitch = padded[at[:-1] + 1, voice]
        sounds = pitch >= 0
        part = np.full(sounds.sum(), voice)
        columns.append((at[:-1][sounds], np.diff(at)[sounds], pitch[sounds], part))
    start, duration, pitch, part = (np.concatenate(column) for column in zip(*columns, strict=True))
    velocity, program = np.full(len(start), _VELOCITY), np.full(len(start), _ORGAN)
    return Notes(
        start, duration, pitch, velocity, program, part, FRAMES_PER_BEAT, _BEATS_PER_MINUTE
    )


def of_midi(path: Path, *, melody: bool = False) -> np.ndarray:
    """The four voices of a MIDI file, int8 `[T, 4]`; with `melody` it may be a soprano alone.

    Raises:
      Unsuitable: it cannot be read, or has not four voices on a grid of sixteenths.
    """
    parts = midi_files.read_parts(path)
    if len(parts) != NUM_VOICES and not (melody and len(parts) == 1):
        raise Unsuitable(f'{len(parts)} part(s) instead of {NUM_VOICES}')
    onsets = FRAMES_PER_BEAT * np.concatenate([part.start for part in parts])
    if (np.abs(onsets - np.rint(onsets)) > _OFF_GRID).mean() > _MOST_ASTRAY:
        raise Unsuitable('not on a grid of sixteenths')
    num_frames = int(np.rint(FRAMES_PER_BEAT * max(part.end.max() for part in parts)))
    parts.sort(key=lambda part: -part.pitch.mean())
    lines = [_melody(part, num_frames) for part in parts]
    silent = [np.full(num_frames, -1, np.int8)] * (NUM_VOICES - len(lines))
    return np.stack(lines + silent, axis=1)


def _melody(part: midi_files.Part, num_frames: int) -> np.ndarray:
    """A part as one voice, int8 `[T]`."""
    start, end = (np.rint(FRAMES_PER_BEAT * time).astype(int) for time in (part.start, part.end))
    line = np.full(num_frames, -1, np.int8)
    for row in np.lexsort((part.pitch, start)):
        line[start[row] : end[row]] = part.pitch[row]
    covered = (line >= 0).sum()
    if covered == 0:
        raise Unsuitable('a part without a note of a sixteenth')
    if (end - start).sum() > (1 + _MOST_ASTRAY) * covered:
        raise Unsuitable('a part with chords')
    return line


def is_file(data_dir: str | None) -> bool:
    """Whether this names a file of pieces, as `read` takes it, and not a folder."""
    return data_dir is not None and data_dir.endswith('.npz')


def read(data_dir: str) -> dict[str, list[np.ndarray]]:
    """The pieces, int8 `[T, 4]`, of each split of an .npz file.

    For the splits train, valid and test it holds `<split>_steps`, int8 `[time, 4]`, all pieces in a
    row, and `<split>_offsets`, int `[number + 1]`: piece i is rows offsets[i] to offsets[i + 1].

    Raises:
      InputError: there is no such file, or something else is in it.
    """
    path = Path(data_dir).expanduser()
    if not path.is_file():
        raise InputError(f'data.data_dir: there is no file {path}')
    try:
        with np.load(path) as file:
            arrays = {s: (file[f'{s}_steps'], file[f'{s}_offsets']) for s in _SPLITS}
    except Exception as error:  # A damaged archive makes NumPy raise nearly anything.
        wanted = '<split>_steps and <split>_offsets for train, valid and test'
        raise InputError(f'data.data_dir: {path} must hold {wanted}: {error}') from None
    pieces = {}
    for split, (steps, offsets) in arrays.items():
        if not _is_sound(steps, offsets):
            raise InputError(
                f'data.data_dir: {split} in {path}: steps must be pitches from -1 to 127, '
                '[time, 4], and offsets rise from 0 to their number'
            )
        steps = steps.astype(np.int8)
        pieces[split] = np.split(steps, offsets[1:-1])
    return pieces


def _is_sound(steps: np.ndarray, offsets: np.ndarray) -> bool:
    whole = np.issubdtype(steps.dtype, np.integer) and np.issubdtype(offsets.dtype, np.integer)
    if not whole or steps.ndim != 2 or steps.shape[1] != NUM_VOICES or offsets.ndim != 1:
        return False
    in_order = len(offsets) > 1 and offsets[0] == 0 and offsets[-1] == len(steps)
    return in_order and np.all(np.diff(offsets) > 0) and np.all((steps >= -1) & (steps <= 127))
