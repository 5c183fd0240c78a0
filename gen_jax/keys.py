"""Where randomness begins: one stream of keys for each purpose, so that no two share a number.

    key(seed) ── fold_in 0 ──► init       fold_in 1 ──► train    (previews are samples in training)
              ── fold_in 2 ──► evaluate   fold_in 3 ──► sample   fold_in 4 ──► preview
              ── fold_in 5 ──► scores     fold_in 6 ──► scores_in_training

All previews of a run draw from the same key: what changes between them is the model.

Without the streams two purposes that count from zero would meet: JAX's `split(key)[i]` is
`fold_in(key, i)`.
"""

import jax
import numpy as np

from gen_jax.types import Array, Key

# Their order is part of every run: a new purpose goes to the end.
PURPOSES = ('init', 'train', 'evaluate', 'sample', 'preview', 'scores', 'scores_in_training')


def stream(seed: int | Array, purpose: str) -> Key:
    """The key from which everything random of one purpose (of `PURPOSES`) is drawn."""
    return jax.random.fold_in(jax.random.key(seed), PURPOSES.index(purpose))


def scramble(bits: Array | np.ndarray) -> Array | np.ndarray:
    """A bijection of uint32 in which each bit in moves each bit out (Wellons 2018, 'lowbias32').

    Of a NumPy array it is computed on the host.
    """
    bits = (bits ^ (bits >> 16)) * np.uint32(0x7FEB352D)
    bits = (bits ^ (bits >> 15)) * np.uint32(0x846CA68B)
    return bits ^ (bits >> 16)
