"""What a quantizer is, and what all of them share.

An encoder's vectors z become codes, which are integers, and codes become vectors again. A quantizer
is a value, a few pure functions in a NamedTuple. What the decoder sees is the code's vector e; its
gradient goes to the encoder as if nothing had been rounded (Bengio et al. 2013):

    (1) values = e + (z - sg(z)),   sg stops the gradient

Everything is computed in float32, of z in any precision.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import entr

from gen_jax.errors import InputError
from gen_jax.types import Array, Key, Tree

# Metrics count every code of a batch, so there is an array of this size.
MOST_CODES = 2**24


class Quantized(NamedTuple):
    """What `quantize` makes of a batch.

    values: float32 `[B, ..., C]`, what the decoder sees, by (1).
    codes: int32 `[B, ...]`, or `[B, ..., depth]` of a residual quantizer; each below `num_codes`.
    loss: `[B]`, already weighted; zeros where there is none.
    state: after this batch; as it was where `train` is False.
    metrics: scalars of this batch, of all its rows: `usage`, the share of the codes that occur,
      and `perplexity`, the exponential of their entropy. Of codebooks also `distortion`, the mean
      of (z - e)^2, and `dead`, the share of codes that were dead before the batch; of signs
      `entropy` and `marginal_entropy`, E H(p) and H(E p) in nats. Of a residual quantizer they are
      means over its depth, but `distortion` is what all of it leaves.
    """

    values: Array
    codes: Array
    loss: Array
    state: Tree
    metrics: dict[str, Array]


class Quantizer(NamedTuple):
    """A way to make codes of vectors, and vectors of codes.

    num_codes: how many codes there are.
    depth: the codes at each position; with more than one, they are the last axis of `codes`.
    channels: C, of the vectors that it takes and gives.
    init: `(key) -> state`, a dict of float32 arrays, empty for what learns nothing.
    quantize: `(state, z [B, ..., C], key, *, train) -> Quantized`; `train` is static, and the key
      is that of restarts. InputError where z has another number of channels.
    lookup: `(state, codes) -> values`, float32 `[B, ..., C]`; of the state before a batch and the
      codes of that batch, the batch's values.
    """

    num_codes: int
    depth: int
    channels: int
    init: Callable[[Key], Tree]
    quantize: Callable[..., Quantized]
    lookup: Callable[[Tree, Array], Array]


def straight_through(chosen: Array, z: Array) -> Array:
    """Equation (1); the sum is `chosen` to the last bit, as z + sg(chosen - z) would not be."""
    return jax.lax.stop_gradient(chosen) + (z - jax.lax.stop_gradient(z))


def use(codes: Array, num_codes: int) -> dict[str, Array]:
    """The metrics that every quantizer has."""
    count = jnp.bincount(codes.reshape(-1), length=num_codes)
    perplexity = jnp.exp(jnp.sum(entr(count / codes.size)))
    return {'perplexity': perplexity, 'usage': jnp.mean(count > 0)}


def vectors_of(z: Array, field: str, channels: int) -> Array:
    """z in float32, after the check that it has so many channels."""
    right = f'for the {z.shape[-1]} channels of the encoder'
    check(field, channels, z.shape[-1] == channels, right)
    return z.astype(jnp.float32)


def check(field: str, value: object, holds: bool, right: str) -> None:
    """Raises InputError, which names the argument and says what would be right, unless `holds`."""
    if not holds:
        raise InputError(f'{field}: {value!r} must be {right}')


def check_weight(field: str, value: float) -> None:
    """Raises InputError for a weight below 0, or none that is finite."""
    check(field, value, 0 <= value < math.inf, 'at least 0')


def check_whole(field: str, value: int, least: int, most: int | None = None) -> None:
    """Raises InputError for what is no whole number from `least` to `most`."""
    right = f'a whole number of at least {least}' + (f' and at most {most}' if most else '')
    whole = isinstance(value, int) and not isinstance(value, bool)
    check(field, value, whole and least <= value <= (most or value), right)
