"""How legible are sampled digits? See README.md beside this file.

python experiments/digits_legibility/measure.py --samples=FILE.npz
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from sklearn.neural_network import MLPClassifier

sys.path.insert(0, str(Path(__file__).parents[2]))

from gen_jax.data import images

CONFIDENT = 0.9


def main() -> None:
    """Trains the reader on real digits and prints how sure it is of real and sampled ones."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--samples', required=True, help='.npz of --mode=sample: x, and label')
    arguments = parser.parse_args()

    dataset = images.load(source='embedded', name='digits')
    train, held_out = (split_arrays(s, dataset.spec) for s in (dataset.train, dataset.evaluation))
    with np.load(arguments.samples) as file:
        sampled = file['x'], file.get('label')

    reader = MLPClassifier((256,), alpha=0.01, max_iter=500, random_state=0)
    reader.fit(flat(train[0]), train[1])
    print(f'reader: accuracy {reader.score(flat(held_out[0]), held_out[1]):.4f} on held-out digits')
    for name, (x, label) in (('real held-out', held_out), ('sampled', sampled)):
        report(name, reader.predict_proba(flat(x)), label)


def split_arrays(split, spec) -> tuple[np.ndarray, np.ndarray]:
    """All images of a split as uint8, scaled as samples are, and their labels."""
    everything = np.arange(split.num_examples)
    batch = split.transform(split.fetch(everything), np.zeros(len(everything), np.uint64))
    return images.decode(batch['x'], spec), batch['label']


def flat(x: np.ndarray) -> np.ndarray:
    """Images as rows of numbers from 0 to 1."""
    return x.reshape(len(x), -1) / 255


def report(name: str, probability: np.ndarray, label: np.ndarray | None) -> None:
    """One line: how many, how often confident, and how often as labeled."""
    confident = (probability.max(1) > CONFIDENT).mean()
    line = f'{name}: n = {len(probability)}, confident (p > {CONFIDENT}) {confident:.4f}'
    if label is not None:
        line += f', read as labeled {(probability.argmax(1) == label).mean():.4f}'
    print(line)


if __name__ == '__main__':
    main()
