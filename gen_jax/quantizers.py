"""Quantizers: an encoder's vectors z become codes, which are integers, and codes vectors again.

A quantizer is a value, a few pure functions in a NamedTuple. What the decoder sees is the code's
vector e; its gradient goes to the encoder as if nothing had been rounded (Bengio et al. 2013):

    (1) values = e + (z - sg(z)),   sg stops the gradient

VQ (van den Oord et al. 2017) has a codebook of K vectors, its distances as a matrix product:

    (2) code = argmin_k |z - e_k|^2 = argmin_k |e_k|^2 - 2 z.e_k
    (3) loss = commitment mean (z - sg(e))^2

The codebook has no gradient: it follows the means of what is assigned to it (their appendix A.1).
Of the n vectors of a batch let n_k have the code k, and s_k be their sum; with d the decay

    (4) N_k <- d N_k + (1 - d) (K/n) n_k,    m_k <- d m_k + (1 - d) (K/n) s_k
    (5) e_k = m_k / N'_k,    N'_k = (N_k + epsilon) / (sum N + K epsilon) sum N

with the smoothing of Razavi et al. (2019). K/n, which cancels in (5), makes N_k = 1 the fair share,
whatever the size of the batch. N and m are all the state, and (4) is linear in the batch: averaged
over equal parts of a batch they are those of the whole.

A code with N_k < restart_below is dead: instead of (4) it takes a vector z_j of the batch
(Dhariwal et al. 2020, Jukebox), and enters the next batch with the standing

    (6) N_k = restart_below + 1 - d,    m_k = N_k (z_j + a little noise)

so that, if nothing comes to it, it is dead again after about log(1 + (1 - d)/restart_below)/(1 - d)
batches. New codes have N_k = 0 and are dead, too: the first batch fills the codebook. Which codes
are dead is known before the batch, so its parts agree on it, but each offers a vector of its own,
and the mean of several vectors may lie where no data is. Until the next batch the state therefore
holds N_k = -w, m_k = -w z_j with a random w > 0 so uneven that in the mean over the parts one
outweighs the others; the sign says that (6) is due.

FSQ (Mentzer et al. 2024) rounds each channel to L levels. It has neither loss nor state:

    (7) b = tanh(z + tan(o/h)) h - o,   h = (L - 1)(1 - 0.001)/2,   o = 1/2 for even L, else 0
    (8) e = round(b) / floor(L/2),   code = sum_i (round(b_i) + floor(L_i/2)) prod_{j < i} L_j

LFQ (Yu et al. 2024, MAGVIT-v2) takes the sign of each channel, code = sum_i 2^i [z_i > 0], and
wants each vector to be sure of its code and all codes to be used:

    (9) loss = commitment mean (z - sg(e))^2 + entropy (E H(p) - diversity H(E p))
    (10) p(e | z) ~ exp(-|z - e|^2 / temperature) = prod_i S(4 z_i e_i / temperature)

S(u) = 1 / (1 + e^-u). p is a product over bits, so H(p) is the sum of the bits' entropies. E p is
not one: bits may depend on each other, and the sum of the entropies of its marginals would only
bound H(E p) from above, so that copies of one bit would count as diverse. It is computed as it is,
for the codes' first and last bits a, b as the matrix product E p(a) p(b), in memory
n 2^(bits/2) + 2^bits.

Residual VQ (Zeghidour et al. 2021; Lee et al. 2022): depth codebooks, each for what the ones before
have left,

    (11) r_0 = z,   r_i = r_{i-1} - sg(e^i),   e = sum_i e^i,   loss = sum_i loss_i

Everything is computed in float32, of z in any precision.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import entr

from gen_jax.errors import InputError
from gen_jax.types import Array, Key, Tree

# Metrics count every code of a batch, so there is an array of this size.
_MOST_CODES = 2**24
# Of the spread of the batch: tells apart codes that restart from the same vector.
_RESTART_NOISE = 0.01
# Of two weights exp(14 E), E ~ Exp(1), the smaller is U^14 of the larger, U even in (0, 1); with E
# at most 10, exp(14 E - 70) is neither too large for float32 nor too small.
_UNEVENNESS, _LARGEST_DRAW = 14, 10
# The 0.001 of equation (7).
_FSQ_MARGIN = 1e-3


class Quantized(NamedTuple):
    """What `quantize` makes of a batch.

    values: float32 `[B, ..., C]`, what the decoder sees, by (1).
    codes: int32 `[B, ...]`, or `[B, ..., depth]` of a residual quantizer; each below `num_codes`.
    loss: `[B]`, already weighted; zeros where there is none.
    state: after this batch; as it was where `train` is False.
    metrics: scalars of this batch, of all its rows: `usage`, the share of the codes that occur,
      and `perplexity`, the exponential of their entropy. Of VQ also `distortion`, the mean of
      (z - e)^2, and `dead`, the share of codes that were dead before the batch; of LFQ `entropy`
      and `marginal_entropy`, E H(p) and H(E p) of (9) in nats. Of a residual quantizer they are
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


