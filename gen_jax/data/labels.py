"""Training images of which only some keep their label, for methods that learn from both kinds.

Of each class `per_class` training images are drawn, and keep their label. The label of all others
is -1, unknown; or, where only the labeled are asked for, they are left out. What evaluates keeps
all its labels.

Which images are drawn depends on the labels of the split and on a seed of the data's own, and not
on that of the run: runs of other seeds see the same labels unless they ask for others. For each
class it is the beginning of a permutation, so that with one seed fewer labels are part of more.
"""

import numpy as np

from gen_jax.data.dataset import digest
from gen_jax.data.pixels import Images, ImageSet
from gen_jax.errors import InputError

UNKNOWN = -1


def check(per_class: int | None, seed: int, only: bool) -> None:
    """Raises InputError for values that choose nothing."""
    if per_class is None and only:
        raise InputError(
            'data.labeled_only: all images keep their label; set it to False, or say in '
            'data.labels_per_class how many do'
        )
    if per_class is not None and per_class < 1:
        raise InputError(f'data.labels_per_class: {per_class}; use 1 or more, or None for all')
    if not 0 <= seed < 2**32:
        raise InputError(f'data.labels_seed: {seed}; use 0 or more, below 2^32')


def lines(num_classes: int | None, per_class: int | None, seed: int, only: bool) -> list[str]:
    """What `describe` says of the labels of a set with so many classes; nothing where all are kept.

    Raises:
      InputError: a set without classes.
    """
    if per_class is None:
        return []
    _check_classes(num_classes)
    others = 'the others are left out' if only else 'the others are trained on without'
    return [f'{per_class} training images of each class keep their label (seed {seed}); {others}']


def few(images: ImageSet, per_class: int, seed: int, only: bool) -> tuple[ImageSet, np.ndarray]:
    """The set with `per_class` labels of each class, or `only` these images of its training split;
    and which numbers of that split are of labeled images, int64, rising.

    Raises:
      InputError: a set without classes, or a class with fewer examples.
    """
    _check_classes(images.spec.num_classes)
    label = images.train.labels()
    chosen = choose(label, images.spec.num_classes, per_class, seed)
    # The same whether the others are left out or not: what is measured on held-out images compares.
    fingerprint = digest(images.fingerprint, f'labels {per_class} {seed}', chosen)
    train = _part(images.train, chosen) if only else _hidden(images.train, chosen)
    labeled = np.arange(len(chosen)) if only else chosen
    return images._replace(train=train, fingerprint=fingerprint), labeled


def _check_classes(num_classes: int | None) -> None:
    if num_classes is None:
        raise InputError('data.labels_per_class: this data has no classes; set it to None')


def choose(label: np.ndarray, num_classes: int, per_class: int, seed: int) -> np.ndarray:
    """The numbers of `per_class` examples of each class, of labels int32 `[N]`: int64, rising.

    Raises:
      InputError: a class has fewer.
    """
    chosen = []
    for number in range(num_classes):
        members = np.flatnonzero(label == number)
        if len(members) < per_class:
            raise InputError(
                f'data.labels_per_class: {per_class}, and of class {number} there are '
                f'{len(members)} training images; use no more'
            )
        # RandomState's streams are frozen by NumPy's policy.
        order = np.random.RandomState((seed, number)).permutation(len(members))
        chosen.append(members[order[:per_class]])
    return np.sort(np.concatenate(chosen))


def _hidden(images: Images, chosen: np.ndarray) -> Images:
    """The same images; those that were not chosen are of unknown class."""
    is_known = np.zeros(images.num_examples, bool)
    is_known[chosen] = True

    def told(label: np.ndarray, known: np.ndarray) -> np.ndarray:
        return np.where(known, label, UNKNOWN).astype(label.dtype)

    def fetch(indices: np.ndarray) -> dict[str, np.ndarray]:
        raw = images.fetch(indices)
        return raw | {'label': told(raw['label'], is_known[indices])}

    return images._replace(fetch=fetch, labels=lambda: told(images.labels(), is_known))


def _part(images: Images, chosen: np.ndarray) -> Images:
    """The chosen images alone."""
    return images._replace(
        num_examples=len(chosen),
        fetch=lambda indices: images.fetch(chosen[indices]),
        labels=lambda: images.labels()[chosen],
    )
