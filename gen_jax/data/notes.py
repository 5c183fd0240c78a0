"""Notes in time: what is written as MIDI and played, whatever they were encoded as."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

DRUMS = -1  # the program of percussion, which MIDI gives channel 9 (the tenth)


class Notes(NamedTuple):
    """K notes, each an int array `[K]`; times in ticks, of which a beat has `ticks_per_beat`.

    `program` is that of General MIDI, 0 to 127, or DRUMS; `part` is who plays: notes of one part
    share a track.
    """

    start: np.ndarray
    duration: np.ndarray
    pitch: np.ndarray  # MIDI: 60 is middle C, 69 is 440 Hz
    velocity: np.ndarray  # 1 to 127
    program: np.ndarray
    part: np.ndarray
    ticks_per_beat: int
    beats_per_minute: float

    @property
    def end(self) -> int:
        """The tick at which the last note ends; 0 without notes."""
        return int((self.start + self.duration).max(initial=0))

    @property
    def seconds_per_tick(self) -> float:
        """How long a tick is."""
        return 60 / self.beats_per_minute / self.ticks_per_beat

    def before(self, seconds: float) -> 'Notes':
        """The notes that begin before this time."""
        early = self.start * self.seconds_per_tick < seconds
        return Notes(*(column[early] for column in self[:6]), *self[6:])


def one_after_another(pieces: Sequence[Notes], pause: float) -> Notes:
    """Pieces of one tempo in a row, with `pause` beats of silence after each but the last."""
    first, begin, starts = pieces[0], 0, []
    for piece in pieces:
        starts.append(piece.start + begin)
        begin += piece.end + round(pause * first.ticks_per_beat)
    columns = (np.concatenate(column) for column in zip(*(p[1:6] for p in pieces), strict=True))
    return Notes(np.concatenate(starts), *columns, first.ticks_per_beat, first.beats_per_minute)