class _Codebook(NamedTuple):
    """The arguments of `vq`."""

    num_codes: int
    channels: int
    decay: float
    commitment: float
    restart_below: float
    epsilon: float


class _Bits(NamedTuple):
    """The arguments of `lfq`."""

    bits: int
    entropy: float
    diversity: float
    commitment: float
    temperature: float


def vq(
    num_codes: int,
    channels: int,
    *,
    decay: float = 0.99,
    commitment: float = 0.25,
    restart_below: float = 0.01,
    epsilon: float = 1e-5,
) -> Quantizer:
    """A learned codebook: equations (2) to (6).

    Args:
      num_codes: K.
      channels: C.
      decay: d of (4), for one batch; the codebook remembers about 1 / (1 - d) of them.
      commitment: the weight of (3), the mean over an example's positions and channels.
      restart_below: the share of use, as part of the fair one, below which a code is dead. With 0
        only new codes are, and those unused for so long that their count is zero in float32.
      epsilon: of (5), as part of the fair share.

    Raises:
      InputError: an argument is out of its range.
    """
    _check_whole('num_codes', num_codes, 2, _MOST_CODES)
    _check_whole('channels', channels, 1)
    _check('decay', decay, 0 <= decay < 1, 'at least 0 and below 1')
    _check_weight('commitment', commitment)
    _check('restart_below', restart_below, 0 <= restart_below < 1, 'at least 0 and below 1')
    _check('epsilon', epsilon, 0 < epsilon < math.inf, 'above 0')
    book = _Codebook(num_codes, channels, decay, commitment, restart_below, epsilon)
    return Quantizer(
        num_codes=num_codes,
        depth=1,
        channels=channels,
        init=functools.partial(_init_vq, book),
        quantize=functools.partial(_quantize_vq, book),
        lookup=lambda state, codes: _vectors(book, *_standing(book, state))[codes],
    )


def fsq(levels: Sequence[int]) -> Quantizer:
    """Rounding to a fixed grid: equations (7) and (8).

    Args:
      levels: L of each channel, so their number is C; the paper advises 5 or more. Of 2 levels the
        shift in (7) would put the border at z = -1.56: `lfq` is the quantizer for those.

    Raises:
      InputError: no levels, one out of its range, or too many codes to count.
    """
    levels = tuple(levels)
    _check('levels', levels, len(levels) > 0, 'one number for each channel')
    for number in levels:
        # From 1001 on the margin in (7) is more than half a level.
        _check_whole('levels', number, 3, 1000)
    num_codes = math.prod(levels)
    _check('levels', levels, num_codes <= _MOST_CODES, f'of a product of at most {_MOST_CODES}')
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
    """The signs of the channels: equations (9) and (10).

    Args:
      bits: how many channels; there are 2^bits codes.
      entropy: the weight of both entropies, in nats.
      diversity: that of H(E p) beside E H(p). The expectation E p is over the vectors that are
        quantized together, so H(E p) is the same in each example's loss.
      commitment: the weight of the mean over an example's positions and channels.
      temperature: of (10). The entropies' gradients reach |z| of about this size; commitment
        draws |z| to 1.

    Raises:
      InputError: an argument is out of its range.
    """
    _check_whole('bits', bits, 1, int(math.log2(_MOST_CODES)))
    _check_weight('entropy', entropy)
    _check_weight('diversity', diversity)
    _check_weight('commitment', commitment)
    _check('temperature', temperature, 0 < temperature < math.inf, 'above 0')
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


def residual(base: Quantizer, depth: int) -> Quantizer:
    """As many quantizers like `base` as `depth` says, one after the other: equation (11).

    Args:
      base: a `vq`; each has a codebook of its own.
      depth: how many; the state has an axis of them in front.

    Raises:
      InputError: a depth below 1, or a base that learns no codebook or is residual itself.
    """
    _check_whole('depth', depth, 1)
    if base.depth != 1 or not jax.eval_shape(base.init, jax.random.key(0)):
        raise InputError(
            'method.quantizer: a residual quantizer is made of codebooks that fit what is left to '
            'them; its base must be vq'
        )
    return Quantizer(
        num_codes=base.num_codes,
        depth=depth,
        channels=base.channels,
        init=lambda key: jax.vmap(base.init)(jax.random.split(key, depth)),
        quantize=functools.partial(_quantize_residual, base, depth),
        lookup=functools.partial(_lookup_residual, base),
    )


