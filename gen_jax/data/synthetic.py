"""Images made of arithmetic: a set that needs no files, and that a small network can learn.

Every image is one soft blob on a dark ground. The class places its center on a circle, so a
conditional model has something to tell apart, and jitter, width and brightness vary within it.
"""

import numpy as np

from gen_jax.data.dataset import digest
from gen_jax.data.pixels import Images, ImageSet, in_memory
from gen_jax.types import DataSpec

NUM_TRAIN, NUM_EVALUATION = 1024, 256


def load(spec: DataSpec, *, seed: int = 0) -> ImageSet:
    """1,024 training and 256 evaluation images of this spec; the same seed, the same pixels.

    `spec.shape` is (H, W, C); `spec.levels` must be given. Labels come with `spec.num_classes`.
    """
    train = _blobs(spec, NUM_TRAIN, np.random.default_rng((seed, 0)))
    evaluation = _blobs(spec, NUM_EVALUATION, np.random.default_rng((seed, 1)))
    return ImageSet(train, evaluation, spec, digest(f'synthetic {spec} {seed}'))


def _blobs(spec: DataSpec, num: int, rng: np.random.Generator) -> Images:
    height, width, channels = spec.shape
    classes = spec.num_classes or 1
    label = rng.integers(classes, size=num)
    angle = 2 * np.pi * label / classes
    # Coordinates run over [-1, 1] in both directions, whatever the shape.
    center_y = 0.5 * np.sin(angle) + 0.1 * rng.standard_normal(num)
    center_x = 0.5 * np.cos(angle) + 0.1 * rng.standard_normal(num)
    radius = rng.uniform(0.2, 0.4, num)
    color = rng.uniform(0.5, 1.0, (num, channels))

    y = np.linspace(-1, 1, height)[None, :, None] - center_y[:, None, None]
    x = np.linspace(-1, 1, width)[None, None, :] - center_x[:, None, None]
    blob = np.exp(-(y**2 + x**2) / (2 * radius[:, None, None] ** 2))
    image = np.rint(blob[..., None] * color[:, None, None, :] * (spec.levels - 1))
    return in_memory(image.astype(np.uint8), label.astype(np.int32) if spec.num_classes else None)
