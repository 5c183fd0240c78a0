"""Real examples and their features, which samples are compared with; computed once, then kept.

Features of a split are kept in `runtime.cache_folder()`, in files named for the data's fingerprint
and the extractor: whatever would change them changes the name.
"""

import hashlib
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from gen_jax import hosts
from gen_jax.data.dataset import Dataset, Split
from gen_jax.features.extractor import Embedded, Extractor, joined
from gen_jax.runtime import cache_folder
from gen_jax.types import DataSpec

_KEPT = 5000  # examples in one file: what is lost when the computation is cut short


def references(
    dataset: Dataset,
    split: str,
    num: int | None,
    decode: Callable[[np.ndarray, DataSpec], np.ndarray],
    extractor: Extractor,
    embed: Callable[[np.ndarray], Embedded],
) -> Embedded:
    """`num` examples of a split, spread evenly over it, with their features; None takes all."""
    whole: Split = getattr(dataset, split)
    num = whole.num_examples if num is None else min(num, whole.num_examples)
    numbers = np.linspace(0, whole.num_examples - 1, num).round().astype(int)
    examples = read(whole, numbers, decode, dataset.spec)
    if not extractor.weights:
        return embed(examples)  # nothing to compute
    parts = []
    for start in range(0, num, _KEPT):
        some = examples[start : start + _KEPT]
        # The spec says how data of this fingerprint is decoded.
        known = (dataset.fingerprint, dataset.spec, split, whole.num_examples)
        identity = (*known, num, start, *extractor[:4])
        name = hashlib.sha256(repr(identity).encode()).hexdigest()[:32]
        kept = _load(cache_folder() / f'{name}.npz', some)
        # Embedding is the work of all processes, and each host may have a folder of its own.
        if hosts.any_of(kept is None):
            kept = embed(some)
            _save(cache_folder() / f'{name}.npz', kept)
        parts.append(kept)
    return joined(parts)


def read(
    split: Split,
    numbers: np.ndarray,
    decode: Callable[[np.ndarray, DataSpec], np.ndarray],
    spec: DataSpec,
) -> np.ndarray:
    """Examples of these numbers, without augmentation, in the form that samples are decoded to."""
    parts = []
    for start in range(0, len(numbers), 1000):
        some = numbers[start : start + 1000]
        # Bits of zero leave an example as it is.
        batch = split.transform(split.fetch(some), np.zeros(len(some), np.uint64))
        parts.append(decode(batch['x'], spec))
    return np.concatenate(parts)


def _load(path: Path, examples: np.ndarray) -> Embedded | None:
    """None for a file that is not there, or is damaged."""
    try:
        with np.load(path) as file:
            probabilities = file.get('probabilities')
            kept = Embedded(examples, file['features'], probabilities)
    except (OSError, EOFError, ValueError, TypeError, KeyError, zipfile.BadZipFile):
        return None
    return kept if len(kept.features) == len(examples) else None


def _save(path: Path, embedded: Embedded) -> None:
    arrays = {'features': embedded.features}
    if embedded.probabilities is not None:
        arrays['probabilities'] = embedded.probabilities
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f'{path.name}.{os.getpid()}.partial')
        with partial.open('wb') as file:
            np.savez(file, **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError:
        pass  # a folder that cannot be written costs time, and nothing else