def _init_nothing(key: Key) -> Tree:
    return {}


def _init_vq(book: _Codebook, key: Key) -> Tree:
    """Codes that were never used; the vectors of the first batch replace them."""
    return {
        'count': jnp.zeros(book.num_codes),
        'sum': jnp.zeros((book.num_codes, book.channels)),
    }


def _quantize_vq(book: _Codebook, state: Tree, z: Array, key: Key, *, train: bool) -> Quantized:
    z = _vectors_of(z, 'channels', book.channels)
    count, total = _standing(book, state)
    vectors = _vectors(book, count, total)
    flat = jax.lax.stop_gradient(z).reshape(-1, book.channels)
    codes = _nearest(flat, vectors)
    dead = (count < book.restart_below) | (count == 0)
    if train:
        state = _next_state(book, count, total, dead, flat, codes, key)
    codes = codes.reshape(z.shape[:-1])
    chosen = vectors[codes]
    error = _mean_per_example((z - chosen) ** 2)
    metrics = _use(codes, book.num_codes)
    metrics |= {'distortion': jnp.mean(error), 'dead': jnp.mean(dead)}
    return Quantized(_straight_through(chosen, z), codes, book.commitment * error, state, metrics)


def _standing(book: _Codebook, state: Tree) -> tuple[Array, Array]:
    """N `[K]` and m `[K, C]`, with (6) for the codes that have just restarted."""
    count, total = state['count'], state['sum']
    restarted = count < 0
    standing = book.restart_below + 1 - book.decay
    scale = jnp.where(restarted, standing / jnp.where(restarted, count, 1), 1)
    return jnp.where(restarted, standing, count), total * scale[:, None]


def _vectors(book: _Codebook, count: Array, total: Array) -> Array:
    """Equation (5): `[K, C]`; zeros before the first batch."""
    everything = jnp.sum(count)
    smoothed = (count + book.epsilon) / (everything + book.num_codes * book.epsilon) * everything
    return jax.lax.stop_gradient(total / jnp.where(count > 0, smoothed, 1)[:, None])


def _nearest(z: Array, vectors: Array) -> Array:
    """Equation (2): of z `[n, C]` and vectors `[K, C]`, int32 `[n]`."""
    # Devices that multiply float32 in fewer bits by default would confuse neighbors.
    products = jnp.matmul(z, vectors.T, precision=jax.lax.Precision.HIGHEST)
    return jnp.argmin(jnp.sum(vectors**2, -1) - 2 * products, -1).astype(jnp.int32)


def _next_state(
    book: _Codebook, count: Array, total: Array, dead: Array, z: Array, codes: Array, key: Key
) -> Tree:
    """Equation (4) for the codes that live, the offer of a vector to the dead."""
    # A product, not a scatter: GPUs add in the same order each time.
    own = jax.nn.one_hot(codes, book.num_codes)
    sums = jnp.matmul(own.T, z, precision=jax.lax.Precision.HIGHEST)
    step = (1 - book.decay) * book.num_codes / len(z)
    count = book.decay * count + step * jnp.sum(own, 0)
    total = book.decay * total + step * sums

    which_key, noise_key, weight_key = jax.random.split(key, 3)
    which = jax.random.randint(which_key, (book.num_codes,), 0, len(z))
    spread = jnp.sqrt(jnp.mean(jnp.var(z, 0)))
    noise = jax.random.normal(noise_key, total.shape)
    offered = z[which] + _RESTART_NOISE * spread * noise
    draw = jnp.minimum(jax.random.exponential(weight_key, (book.num_codes,)), _LARGEST_DRAW)
    weight = -jnp.exp(_UNEVENNESS * (draw - _LARGEST_DRAW / 2))
    return {
        'count': jnp.where(dead, weight, count),
        'sum': jnp.where(dead[:, None], weight[:, None] * offered, total),
    }


