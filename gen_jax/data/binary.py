"""Images of two levels, black and white, made of images of L levels.

    (1) threshold   v becomes 1 where v >= L / 2
    (2) static      v becomes 1 with probability v / (L - 1), drawn once for each image
    (3) dynamic     the same, drawn anew each time that an image is trained on
                                                                  (Salakhutdinov & Murray 2008)

What evaluates is drawn once in (3), too, and is that of (2). The draw of an image depends on its
number in its split alone: Philox with key 2 n for training and 2 n + 1 for evaluation. It is not
the draw of Larochelle's files, which others call static: the law is the same, the pixels are not.
"""

import numpy as np

from gen_jax.data.dataset import digest
from gen_jax.data.pixels import Images, ImageSet, uniform
from gen_jax.errors import InputError

RULES = ('threshold', 'static', 'dynamic')


def check(rule: str | None, dequantize: bool) -> None:
    """Raises InputError for a rule that there is not, or noise on top of it."""
    if rule is not None and rule not in RULES:
        raise InputError(f'data.binarize: {rule!r}; use one of {", ".join(RULES)}, or None')
    if rule is not None and dequantize:
        raise InputError(
            'data.dequantize: two levels are no rounded numbers; set it to False, or data.binarize '
            'to None'
        )


def binarized(images: ImageSet, rule: str) -> ImageSet:
    """The set in black and white; with (3) its training split is left to `draw`."""
    levels = images.spec.levels
    train = images.train if rule == 'dynamic' else _split(images.train, levels, rule, 0)
    return ImageSet(
        train,
        _split(images.evaluation, levels, rule, 1),
        images.spec._replace(levels=2),
        # (2) and (3) are measured on the same images.
        digest(images.fingerprint, 'threshold' if rule == 'threshold' else 'drawn'),
    )


def draw(image: np.ndarray, levels: int, keys: np.ndarray) -> np.ndarray:
    """Levels `[B, ...]` to 0 and 1, uint8: a row's pixels depend on its key, of `[B]`, alone."""
    # The darkest level is never white, and the brightest always: chance is below 2^16.
    chance = uniform(image.shape, keys)
    return (chance < image.astype(np.float64) * (2**16 / (levels - 1))).astype(np.uint8)


def _split(images: Images, levels: int, rule: str, odd: int) -> Images:
    def fetch(indices: np.ndarray) -> dict[str, np.ndarray]:
        raw = images.fetch(indices)
        if rule == 'threshold':
            image = (raw['image'] >= levels / 2).astype(np.uint8)
        else:
            image = draw(raw['image'], levels, 2 * np.asarray(indices) + odd)
        return raw | {'image': image}

    return images._replace(fetch=fetch)
