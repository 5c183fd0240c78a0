"""Do the metrics say what they should where the truth is known? See README.md beside this file.

python experiments/trusting_metrics/measure.py bias
python experiments/trusting_metrics/measure.py cifar --weights=FILE.npz --data_dir=DIR
python experiments/trusting_metrics/measure.py memorization --weights=FILE.npz --data_dir=DIR
"""

import argparse
import io
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

sys.path.insert(0, str(Path(__file__).parents[2]))

from gen_jax import parallel, runtime
from gen_jax.data import images
from gen_jax.features.extractor import Embedded, make_embedder
from gen_jax.features.inception import inception
from gen_jax.features.references import read, references
from gen_jax.metrics.frechet import frechet_distance, frechet_with_error, moments
from gen_jax.metrics.memorization import digests, exact_copies, memorization
from gen_jax.metrics.mmd import kid
from gen_jax.metrics.precision_recall import precision_recall

REPETITIONS = 20
DEGRADED = 2000  # images for each level of each degradation


def main() -> None:
    """Runs the experiment that is named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('experiment', choices=('bias', 'cifar', 'memorization'))
    parser.add_argument('--weights', help="Inception's, for cifar and memorization")
    parser.add_argument('--data_dir', help='where the TFDS set cifar10 lies')
    arguments = parser.parse_args()
    runtime.start()
    if arguments.experiment == 'bias':
        bias()
    elif arguments.experiment == 'cifar':
        cifar(arguments.weights, arguments.data_dir)
    else:
        control(arguments.weights, arguments.data_dir)


def bias() -> None:
    """FD and KID of two samples of one Gaussian in 64 dimensions: both should be 0."""
    rng = np.random.default_rng(0)
    print('| n | FD | KID |\n|---|---|---|')
    for n in (250, 500, 1000, 2000, 5000, 10_000):
        found = []
        for _ in range(REPETITIONS):
            x, y = rng.normal(size=(2, n, 64))
            found.append((frechet_distance(moments(x), moments(y)), kid(x, y)[0]))
        mean, error = np.mean(found, 0), np.std(found, 0, ddof=1) / np.sqrt(REPETITIONS)
        print(f'| {n:,} | {mean[0]:.4f} ± {error[0]:.4f} | {mean[1]:.6f} ± {error[1]:.6f} |')


class Cifar:
    """CIFAR-10 as Inception sees it."""

    def __init__(self, weights: str, data_dir: str):
        self.dataset = images.load(source='tfds', name='cifar10', data_dir=data_dir)
        self.extractor = inception(self.dataset.spec, weights=weights)
        self.embed = make_embedder(self.extractor, parallel.lay_out(), 50)

    def images(self, split: str, num: int) -> np.ndarray:
        """Images spread evenly over a split."""
        whole = getattr(self.dataset, split)
        numbers = np.linspace(0, whole.num_examples - 1, num).round().astype(int)
        return read(whole, numbers, images.decode, self.dataset.spec)

    def reference(self, split: str, num: int) -> Embedded:
        """The same with their features, which are kept."""
        given = (self.dataset, split, num, images.decode, self.extractor, self.embed)
        return references(*given)


def cifar(weights: str, data_dir: str) -> None:
    """The test images against the training images, whole and damaged."""
    set_ = Cifar(weights, data_dir)
    some, name = set_.images('evaluation', 1000), set_.extractor.frechet
    set_.embed(some[:50])  # compiles
    started = time.perf_counter()
    set_.embed(some)
    seconds = time.perf_counter() - started
    print(f'{name}, weights {set_.extractor.hash}: {seconds:.1f} s for 1,000 images', flush=True)
    train, test = (set_.reference(split, 10_000) for split in ('train', 'evaluation'))
    print(f'\n| n | {name} | KID |\n|---|---|---|')
    for n in (1000, 2000, 5000, 10_000):
        some = test.features[:n]
        fd, distance = frechet_with_error(some, moments(train.features)), kid(some, train.features)
        print(f'| {n:,} | {_pair(fd)} | {_pair(distance)} |')
    for key, value in precision_recall(train.features, test.features).items():
        print(f'{key}: {_pair(value)}')

    print(f'\n| damage, n = {DEGRADED:,} | level | {name} | KID |\n|---|---|---|---|')
    clean = set_.images('evaluation', DEGRADED)

    def row(damage: str, level: float | str, damaged: np.ndarray) -> None:
        features = set_.embed(damaged).features
        fd, distance = (
            frechet_with_error(features, moments(train.features)),
            kid(features, train.features),
        )
        print(f'| {damage} | {level} | {_pair(fd)} | {_pair(distance)} |', flush=True)

    row('none', '', clean)
    for damage, (apply, levels) in DAMAGES.items():
        for level in levels:
            row(damage, level, np.stack([apply(image, level) for image in clean]))


def control(weights: str, data_dir: str) -> None:
    """How often fresh real images are called copies, and copies are."""
    set_ = Cifar(weights, data_dir)
    everything = np.concatenate(
        [set_.reference(split, 10_000).features for split in ('train', 'evaluation')]
    )
    rng = np.random.default_rng(0)
    flagged = {'fresh': 0, 'a tenth copied': 0}
    nearer = []
    for _ in range(100):
        order = rng.permutation(len(everything))
        train, held_out, fresh = (everything[part] for part in np.split(order[:8000], (4000, 6000)))
        found = memorization(train, fresh, held_out)
        nearer.append(found.nearer)
        flagged['fresh'] += found.flagged
        copying = fresh.copy()
        copying[:200] = train[rng.choice(len(train), 200, replace=False)]
        flagged['a tenth copied'] += memorization(train, copying, held_out).flagged
        assert exact_copies(digests(train), copying)[0] == 0.1
    print(
        f'flagged of 100 at level 0.01: {flagged}; nearer {np.mean(nearer):.4f}, '
        f'deviation {np.std(nearer):.4f}'
    )


def _blur(image: np.ndarray, radius: float) -> np.ndarray:
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(radius)))


def _noise(image: np.ndarray, deviation: float) -> np.ndarray:
    rng = np.random.default_rng(int(image.astype(np.int64).sum()))
    noisy = image + rng.normal(scale=deviation, size=image.shape)
    return np.rint(noisy).clip(0, 255).astype(np.uint8)


def _jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, format='JPEG', quality=quality)
    return np.asarray(Image.open(file))


DAMAGES: dict[str, tuple[Callable, tuple[float, ...]]] = {
    'blur, pixels': (_blur, (0.5, 1.0, 2.0)),
    'noise, levels': (_noise, (5, 15, 45)),
    'JPEG, quality': (_jpeg, (75, 40, 10)),
}


def _pair(value: tuple[float, float]) -> str:
    return f'{value[0]:.4g} ± {value[1]:.2g}'


if __name__ == '__main__':
    main()
