"""Music of any number of instruments, note by note: the encoding 'events', the REMI of miditok.

Tokens are those of Huang & Yang 2020 (arXiv:2002.00212), as miditok (Fradet et al. 2021) makes them
for several instruments in one stream:

    Bar   Position_p   ( Program_i   Pitch_n | PitchDrum_n   Velocity_v   Duration_d ) ...

a new bar of four beats; the twelfth of a beat, 0 to 47, at which what follows begins; and for each
note who plays it (General MIDI, -1 for drums), its pitch, one of 16 velocities, and how long it is:
twelfths of a beat below four beats, quarters of one below twelve. Tempo, meter and pedals are not
kept: what is drawn plays at 120 beats a minute. START is the token EOS.

A note is `NOTE` numbers: start and duration in twelfths of a beat, pitch, velocity and program.
"""

import functools
import sys
from types import ModuleType

import numpy as np

from gen_jax.data import midi_files, voices
from gen_jax.data.encoding import Encoding, Unsuitable
from gen_jax.data.notes import DRUMS, Notes
from gen_jax.errors import InputError
from gen_jax.types import DataSpec

NOTE = 5
_TICKS_PER_BEAT, _BEATS_PER_MINUTE = 12, 120
_SHORTEST = 3  # tokens of a note that is like the one before in all that can be left out
_START = 'EOS_None'


def encoding() -> Encoding:
    """Its unit is the note: that which has a pitch.

    Raises:
      InputError: miditok is not installed.
    """
    words = list(_tokenizer().vocab)
    kinds, values = zip(*(word.split('_', 1) for word in words), strict=True)
    is_pitch = np.array([kind == 'Pitch' for kind in kinds])
    is_note = is_pitch | [kind == 'PitchDrum' for kind in kinds]
    start = words.index(_START)
    return Encoding(
        DataSpec(
            (),
            'int32',
            vocab_size=len(words),
            start_token=start,
            units=('note',),
            words=tuple(words),
        ),
        np.array([start], np.uint16),
        is_note[:, None].astype(np.float32),
        np.array([int(v) if p else -1 for v, p in zip(values, is_pitch, strict=True)]),
        (0, 127),
        lambda piece: _encode(midi_files.write(voices.to_notes(piece))),
        lambda path: _encode(path.read_bytes()),
    )


def decode(x: np.ndarray, spec: DataSpec) -> np.ndarray:
    """Tokens `[N, L]` to notes, int32 `[N, L // 3, 5]`, in order of their starts, up to the first
    start token of a row; rows without a note, at the end, have duration 0.

    Raises:
      InputError: this vocabulary is not that of the miditok that is installed.
    """
    tokenizer = _tokenizer()
    if spec.words != tuple(tokenizer.vocab):
        raise InputError('data.encoding: the installed miditok has another vocabulary')
    notes = np.zeros((len(x), x.shape[1] // _SHORTEST, NOTE), np.int32)
    for row, tokens in zip(notes, np.asarray(x), strict=True):
        ended = np.logical_or.accumulate(tokens == spec.start_token)
        if ended[0]:  # The library cannot decode nothing.
            continue
        score = tokenizer.decode(tokens[~ended].tolist())
        found = [_of_track(track) for track in score.tracks]
        found = np.concatenate([np.zeros((0, NOTE), int), *found])
        found = found[np.lexsort((found[:, 2], found[:, 0]))]
        row[: len(found)] = found
    return notes


def to_notes(piece: np.ndarray) -> Notes:
    """Notes `[K, 5]`; each program is one part."""
    start, duration, pitch, velocity, program = piece[piece[:, 1] > 0].T
    return Notes(
        start, duration, pitch, velocity, program, program, _TICKS_PER_BEAT, _BEATS_PER_MINUTE
    )


def _encode(midi: bytes) -> np.ndarray:
    """A MIDI file as tokens.

    Raises:
      Unsuitable: it cannot be read, or has no notes, or is too long to be music.
    """
    import symusic

    try:
        score = symusic.Score.from_midi(midi)
    except Exception as error:  # Its parser raises what it meets.
        raise Unsuitable(f'not readable as MIDI: {str(error) or type(error).__name__}') from None
    if score.tpq < 1 or score.end() > midi_files.MOST_BEATS * score.tpq:
        raise Unsuitable(f'longer than {midi_files.MOST_BEATS:,} beats')
    tokens = np.array(_tokenizer().encode(score).ids, np.uint16)
    if not len(tokens):
        raise Unsuitable('no notes')
    return tokens


def _of_track(track) -> np.ndarray:
    """The notes of a track of symusic, int `[K, 5]`."""
    columns = track.notes.numpy()
    program = np.full(len(columns['time']), DRUMS if track.is_drum else track.program)
    names = ('time', 'duration', 'pitch', 'velocity')
    return np.stack([*(columns[name] for name in names), program], axis=1)


def _tokenizer():
    """REMI with the settings above; its words never depend on what is encoded."""
    miditok = _miditok()
    settings = miditok.TokenizerConfig(
        pitch_range=(0, 127),
        beat_res={(0, 4): _TICKS_PER_BEAT, (4, 12): 4},
        num_velocities=16,
        special_tokens=['EOS'],
        use_programs=True,
        use_time_signatures=False,
    )
    return miditok.REMI(settings)


@functools.cache
def _miditok() -> ModuleType:
    """The library, without its loaders for torch, which it would import wherever torch is."""
    loaders = 'miditok.pytorch_data'
    closed = loaders not in sys.modules
    if closed:
        sys.modules[loaders] = None  # its import fails, and miditok goes on without
    try:
        import miditok
    except ImportError:
        raise InputError(
            "data.encoding: 'events' needs miditok; pip install 'gen_jax[music]'"
        ) from None
    finally:
        if closed:
            del sys.modules[loaders]
    return miditok
