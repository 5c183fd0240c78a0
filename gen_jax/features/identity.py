"""Features that are the numbers themselves: for points, and wherever nothing better is at hand."""

import jax.numpy as jnp

from gen_jax.features.extractor import Extractor
from gen_jax.types import DataSpec


def identity(spec: DataSpec) -> Extractor:
    """The D numbers of an example, in a row: scores end in '-raw'."""

    def embed(weights, examples):
        return examples.reshape(len(examples), -1).astype(jnp.float32), None

    return Extractor('FD-raw', '-raw', 'raw', 'none: the numbers themselves', {}, embed)
