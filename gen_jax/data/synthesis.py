"""A small synthesizer: notes become sound, by adding sines.

A note of pitch p (MIDI) that lasts d seconds sounds, t seconds after its onset and at the rate R,

    (1) f = 440 * 2^((p - 69) / 12)                                      equal temperament
    (2) tone(t) = sum_k a_k sin(2 pi k f t) / sum_k a_k,     k with k f < R / 2: nothing folds back
    (3) envelope(t) = min(t / A, 1) (S + (1 - S) exp(-max(t - A, 0) / D)) min(1, 1 - (t - d) / E)

with attack A, decay D, sustain S and end E of its timbre: struck and plucked instruments have
S = 0, the others hold. Percussion is noise in such an envelope. The sum of all notes is scaled down
where it would exceed 0.9.
"""

import io
import wave
from typing import NamedTuple

import numpy as np

from gen_jax.data.notes import DRUMS, Notes

RATE = 22_050  # samples per second
_LOUDEST = 0.9
_NOTE = 0.2  # the amplitude of one note of velocity 127


class _Timbre(NamedTuple):
    """`amplitudes` are a_1, a_2, ... of equation (2), none for noise; times are in seconds."""

    amplitudes: tuple[float, ...]
    attack: float
    decay: float
    sustain: float
    end: float


_TIMBRES = (
    _Timbre((1.0, 0.5, 0.35, 0.15, 0.1, 0.05), 0.03, 0.2, 0.75, 0.08),  # held
    _Timbre((1.0, 0.6, 0.3, 0.2, 0.1, 0.1, 0.05), 0.004, 0.7, 0.0, 0.1),  # struck
    _Timbre((), 0.001, 0.06, 0.0, 0.05),  # noise
)
_HELD, _STRUCK, _NOISE = range(3)
# Of General MIDI: keyboards and mallets; guitars and basses; harp and the like; banjo to woodblock.
_STRUCK_PROGRAMS = (*range(16), *range(24, 40), 45, 46, 47, *range(104, 109), *range(112, 119))


def render(notes: Notes) -> np.ndarray:
    """The sound of notes, float32 `[samples]` in (-1, 1), until the last one has died away."""
    seconds = notes.seconds_per_tick
    begin = np.rint(notes.start * seconds * RATE).astype(int)
    kind = np.where(np.isin(notes.program, _STRUCK_PROGRAMS), _STRUCK, _HELD)
    kind = np.where(notes.program == DRUMS, _NOISE, kind)
    tail = max(timbre.end for timbre in _TIMBRES)
    sound = np.zeros(int((notes.end * seconds + tail) * RATE) + 2, np.float32)
    # Equal notes are made once: music repeats itself.
    keys = np.stack([kind, notes.pitch, notes.duration], axis=1)
    unique, numbers, counts = np.unique(keys, axis=0, return_inverse=True, return_counts=True)
    rows = np.split(np.argsort(numbers, kind='stable'), np.cumsum(counts)[:-1])
    for (which, pitch, duration), equal in zip(unique, rows, strict=False):
        note = _note(_TIMBRES[which], int(pitch), duration * seconds)
        for row in equal:
            sound[begin[row] : begin[row] + len(note)] += (
                np.float32(_NOTE * notes.velocity[row] / 127) * note
            )
    sound *= np.float32(_LOUDEST / max(np.abs(sound).max(), _LOUDEST))
    return sound


def write(sound: np.ndarray) -> bytes:
    """A WAV file, 16 bits, one channel, of a sound in [-1, 1]."""
    buffer = io.BytesIO()
    with wave.open(buffer, 'wb') as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(np.rint(sound * 32767).astype('<i2').tobytes())
    return buffer.getvalue()


def _note(timbre: _Timbre, pitch: int, duration: float) -> np.ndarray:
    """Equations (2) and (3), float32 `[samples]`."""
    t = np.arange(int((duration + timbre.end) * RATE) + 1) / RATE
    envelope = np.exp(-np.maximum(t - timbre.attack, 0) / timbre.decay)
    envelope = timbre.sustain + (1 - timbre.sustain) * envelope
    envelope *= np.minimum(t / timbre.attack, 1)
    envelope *= np.clip(1 - (t - duration) / timbre.end, 0, 1)
    if not timbre.amplitudes:
        tone = np.random.default_rng(pitch).uniform(-1, 1, len(t))
    else:
        tone = _tone(timbre.amplitudes, 440 * 2 ** ((pitch - 69) / 12), t)
    return (tone * envelope).astype(np.float32)


def _tone(amplitudes: tuple[float, ...], frequency: float, t: np.ndarray) -> np.ndarray:
    """Equation (2), by sin((k + 1) u) = 2 cos(u) sin(k u) - sin((k - 1) u)."""
    turn = (2 * np.pi * (frequency * t % 1)).astype(np.float32)
    sine, double_cosine = np.sin(turn), 2 * np.cos(turn)
    tone, earlier = np.zeros_like(sine), np.zeros_like(sine)
    for k, amplitude in enumerate(amplitudes, start=1):
        if k * frequency >= RATE / 2:
            break
        tone += np.float32(amplitude) * sine
        sine, earlier = double_cosine * sine - earlier, sine
    return tone / np.float32(sum(amplitudes))
