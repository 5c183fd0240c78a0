"""Vector quantization with learned codebooks: one, or several in a row.

VQ (van den Oord et al. 2017) has a codebook of K vectors, its distances as a matrix product:

    (1) code = argmin_k |z - e_k|^2 = argmin_k |e_k|^2 - 2 z.e_k
    (2) loss = commitment mean (z - sg(e))^2

The codebook has no gradient: it follows the means of what is assigned to it (their appendix A.1).
Of the n vectors of a batch let n_k have the code k, and s_k be their sum; with d the decay

    (3) N_k <- d N_k + (1 - d) (K/n) n_k,    m_k <- d m_k + (1 - d) (K/n) s_k
    (4) e_k = m_k / N'_k,    N'_k = (N_k + epsilon) / (sum N + K epsilon) sum N

with the smoothing of Razavi et al. (2019). K/n, which cancels in (4), makes N_k = 1 the fair share,
whatever the size of the batch. N and m are all the state, and (3) is linear in the batch: averaged
over equal parts of a batch they are those of the whole.

A code with N_k < restart_below is dead: instead of (3) it takes a vector z_j of the batch
(Dhariwal et al. 2020, Jukebox), and enters the next batch with the standing

    (5) N_k = restart_below + 1 - d,    m_k = N_k (z_j + a little noise)

so that, if nothing comes to it, it is dead again after about log(1 + (1 - d)/restart_below)/(1 - d)
batches. New codes have N_k = 0 and are dead, too: the first batch fills the codebook. Which codes
are dead is known before the batch, so its parts agree on it, but each offers a vector of its own,
and the mean of several vectors may lie where no data is. Until the next batch the state therefore
holds N_k = -w, m_k = -w z_j with a random w > 0 so uneven that in the mean over the parts one
outweighs the others; the sign says that (5) is due.

Residual VQ (Zeghidour et al. 2021; Lee et al. 2022): depth codebooks, each for what the ones before
have left,

    (6) r_0 = z,   r_i = r_{i-1} - sg(e^i),   e = sum_i e^i,   loss = sum_i loss_i
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gen_jax.losses.likelihood import mean_per_example
from gen_jax.quantizers import quantizer
from gen_jax.quantizers.quantizer import Quantized, Quantizer
from gen_jax.types import Array, Key, Tree

# Of the spread of the batch: tells apart codes that restart from the same vector.
_RESTART_NOISE = 1e-3
# Of two weights exp(14 E), E ~ Exp(1), the smaller is U^14 of the larger, U even in (0, 1); with E
# at most 10, exp(14 E - 70) is neither too large for float32 nor too small.
_UNEVENNESS, _LARGEST_DRAW = 14, 10


class _Codebook(NamedTuple):
    """The arguments of `vq`."""

    num_codes: int
    channels: int
    decay: float
    commitment: float
    restart_below: float
    epsilon: float


def vq(
    num_codes: int,
    channels: int,
    *,
    depth: int = 1,
    decay: float = 0.99,
    commitment: float = 0.25,
    restart_below: float = 0.05,
    epsilon: float = 1e-5,
) -> Quantizer:
    """Learned codebooks: equations (1) to (5), and with a depth above 1 (6).

    Args:
      num_codes: K.
      channels: C.
      depth: how many codebooks there are in a row; the state of several has an axis of them in
        front.
      decay: d of (3), for one batch; the codebook remembers about 1 / (1 - d) of them.
      commitment: the weight of (2), the mean over an example's positions and channels.
      restart_below: the share of use, as part of the fair one, below which a code is dead. With 0
        only new codes are, and those unused for so long that their count is zero in float32.
      epsilon: of (4), as part of the fair share.

    Raises:
      InputError: an argument is out of its range.
    """
    quantizer.check_whole('num_codes', num_codes, 2, quantizer.MOST_CODES)
    quantizer.check_whole('channels', channels, 1)
    quantizer.check_whole('depth', depth, 1)
    quantizer.check('decay', decay, 0 <= decay < 1, 'at least 0 and below 1')
    quantizer.check_weight('commitment', commitment)
    quantizer.check(
        'restart_below', restart_below, 0 <= restart_below < 1, 'at least 0 and below 1'
    )
    quantizer.check('epsilon', epsilon, 0 < epsilon < math.inf, 'above 0')
    book = _Codebook(num_codes, channels, decay, commitment, restart_below, epsilon)
    base = Quantizer(
        num_codes=num_codes,
        depth=1,
        channels=channels,
        init=functools.partial(_init_vq, book),
        quantize=functools.partial(_quantize_vq, book),
        lookup=lambda state, codes: _vectors(book, *_standing(book, state))[codes],
    )
    return base if depth == 1 else _residual(base, depth)


def _residual(base: Quantizer, depth: int) -> Quantizer:
    """As many quantizers like `base` as `depth` says, one after the other: equation (6)."""
    return Quantizer(
        num_codes=base.num_codes,
        depth=depth,
        channels=base.channels,
        init=lambda key: jax.vmap(base.init)(jax.random.split(key, depth)),
        quantize=functools.partial(_quantize_residual, base, depth),
        lookup=functools.partial(_lookup_residual, base),
    )


def _init_vq(book: _Codebook, key: Key) -> Tree:
    """Codes that were never used; the vectors of the first batch replace them."""
    return {
        'count': jnp.zeros(book.num_codes),
        'sum': jnp.zeros((book.num_codes, book.channels)),
    }


def _quantize_vq(book: _Codebook, state: Tree, z: Array, key: Key, *, train: bool) -> Quantized:
    z = quantizer.vectors_of(z, 'channels', book.channels)
    count, total = _standing(book, state)
    vectors = _vectors(book, count, total)
    flat = jax.lax.stop_gradient(z).reshape(-1, book.channels)
    codes = _nearest(flat, vectors)
    dead = (count < book.restart_below) | (count == 0)
    if train:
        state = _next_state(book, count, total, dead, flat, codes, key)
    codes = codes.reshape(z.shape[:-1])
    chosen = vectors[codes]
    error = mean_per_example((z - chosen) ** 2)
    metrics = quantizer.use(codes, book.num_codes)
    metrics |= {'distortion': jnp.mean(error), 'dead': jnp.mean(dead)}
    return Quantized(
        quantizer.straight_through(chosen, z), codes, book.commitment * error, state, metrics
    )


def _standing(book: _Codebook, state: Tree) -> tuple[Array, Array]:
    """N `[K]` and m `[K, C]`, with (5) for the codes that have just restarted."""
    count, total = state['count'], state['sum']
    restarted = count < 0
    standing = book.restart_below + 1 - book.decay
    scale = jnp.where(restarted, standing / jnp.where(restarted, count, 1), 1)
    return jnp.where(restarted, standing, count), total * scale[:, None]


def _vectors(book: _Codebook, count: Array, total: Array) -> Array:
    """Equation (4): `[K, C]`; zeros before the first batch."""
    everything = jnp.sum(count)
    smoothed = (count + book.epsilon) / (everything + book.num_codes * book.epsilon) * everything
    return jax.lax.stop_gradient(total / jnp.where(count > 0, smoothed, 1)[:, None])


def _nearest(z: Array, vectors: Array) -> Array:
    """Equation (1): of z `[n, C]` and vectors `[K, C]`, int32 `[n]`."""
    # Devices that multiply float32 in fewer bits by default would confuse neighbors.
    products = jnp.matmul(z, vectors.T, precision=jax.lax.Precision.HIGHEST)
    return jnp.argmin(jnp.sum(vectors**2, -1) - 2 * products, -1).astype(jnp.int32)


def _next_state(
    book: _Codebook, count: Array, total: Array, dead: Array, z: Array, codes: Array, key: Key
) -> Tree:
    """Equation (3) for the codes that live, the offer of a vector to the dead."""
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


def _quantize_residual(
    base: Quantizer, depth: int, state: Tree, z: Array, key: Key, *, train: bool
) -> Quantized:
    z = quantizer.vectors_of(z, 'channels', base.channels)

    def stage(left, given):
        done = base.quantize(given[0], left, given[1], train=train)
        return left - jax.lax.stop_gradient(done.values), done._replace(values=None)

    _, done = jax.lax.scan(stage, z, (state, jax.random.split(key, depth)))
    codes = jnp.moveaxis(done.codes, 0, -1)
    metrics = jax.tree.map(jnp.mean, done.metrics)
    metrics['distortion'] = done.metrics['distortion'][-1]
    values = quantizer.straight_through(_lookup_residual(base, state, codes), z)
    return Quantized(values, codes, jnp.sum(done.loss, 0), done.state, metrics)


def _lookup_residual(base: Quantizer, state: Tree, codes: Array) -> Array:
    return jnp.sum(jax.vmap(base.lookup)(state, jnp.moveaxis(codes, -1, 0)), 0)
