"""How many nats does a frame of a chorale cost without a network? See README.md beside this file.

python experiments/chorales/measure.py --data_dir=FILE.npz
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy import optimize

sys.path.insert(0, str(Path(__file__).parents[2]))

from gen_jax.data import music, voices, windows

VOICES, END = voices.NUM_VOICES, voices.END
# What each voice is given: tokens so many places earlier, the most telling first. 4 and 8 are the
# same voice one and two frames ago; 1 and 2 the voices above it now, or for the soprano the lowest
# ones of the frame before.
CONTEXTS = {
    'Markov, order 0': (),
    'Markov, order 1: itself': (4,),
    'Markov, order 2: itself, itself before that': (4, 8),
    'Markov, order 2: itself, the voice above': (4, 1),
    'Markov, order 3: itself, the voice above, itself before that': (4, 1, 8),
    'Markov, order 3: itself, the two voices above': (4, 1, 2),
}
# Smoothing constants -> log-probabilities of the tokens, or frames, of one stream.
Scorer = Callable[[list[float]], np.ndarray]


def main() -> None:
    """Prints nats per frame of every model, its smoothing chosen on the split `valid`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--data_dir', required=True, help='.npz of chorales; see data/voices.py')
    data_dir = parser.parse_args().data_dir

    pieces = map(voices.to_tokens, voices.read(data_dir)['train'])
    train = windows.join(pieces, voices.encoding().start)[VOICES:].astype(int)
    valid, test = (evaluated(data_dir, split) for split in ('valid', 'test'))
    print(f'{count(train):,} training, {count(valid):,} valid, {count(test):,} test frames')
    models = {
        'repeat the frame, or draw another': (1, repeat(train, together=True)),
        'repeat each voice, or draw another pitch': (1, repeat(train, together=False)),
        **{name: (1 + len(lags), markov(train, lags)) for name, lags in CONTEXTS.items()},
    }
    for name, (num_constants, model) in models.items():
        constants = choose(model(valid), num_constants)
        nats = [-model(stream)(constants).sum() / count(stream) for stream in (valid, test)]
        shown = ', '.join(f'{constant:.3g}' for constant in constants)
        print(f'{name}: valid {nats[0]:.4f}, test {nats[1]:.4f} nats per frame ({shown})')


def evaluated(data_dir: str, split: str) -> np.ndarray:
    """The tokens that the evaluation of a network predicts, int `[4 T]`, taken from its batches."""
    windows_of = music.load(data_dir=data_dir, evaluation_split=split).evaluation
    numbers = np.arange(windows_of.num_examples)
    batch = windows_of.transform(windows_of.fetch(numbers), np.zeros(len(numbers), np.uint64))
    stream = batch['x'][batch['weight'] == 1].astype(int)
    assert batch['counts'].sum() == count(stream)
    return stream


def count(stream: np.ndarray) -> int:
    """Frames of music: those of ends are no music, yet they cost nats."""
    return int((stream != END).sum()) // VOICES


def choose(score: Scorer, num_constants: int) -> list[float]:
    """The smoothing constants under which a stream is most likely."""
    found = optimize.minimize(
        lambda logs: -score(list(np.exp(logs))).sum(),
        np.full(num_constants, np.log(16.0)),
        method='L-BFGS-B',
        bounds=[(-8, 12)] * num_constants,
    )
    return [float(constant) for constant in np.exp(found.x)]


def repeat(train: np.ndarray, together: bool) -> Callable[[np.ndarray], Scorer]:
    """Frames f that repeat the one before, p, or change.

    P(end | p) = e; else  P(f | p) = (1 - e) prod_i (1 - c_i if f_i = p_i else
    c_i u_i(f_i) / (1 - u_i(p_i))), over the four voices, or over the frame as a whole if
    `together`, u then being the product over voices. The first frame of a piece is drawn from u.
    e and c are shares of the training frames, with one half added on both sides; u are frequencies
    of tokens of a voice, with the smoothing constant added to each.
    """

    def parts(stream: np.ndarray, log_u: np.ndarray) -> np.ndarray:
        logs = log_u[np.arange(VOICES), stream % END]
        return logs.sum(1, keepdims=True) if together else logs

    def pairs(stream: np.ndarray) -> tuple[np.ndarray, ...]:
        now = stream.reshape(-1, VOICES)
        before = np.concatenate([np.full((1, VOICES), END), now[:-1]])
        changed = now != before
        return now, before, changed.any(1, keepdims=True) if together else changed

    now, before, changed = pairs(train)
    inside = (now[:, 0] != END) & (before[:, 0] != END)
    c = (changed[inside].sum(0) + 0.5) / (inside.sum() + 1)
    e = ((now[:, 0] == END).sum() + 0.5) / ((before[:, 0] != END).sum() + 1)
    frequency = np.stack([np.bincount(voice, minlength=END)[:END] for voice in now.T])

    def model(stream: np.ndarray) -> Scorer:
        now, before, changed = pairs(stream)
        begins, ends = before[:, 0] == END, now[:, 0] == END

        def score(constants: list[float]) -> np.ndarray:
            log_u = np.log(frequency + constants[0])
            log_u -= np.logaddexp.reduce(log_u, axis=1, keepdims=True)
            new = parts(now, log_u)
            other = np.log(c) + new - np.log1p(-np.exp(parts(before, log_u)))
            going_on = np.log1p(-e) + np.where(changed, other, np.log1p(-c)).sum(1)
            return np.where(ends, np.log(e), np.where(begins, new.sum(1), going_on))

        return score

    return model


def markov(train: np.ndarray, lags: tuple[int, ...]) -> Callable[[np.ndarray], Scorer]:
    """P_k(x) = (n(c_k, x) + a_k P_{k-1}(x)) / (n(c_k) + a_k): the context c_k is the voice and the
    tokens at the first k lags, n counts in training, P_{-1} is uniform over all tokens (MacKay &
    Peto 1995, with one constant a_k for each order)."""

    def contexts(stream: np.ndarray) -> list[np.ndarray]:
        """For each order, a number that stands for the context of every token."""
        padded = np.concatenate([np.full(max(lags, default=0), END), stream])
        keys = [np.arange(len(stream)) % VOICES]
        for lag in lags:
            start = len(padded) - len(stream) - lag
            keys.append(keys[-1] * (END + 1) + padded[start : start + len(stream)])
        return keys

    trained = [(key, key * (END + 1) + train) for key in contexts(train)]
    counts = [[np.unique(keys, return_counts=True) for keys in pair] for pair in trained]

    def model(stream: np.ndarray) -> Scorer:
        asked = [(key, key * (END + 1) + stream) for key in contexts(stream)]
        found = [
            [look_up(table, keys) for table, keys in zip(*pair, strict=True)]
            for pair in zip(counts, asked, strict=True)
        ]

        def score(constants: list[float]) -> np.ndarray:
            probability = np.full(len(stream), 1 / (END + 1))
            for (seen, joint), a in zip(found, constants, strict=True):
                probability = (joint + a * probability) / (seen + a)
            return np.log(probability)

        return score

    return model


def look_up(table: tuple[np.ndarray, np.ndarray], keys: np.ndarray) -> np.ndarray:
    """How often each key was counted; 0 where it never was."""
    known, counts = table
    places = np.minimum(np.searchsorted(known, keys), len(known) - 1)
    return np.where(known[places] == keys, counts[places], 0)


if __name__ == '__main__':
    main()
