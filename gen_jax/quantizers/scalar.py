"""Quantization of each channel by itself, with nothing learned: a grid, or signs.

FSQ (Mentzer et al. 2024) rounds each channel to L levels. It has neither loss nor state:

    (1) b = tanh(z + tan(o/h)) h - o,   h = (L - 1)(1 - 0.001)/2,   o = 1/2 for even L, else 0
    (2) e = round(b) / floor(L/2),   code = sum_i (round(b_i) + floor(L_i/2)) prod_{j < i} L_j

LFQ (Yu et al. 2024, MAGVIT-v2) takes the sign of each channel, code = sum_i 2^i [z_i > 0], and
wants each vector to be sure of its code and all codes to be used:

    (3) loss = commitment mean (z - sg(e))^2 + entropy (E H(p) - diversity H(E p))
    (4) p(e | z) ~ exp(-|z - e|^2 / temperature) = prod_i S(4 z_i e_i / temperature)

S(u) = 1 / (1 + e^-u). p is a product over bits, so H(p) is the sum of the bits' entropies. E p is
not one: bits may depend on each other, and the sum of the entropies of its marginals would only
bound H(E p) from above, so that copies of one bit would count as diverse. It is computed as it is,
for the codes' first and last bits a, b as the matrix product E p(a) p(b), in memory
n 2^(bits/2) + 2^bits.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gen_jax.losses.likelihood import mean_per_example
from gen_jax.quantizers import quantizer
from gen_jax.quantizers.quantizer import Quantized, Quantizer
from gen_jax.types import Array, Key, Tree

# The 0.001 of equation (1).
_FSQ_MARGIN = 1e-3


class _Bits(NamedTuple):
    """The arguments of `lfq`."""

    bits: int
    entropy: float
    diversity: float
    commitment: float
    temperature: float


def fsq(levels: Sequence[int]) -> Quantizer:
    """Rounding to a fixed grid: equations (1) and (2).

    Args:
      levels: L of each channel, so their number is C; the paper advises 5 or more. Of 2 levels the
        shift in (1) would put the border at z = -1.56: `lfq` is the quantizer for those.

    Raises:
      InputError: no levels, one out of its range, or too many codes to count.
    """
    levels = tuple(levels)
    quantizer.check('levels', levels, len(levels) > 0, 'one number for each channel')
    for number in levels:
        # From 1000 on the margin in (1) would take the highest level away.
        quantizer.check_whole('levels', number, 3, 500)
    num_codes = math.prod(levels)
    quantizer.check(
        'levels',
        levels,
        num_codes <= quantizer.MOST_CODES,
        f'of a product of at most {quantizer.MOST_CODES}',
    )
    return Quantizer(
        num_codes=num_codes,
        depth=1,
        channels=len(levels),
        init=_init_nothing,
        quantize=functools.partial(_quantize_fsq, levels),
        lookup=lambda state, codes: _grid_point(levels, codes),
    )


def lfq(
    bits: int,
    *,
    entropy: float = 0.1,
    diversity: float = 1.0,
    commitment: float = 0.25,
    temperature: float = 1.0,
) -> Quantizer:
    """The signs of the channels: equations (3) and (4).

    Args:
      bits: how many channels; there are 2^bits codes.
      entropy: the weight of both entropies, in nats.
      diversity: that of H(E p) beside E H(p). The expectation E p is over the vectors that are
        quantized together, so H(E p) is the same in each example's loss.
      commitment: the weight of the mean over an example's positions and channels.
      temperature: of (4). The entropies' gradients reach |z| of about this size; commitment
        draws |z| to 1.

    Raises:
      InputError: an argument is out of its range.
    """
    quantizer.check_whole('bits', bits, 1, int(math.log2(quantizer.MOST_CODES)))
    quantizer.check_weight('entropy', entropy)
    quantizer.check_weight('diversity', diversity)
    quantizer.check_weight('commitment', commitment)
    quantizer.check('temperature', temperature, 0 < temperature < math.inf, 'above 0')
    return Quantizer(
        num_codes=2**bits,
        depth=1,
        channels=bits,
        init=_init_nothing,
        quantize=functools.partial(
            _quantize_lfq, _Bits(bits, entropy, diversity, commitment, temperature)
        ),
        lookup=lambda state, codes: _signs(bits, codes),
    )


def _init_nothing(key: Key) -> Tree:
    return {}


def _quantize_fsq(
    levels: tuple[int, ...], state: Tree, z: Array, key: Key, *, train: bool
) -> Quantized:
    z = quantizer.vectors_of(z, 'levels', len(levels))
    numbers = np.array(levels)
    half = (numbers - 1) * (1 - _FSQ_MARGIN) / 2
    offset = np.where(numbers % 2 == 0, 0.5, 0)
    shift = np.tan(offset / half)
    bounded = jnp.tanh(z + jnp.float32(shift)) * jnp.float32(half) - jnp.float32(offset)
    digits = jnp.round(bounded).astype(jnp.int32) + numbers // 2
    codes = jnp.sum(digits * _places(levels), -1, dtype=jnp.int32)
    values = quantizer.straight_through(_grid_point(levels, codes), bounded / (numbers // 2))
    return Quantized(
        values, codes, jnp.zeros(len(z)), state, quantizer.use(codes, math.prod(levels))
    )


def _places(levels: tuple[int, ...]) -> np.ndarray:
    """What one step of each channel adds to the code, int32 `[C]`."""
    return np.cumprod((1, *levels[:-1])).astype(np.int32)


def _grid_point(levels: tuple[int, ...], codes: Array) -> Array:
    """The inverse of (2): `[..., C]`."""
    numbers = np.array(levels, np.int32)
    digits = codes[..., None] // _places(levels) % numbers
    return (digits - numbers // 2).astype(jnp.float32) / (numbers // 2)


def _quantize_lfq(options: _Bits, state: Tree, z: Array, key: Key, *, train: bool) -> Quantized:
    z = quantizer.vectors_of(z, 'bits', options.bits)
    codes = jnp.sum((z > 0) * _places((2,) * options.bits), -1, dtype=jnp.int32)
    chosen = _signs(options.bits, codes)
    error = mean_per_example((z - chosen) ** 2)
    logits = 4 / options.temperature * z
    sure = jax.nn.sigmoid(logits)
    of_bits = -sure * jax.nn.log_sigmoid(logits) - (1 - sure) * jax.nn.log_sigmoid(-logits)
    entropy = mean_per_example(jnp.sum(of_bits, -1, keepdims=True))
    marginal = _marginal_entropy(sure.reshape(-1, options.bits))
    loss = options.commitment * error + options.entropy * (entropy - options.diversity * marginal)
    metrics = quantizer.use(codes, 2**options.bits)
    metrics |= {'entropy': jnp.mean(entropy), 'marginal_entropy': marginal}
    return Quantized(quantizer.straight_through(chosen, z), codes, loss, state, metrics)


def _signs(bits: int, codes: Array) -> Array:
    """The bits of codes as -1 and 1: `[..., bits]`."""
    ones = codes[..., None] // _places((2,) * bits) % 2
    return (2 * ones - 1).astype(jnp.float32)


def _marginal_entropy(ones: Array) -> Array:
    """H(E p) of the probabilities `[n, bits]` that each bit is 1, in nats."""
    middle = ones.shape[1] // 2
    first, last = _law_of_codes(ones[:, :middle]), _law_of_codes(ones[:, middle:])
    law = jnp.matmul(last.T, first, precision=jax.lax.Precision.HIGHEST) / len(ones)
    # What is too small for float32 would have an infinite gradient.
    return -jnp.sum(law * jnp.log(jnp.maximum(law, 1e-30)))


def _law_of_codes(ones: Array) -> Array:
    """The probabilities of all codes of independent bits: `[n, bits]` to `[n, 2^bits]`."""
    law = jnp.ones((len(ones), 1))
    for i in range(ones.shape[1]):
        one = ones[:, i, None]
        law = jnp.concatenate([law * (1 - one), law * one], 1)
    return law
