"""MIDI files, read and written by mido: notes of parts."""

import io
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gen_jax.data.encoding import Unsuitable
from gen_jax.data.notes import DRUMS, Notes

if TYPE_CHECKING:
    import mido

SUFFIXES = ('.mid', '.midi')
MOST_BEATS = 2**14  # of a piece: more than two hours; only damaged files are longer
_DRUM_CHANNEL = 9
_MELODIC = tuple(channel for channel in range(16) if channel != _DRUM_CHANNEL)
_TICKS_PER_BEAT = 480


class Part(NamedTuple):
    """The notes of one channel in one track, in beats: float `[K]`, float `[K]`, int `[K]`."""

    start: np.ndarray
    end: np.ndarray
    pitch: np.ndarray


def read_parts(path: Path) -> list[Part]:
    """The parts of a MIDI file that have notes, one or more.

    Raises:
      Unsuitable: it is no MIDI file, or damaged, or has no notes, or drums, or no beats.
    """
    import mido

    try:
        file = mido.MidiFile(path)
    except Exception as error:  # A damaged file makes mido raise nearly anything.
        raise Unsuitable(f'not readable as MIDI: {str(error) or type(error).__name__}') from None
    if file.ticks_per_beat <= 0 or file.type == 2:
        raise Unsuitable('times are not in beats' if file.type != 2 else 'of type 2')
    parts = [part for track in file.tracks for part in _parts_of(track, file.ticks_per_beat)]
    if not parts:
        raise Unsuitable('no notes')
    if max(part.end.max() for part in parts) > MOST_BEATS:
        raise Unsuitable(f'longer than {MOST_BEATS:,} beats')
    return parts


def _parts_of(track: 'mido.MidiTrack', ticks_per_beat: int) -> list[Part]:
    """One for each channel; a note that is struck again ends, and what never ends does so with the
    track."""
    notes, sounding, now = defaultdict(list), {}, 0

    def end(channel: int, pitch: int) -> None:
        start = sounding.pop((channel, pitch), now)
        if now > start:
            notes[channel].append((start / ticks_per_beat, now / ticks_per_beat, pitch))

    for message in track:
        now += message.time
        if message.type in ('note_on', 'note_off'):
            end(message.channel, message.note)
            if message.type == 'note_on' and message.velocity > 0:
                sounding[message.channel, message.note] = now
    for key in list(sounding):
        end(*key)
    if _DRUM_CHANNEL in notes:
        raise Unsuitable('drums')
    columns = (zip(*rows, strict=True) for rows in notes.values())
    return [Part(*(np.array(column) for column in part)) for part in columns]


def write(notes: Notes) -> bytes:
    """A MIDI file with one track for each channel, all at one tempo.

    Parts take the channels in turn, but that of the drums. Where there are more than fifteen they
    share them, and the program changes as often as the player does.
    """
    import mido

    file = mido.MidiFile(ticks_per_beat=_TICKS_PER_BEAT)
    tempo = mido.bpm2tempo(notes.beats_per_minute)
    file.tracks.append(mido.MidiTrack([mido.MetaMessage('set_tempo', tempo=tempo)]))
    _, number = np.unique(notes.part, return_inverse=True)
    channel = np.take(_MELODIC, number % len(_MELODIC))
    channel = np.where(notes.program == DRUMS, _DRUM_CHANNEL, channel)
    for one in np.unique(channel):
        file.tracks.append(_track(notes, np.flatnonzero(channel == one), int(one)))
    buffer = io.BytesIO()
    file.save(file=buffer)
    return buffer.getvalue()


def _track(notes: Notes, rows: np.ndarray, channel: int) -> 'mido.MidiTrack':
    """The notes in these rows, all of one channel, as messages with the times between them."""
    import mido

    scale = _TICKS_PER_BEAT // notes.ticks_per_beat
    timed = []  # (tick, 0 for an end, 1 for a beginning, message)
    program = None
    for row in rows[np.argsort(notes.start[rows], kind='stable')]:
        start, duration, pitch, velocity, wanted, _ = (int(column[row]) for column in notes[:6])
        begin, end = start * scale, (start + duration) * scale
        if wanted not in (program, DRUMS):
            change = mido.Message('program_change', channel=channel, program=wanted)
            timed.append((begin, 1, change))
            program = wanted
        note = {'channel': channel, 'note': pitch}
        timed.append((begin, 1, mido.Message('note_on', **note, velocity=velocity)))
        timed.append((end, 0, mido.Message('note_off', **note, velocity=0)))
    timed.sort(key=lambda entry: entry[:2])
    track, now = mido.MidiTrack(), 0
    for tick, _, message in timed:
        message.time, now = tick - now, tick
        track.append(message)
    return track