def _quantize_fsq(
    levels: tuple[int, ...], state: Tree, z: Array, key: Key, *, train: bool
) -> Quantized:
    z = _vectors_of(z, 'levels', len(levels))
    numbers = np.array(levels)
    half = (numbers - 1) * (1 - _FSQ_MARGIN) / 2
    offset = np.where(numbers % 2 == 0, 0.5, 0)
    shift = np.tan(offset / half)
    bounded = jnp.tanh(z + jnp.float32(shift)) * jnp.float32(half) - jnp.float32(offset)
    digits = jnp.round(bounded).astype(jnp.int32) + numbers // 2
    codes = jnp.sum(digits * _places(levels), -1, dtype=jnp.int32)
    values = _straight_through(_grid_point(levels, codes), bounded / (numbers // 2))
    return Quantized(values, codes, jnp.zeros(len(z)), state, _use(codes, math.prod(levels)))


def _places(levels: tuple[int, ...]) -> np.ndarray:
    """What one step of each channel adds to the code, int32 `[C]`."""
    return np.cumprod((1, *levels[:-1])).astype(np.int32)


def _grid_point(levels: tuple[int, ...], codes: Array) -> Array:
    """The inverse of (8): `[..., C]`."""
    numbers = np.array(levels, np.int32)
    digits = codes[..., None] // _places(levels) % numbers
    return (digits - numbers // 2).astype(jnp.float32) / (numbers // 2)


def _quantize_lfq(options: _Bits, state: Tree, z: Array, key: Key, *, train: bool) -> Quantized:
    z = _vectors_of(z, 'bits', options.bits)
    codes = jnp.sum((z > 0) * _places((2,) * options.bits), -1, dtype=jnp.int32)
    chosen = _signs(options.bits, codes)
    error = _mean_per_example((z - chosen) ** 2)
    logits = 4 / options.temperature * z
    sure = jax.nn.sigmoid(logits)
    of_bits = -sure * jax.nn.log_sigmoid(logits) - (1 - sure) * jax.nn.log_sigmoid(-logits)
    entropy = _mean_per_example(jnp.sum(of_bits, -1, keepdims=True))
    marginal = _marginal_entropy(sure.reshape(-1, options.bits))
    loss = options.commitment * error + options.entropy * (entropy - options.diversity * marginal)
    metrics = _use(codes, 2**options.bits)
    metrics |= {'entropy': jnp.mean(entropy), 'marginal_entropy': marginal}
    return Quantized(_straight_through(chosen, z), codes, loss, state, metrics)


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


def _quantize_residual(
    base: Quantizer, depth: int, state: Tree, z: Array, key: Key, *, train: bool
) -> Quantized:
    z = _vectors_of(z, 'channels', base.channels)

    def stage(left, given):
        done = base.quantize(given[0], left, given[1], train=train)
        return left - jax.lax.stop_gradient(done.values), done._replace(values=None)

    _, done = jax.lax.scan(stage, z, (state, jax.random.split(key, depth)))
    codes = jnp.moveaxis(done.codes, 0, -1)
    metrics = jax.tree.map(jnp.mean, done.metrics)
    metrics['distortion'] = done.metrics['distortion'][-1]
    values = _straight_through(_lookup_residual(base, state, codes), z)
    return Quantized(values, codes, jnp.sum(done.loss, 0), done.state, metrics)


def _lookup_residual(base: Quantizer, state: Tree, codes: Array) -> Array:
    return jnp.sum(jax.vmap(base.lookup)(state, jnp.moveaxis(codes, -1, 0)), 0)


def _straight_through(chosen: Array, z: Array) -> Array:
    """Equation (1); the sum is `chosen` to the last bit, as z + sg(chosen - z) would not be."""
    return jax.lax.stop_gradient(chosen) + (z - jax.lax.stop_gradient(z))


def _use(codes: Array, num_codes: int) -> dict[str, Array]:
    """The metrics that every quantizer has."""
    count = jnp.bincount(codes.reshape(-1), length=num_codes)
    perplexity = jnp.exp(jnp.sum(entr(count / codes.size)))
    return {'perplexity': perplexity, 'usage': jnp.mean(count > 0)}


def _mean_per_example(x: Array) -> Array:
    """`[B, ...]` to `[B]`."""
    return jnp.mean(x, axis=tuple(range(1, x.ndim)))


def _vectors_of(z: Array, field: str, channels: int) -> Array:
    """z in float32, after the check that it has so many channels."""
    right = f'for the {z.shape[-1]} channels of the encoder'
    _check(field, channels, z.shape[-1] == channels, right)
    return z.astype(jnp.float32)


def _check(field: str, value: object, holds: bool, right: str) -> None:
    if not holds:
        raise InputError(f'method.quantizer.{field}: {value!r} must be {right}')


def _check_weight(field: str, value: float) -> None:
    _check(field, value, 0 <= value < math.inf, 'at least 0')


def _check_whole(field: str, value: int, least: int, most: int | None = None) -> None:
    right = f'a whole number of at least {least}' + (f' and at most {most}' if most else '')
    whole = isinstance(value, int) and not isinstance(value, bool)
    _check(field, value, whole and least <= value <= (most or value), right)
