"""What drawn chorales are like beside real ones: see README.md.

    python experiments/chorales/voices.py --data_dir=jsb_chorales_16th.npz --samples=SAMPLES.npz

SAMPLES.npz is of `--mode=sample`: array `x`, pitches `[N, T, 4]`, -1 where silent.
"""

import argparse

import numpy as np

from gen_jax.data import voices
from gen_jax.metrics import music


def main() -> None:
    """Prints one line for each measure: samples, and the test split in their place."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--data_dir', required=True)
    parser.add_argument('--samples', required=True)
    args = parser.parse_args()
    data = voices.read(args.data_dir)
    drawn = list(np.load(args.samples)['x'].astype(int))
    real = [piece.astype(int) for piece in data['test']]
    ranges = music.ranges(data['train'])
    print(f'{len(drawn)} drawn pieces, {len(real)} of the test split; ranges of the training split')
    measures = {
        'in_range': lambda pieces: music.in_range(pieces, ranges),
        'crossing': music.crossing,
        'pitch_classes': lambda pieces: music.pitch_classes(pieces, data['train']),
    }
    for name, measure in measures.items():
        shown = ', '.join('{:.4f} +- {:.4f}'.format(*measure(pieces)) for pieces in (drawn, real))
        print(f'{name:15}{shown}')


if __name__ == '__main__':
    main()
