"""What samples are looked at with: from examples to features, numbers that mean more than pixels.

A score is a score on some features. Whatever decides them is in the extractor's name and hash, so
that two numbers on different features are never taken for the same measure.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
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

    def precisely(weights: Tree, batch: Array) -> tuple[Array, Array | None]:
        # Other backends would round the factors of products to 8 or 11 bits.
        with jax.default_matmul_precision('highest'):
            return extractor.embed(weights, batch)

    compute = layout.jit(precisely, out_shardings=layout.replicated)

    def embed(examples: np.ndarray) -> Embedded:
        weights = jax.device_put(extractor.weights, layout.replicated)
        parts = []
        for start in range(0, len(examples), rows):
            some = examples[start : start + rows]
            filled = some[np.minimum(np.arange(rows), len(some) - 1)]
            batch = jax.device_put(filled, layout.batch_sharding)
            features, probabilities = jax.device_get(compute(weights, batch))
            if probabilities is not None:
                probabilities = probabilities[: len(some)]
            parts.append(Embedded(some, features[: len(some)], probabilities))
        return joined(parts)

    return embed


def joined(parts: Sequence[Embedded]) -> Embedded:
    """Several sets as one."""
    examples, features, probabilities = zip(*parts, strict=True)
    has_classes = probabilities[0] is not None
    return Embedded(
        np.concatenate(examples),
        np.concatenate(features),
        np.concatenate(probabilities) if has_classes else None,
    )


def hash_of(arrays: Mapping[str, np.ndarray], words: str = '') -> str:
    """The first 16 hex digits of the SHA-256 of words and of arrays, in the order of names."""
    sha = hashlib.sha256(words.encode())
    for name in sorted(arrays):
        array = np.asarray(arrays[name])
        sha.update(f'{name} {array.dtype} {array.shape}'.encode())
        sha.update(np.ascontiguousarray(array))
    return sha.hexdigest()[:16]
