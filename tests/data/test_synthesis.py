"""Sound: as long, as high and as loud as the notes say."""

import io
import wave

import numpy as np
import pytest

from gen_jax.data import synthesis
from gen_jax.data.notes import DRUMS, Notes, one_after_another

PIANO, ORGAN = 0, 19


def notes_of(*rows) -> Notes:
    """Rows of start, duration, pitch, velocity, program; ten ticks are a second."""
    start, duration, pitch, velocity, program = np.array(rows, int).reshape(-1, 5).T
    return Notes(start, duration, pitch, velocity, program, np.zeros_like(pitch), 10, 60)


@pytest.mark.parametrize('program', [PIANO, ORGAN])
@pytest.mark.parametrize(('pitch', 'hertz'), [(69, 440), (60, 261.626), (33, 55), (96, 2093.005)])
def test_a_tone_has_its_fundamental_frequency_and_multiples_of_it(pitch, hertz, program):
    sound = synthesis.render(notes_of((0, 20, pitch, 100, program)))[: 2 * synthesis.RATE]
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound))))
    resolution = synthesis.RATE / len(sound)  # of the transform, half a hertz
    assert spectrum.argmax() * resolution == pytest.approx(hertz, abs=resolution)
    frequency = np.arange(len(spectrum)) * resolution
    partial = np.round(frequency / hertz)
    near = (np.abs(frequency - partial * hertz) < 8) & (partial >= 1) & (partial <= 7)
    power = spectrum**2
    assert power[near].sum() > 0.999 * power.sum()


def test_a_note_is_what_the_equations_say():
    """Added up sine by sine, in double precision."""
    timbre = synthesis._TIMBRES[synthesis._HELD]
    sound = synthesis.render(notes_of((0, 5, 57, 127, ORGAN)))
    t = np.arange(len(sound)) / synthesis.RATE
    amplitudes = enumerate(timbre.amplitudes, start=1)
    tone = sum(a * np.sin(2 * np.pi * k * 220 * t) for k, a in amplitudes)
    falling = (1 - timbre.sustain) * np.exp(-np.maximum(t - timbre.attack, 0) / timbre.decay)
    envelope = np.minimum(t / timbre.attack, 1) * (timbre.sustain + falling)
    envelope *= np.clip(1 - (t - 0.5) / timbre.end, 0, 1)
    expected = 0.2 * tone * envelope / sum(timbre.amplitudes)
    np.testing.assert_allclose(sound, expected, atol=1e-5)


def test_nothing_is_folded_back():
    """The second partial of 8,372 Hz would lie above half the rate, and come back as another."""
    sound = synthesis.render(notes_of((0, 10, 120, 100, ORGAN)))
    spectrum = np.abs(np.fft.rfft(sound)) ** 2
    frequency = np.fft.rfftfreq(len(sound), 1 / synthesis.RATE)
    assert spectrum[np.abs(frequency - 8372) < 50].sum() > 0.99 * spectrum.sum()
    assert not synthesis.render(notes_of((0, 10, 127, 100, ORGAN))).any()  # cannot sound at all


def test_sound_begins_and_ends_with_its_notes():
    sound = synthesis.render(notes_of((10, 10, 60, 100, ORGAN)))
    heard = np.flatnonzero(np.abs(sound) > 1e-4) / synthesis.RATE
    assert heard[0] == pytest.approx(1, abs=0.01)
    assert heard[-1] == pytest.approx(2.08, abs=0.01)  # with what is left to die away
    assert len(sound) / synthesis.RATE == pytest.approx(2.1, abs=0.001)


def test_held_notes_hold_and_struck_ones_decay():
    def loudness(program, second):
        sound = synthesis.render(notes_of((0, 40, 60, 100, program)))
        part = sound[int(second * synthesis.RATE) :][:2000]
        return np.sqrt((part**2).mean())

    assert loudness(ORGAN, 3) == pytest.approx(loudness(ORGAN, 1.5), rel=0.05)
    assert loudness(PIANO, 3) < 0.15 * loudness(PIANO, 1.5)


def test_notes_add_up_and_grow_with_velocity():
    one, two = (0, 10, 60, 60, ORGAN), (5, 10, 67, 120, PIANO)
    together = synthesis.render(notes_of(one, two))
    parts = [synthesis.render(notes_of(row)) for row in (one, two)]
    parts = [np.pad(part, (0, len(together) - len(part))) for part in parts]
    np.testing.assert_allclose(together, sum(parts), atol=1e-6)
    louder = synthesis.render(notes_of((0, 10, 60, 120, ORGAN)))
    np.testing.assert_allclose(louder, 2 * synthesis.render(notes_of(one)), atol=1e-6)


def test_any_number_of_notes_stays_below_one():
    crowd = [(0, 10, pitch, 127, program) for pitch in range(30, 90) for program in (0, 19, DRUMS)]
    sound = synthesis.render(notes_of(*crowd))
    assert 0.89 < np.abs(sound).max() <= 0.9 + 1e-6
    assert np.isfinite(sound).all()


def test_drums_are_noise_and_the_same_each_time():
    one, two = (synthesis.render(notes_of((0, 5, 38, 100, DRUMS))) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    spectrum = np.abs(np.fft.rfft(one)) ** 2
    assert spectrum.max() < 0.05 * spectrum.sum()


def test_the_file_is_of_sixteen_bits_and_holds_the_sound():
    sound = synthesis.render(notes_of((0, 3, 60, 100, PIANO)))
    with wave.open(io.BytesIO(synthesis.write(sound))) as file:
        form = (file.getnchannels(), file.getsampwidth(), file.getframerate(), file.getnframes())
        samples = np.frombuffer(file.readframes(len(sound)), '<i2')
    assert form == (1, 2, 22_050, len(sound))
    np.testing.assert_allclose(samples / 32767, sound, atol=1 / 32767)


def test_silence():
    sound = synthesis.render(notes_of())
    assert len(sound) > 0 and not sound.any()


def test_pieces_follow_one_another_after_a_pause():
    piece = notes_of((0, 10, 60, 100, ORGAN), (5, 10, 64, 100, ORGAN))
    row = one_after_another([piece, notes_of(), piece], pause=2)
    assert row.start.tolist() == [0, 5, 15 + 20 + 20, 60]
    assert row.pitch.tolist() == [60, 64, 60, 64]
    assert row.end == 70
    assert row.before(5.6).start.tolist() == [0, 5, 55]  # ten ticks are a second
