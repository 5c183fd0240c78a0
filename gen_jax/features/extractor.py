"""What samples are looked at with: from examples to features, numbers that mean more than pixels.

A score is a score on some features. Whatever decides them is in the extractor's name and hash, so
that two numbers on different features are never taken for the same measure.
"""

import hashlib
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import numpy as np

from gen_jax import parallel
from gen_jax.types import Array, Tree


class Extractor(NamedTuple):
    """From examples, as the modality's `decode` gives them, to features.

    frechet: what a Fréchet distance on these features is called: 'FID', 'FID@768', 'FD-1a2b3c4d'.
    suffix: what the names of all other scores end in: '', '@768', '-1a2b3c4d'.
    hash: the first 16 hex digits of the SHA-256 of the weights.
    preprocessing: what is done to an example before the network, in words.
    weights: passed to `embed`, so that they are no constants of the compiled program.
    embed: `(weights, examples [B, ...]) -> (features float32 [B, D], probabilities)`, jittable;
      class probabilities are `[B, K]`, or None where the network has no classes.
    """

    frechet: str
    suffix: str
    hash: str
    preprocessing: str
    weights: Tree
    embed: Callable[[Tree, Array], tuple[Array, Array | None]]


class Embedded(NamedTuple):
    """Examples `[N, ...]`, their features float32 `[N, D]`, and probabilities `[N, K]` or None."""

    examples: np.ndarray
    features: np.ndarray
    probabilities: np.ndarray | None

    @property
    def num(self) -> int:
        """How many examples."""
        return len(self.examples)


def make_embedder(
    extractor: Extractor, layout: parallel.Parallel, batch_size: int
) -> Callable[[np.ndarray], Embedded]:
    """A function from examples `[N, ...]` to what they are embedded as, compiled once.

    The batch is split over the devices; it is filled with copies of the last example.
    """
    rows = -(-batch_size // layout.batch_devices) * layout.batch_devices
    compute = layout.jit(extractor.embed, out_shardings=layout.replicated)

    def embed(examples: np.ndarray) -> Embedded:
        weights = jax.device_put(extractor.weights, layout.replicated)
        parts = []
        for start in range(0, len(examples), rows):
            numbers = np.minimum(np.arange(start, start + rows), len(examples) - 1)
            batch = parallel.place(layout, {'examples': examples[numbers]})
            parts.append(jax.device_get(compute(weights, batch['examples'])))
        features, probabilities = zip(*parts, strict=True)
        whole = [None if p[0] is None else np.concatenate(p) for p in (features, probabilities)]
        whole = [None if a is None else a[: len(examples)] for a in whole]
        return Embedded(examples, *whole)

    return embed


def hash_of(arrays: Mapping[str, np.ndarray]) -> str:
    """The first 16 hex digits of the SHA-256 of named arrays, in the order of their names."""
    sha = hashlib.sha256()
    for name in sorted(arrays):
        array = np.asarray(arrays[name])
        sha.update(f'{name} {array.dtype} {array.shape}'.encode())
        sha.update(np.ascontiguousarray(array))
    return sha.hexdigest()[:16]
