"""Causal self-attention: which keys a query sees, where they stand, and what is kept for later.

    (1) a = softmax(q k' / sqrt(d) + bias) v, for each head                   (Vaswani et al. 2017)
    (2) grouped queries: several query heads share a key and a value head     (Ainslie et al. 2023)
    (3) rotary positions: in q and k the numbers u and w, half a head apart, are turned by the
        angle p base^(-2 i / d), p the position                               (Su et al. 2021)
    (4) ALiBi: bias = -slope_h (position of query - position of key), slopes 2^(-8 h / H) where H
        is a power of two, and between such for others                        (Press et al. 2022)
    (5) q and k divided by their root mean square, times a gain, before (3)   (Henry et al. 2020)

A query sees keys that are not after it: at most `window` of them, itself included, and with
segments those of its own alone.

On a GPU that computes in half precision (1) is cuDNN's fused kernel where it has the form that is
asked for; elsewhere, and on a CPU always, two products with a softmax between them.
"""

import functools
import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from gen_jax.networks.layers import INTO_BRANCH, OUT_OF_BRANCH, Dropout, dense
from gen_jax.types import Array


class Cache(NamedTuple):
    """Keys and values of the positions so far, `[B, key heads, positions, d]` each, or with one
    axis `[B key heads, ...]` for both: see `Cache.empty`."""

    key: Array
    value: Array

    @classmethod
    def empty(cls, batch_size: int, heads: int, positions: int, size: int, dtype: str) -> 'Cache':
        """Room for so many positions."""
        rows = (batch_size, heads)
        if jax.default_backend() == 'cpu':
            # As products of matrices take them: else XLA copies all of a small batch's cache for
            # every token. Elsewhere two axes, so that heads can be on several devices.
            rows = (batch_size * heads,)
        nothing = jnp.zeros((*rows, positions, size), dtype)
        return cls(nothing, nothing)

    @property
    def positions(self) -> int:
        """How many there is room for."""
        return self.key.shape[-2]

    def grown(self, positions: int) -> 'Cache':
        """The same with room for more."""

        def grow(kept: Array) -> Array:
            before = [(0, 0)] * (kept.ndim - 2)
            return jnp.pad(kept, (*before, (0, positions - kept.shape[-2]), (0, 0)))

        return Cache(grow(self.key), grow(self.value))

    def extended(self, k: Array, v: Array, place: Array) -> 'Cache':
        """With k and v `[B, key heads, S, d]` from a place on."""

        def put(kept: Array, new: Array) -> Array:
            rows = new.reshape(*kept.shape[:-2], -1, kept.shape[-1])
            return jax.lax.dynamic_update_slice_in_dim(kept, rows, place, kept.ndim - 2)

        return Cache(put(self.key, k), put(self.value, v))


class View(NamedTuple):
    """What the queries of a call see, the same in every layer.

    `positions` int32 `[Q]`; `bias` float32 `[1 or B, 1 or H, Q, K]`, 0 or -slope distance where a
    query sees a key and -inf where not, or None where the fused kernel knows (causal, windowed).
    """

    positions: Array
    bias: Array | None


def bias_of(
    queries: Array,
    keys: Array,
    *,
    window: int | None = None,
    segments: Array | None = None,
    alibi_heads: int | None = None,
) -> Array:
    """The bias of equations (1) and (4) for queries at positions `[Q]` and keys at `[K]`.

    Args:
      queries, keys: positions, int32.
      window: keys that a query sees at most; None for no limit.
      segments: int32 `[B, K]`, of keys that are the queries too; None for one.
      alibi_heads: H of equation (4); None for no slopes.
    """
    distance = (queries[:, None] - keys[None, :])[None, None]
    sees = distance >= 0
    if window is not None:
        sees &= distance < window
    if segments is not None:
        sees &= (segments[:, :, None] == segments[:, None, :])[:, None]
    near = jnp.float32(0)
    if alibi_heads is not None:
        near = -slopes(alibi_heads)[None, :, None, None] * distance
    return jnp.where(sees, near, -jnp.inf)


def slopes(num_heads: int) -> Array:
    """Of equation (4), float32 `[num_heads]`."""
    power = 2 ** math.floor(math.log2(num_heads))
    exact = [2 ** (-8 * (h + 1) / power) for h in range(power)]
    between = [2 ** (-4 * (h + 1) / power) for h in range(0, 2 * power, 2)]
    return jnp.array((exact + between)[:num_heads], jnp.float32)


def rotate(x: Array, positions: Array, base: float) -> Array:
    """Equation (3): x `[B, S, H, d]` at positions `[S]`."""
    half = x.shape[-1] // 2
    angles = positions[:, None, None] * base ** (-jnp.arange(half, dtype=jnp.float32) / half)
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    u, w = x[..., :half].astype(jnp.float32), x[..., half:].astype(jnp.float32)
    return jnp.concatenate([u * cos - w * sin, w * cos + u * sin], -1).astype(x.dtype)


def attend(q: Array, k: Array, v: Array, bias: Array) -> Array:
    """Equations (1) and (2): q `[B, Q, H, d]`, k and v `[B, G, K, d]` or `[B G, K, d]`, and the
    bias of a `View`, to `[B, Q, H, d]`. The softmax is float32."""
    batch, queries, heads, size = q.shape
    # Heads of one group are rows of one product.
    rows = (q / math.sqrt(size)).swapaxes(1, 2).reshape(*k.shape[:-2], -1, size)
    scores = (rows @ k.swapaxes(-2, -1)).astype(jnp.float32)
    weights = jax.nn.softmax(scores.reshape(batch, heads, queries, -1) + bias, -1)
    mixed = weights.astype(v.dtype).reshape(*rows.shape[:-1], -1) @ v
    return mixed.reshape(batch, heads, queries, size).swapaxes(1, 2)


def is_fused(dtype: str, head_size: int) -> bool:
    """Whether this backend has a fused kernel for causal attention in this type."""
    return (
        jax.default_backend() == 'gpu'
        and dtype in ('bfloat16', 'float16')
        and head_size <= 128
        and head_size % 8 == 0
    )


class SelfAttention(nn.Module):
    """Causal attention of `num_heads` query heads of `head_size`, `key_heads` of keys and values.

    `rotary_base` None leaves out (3), `qk_norm` False (5). `dropout` is of the output. `out_init`
    is the initializer of the matrix that ends the branch.
    """

    num_heads: int
    key_heads: int
    head_size: int
    kernel_init: nn.initializers.Initializer
    out_init: nn.initializers.Initializer
    bias: bool
    qk_norm: bool
    norm_epsilon: float
    rotary_base: float | None
    window: int | None
    dropout: float
    dtype: str

    @nn.compact
    def __call__(
        self, x: Array, view: View, cache: Cache | None = None, *, train: bool
    ) -> tuple[Array, Cache | None]:
        """x `[B, S, C]` to the branch `[B, S, C]`, and the cache with what x added to it."""
        q, k, v = self._project(x)
        if self.qk_norm:
            norm = functools.partial(nn.RMSNorm, epsilon=self.norm_epsilon, dtype=self.dtype)
            q, k = norm(name='q_norm')(q), norm(name='k_norm')(k)
        if self.rotary_base is not None:
            q, k = (rotate(part, view.positions, self.rotary_base) for part in (q, k))
        if view.bias is None:
            reach = None if self.window is None else (self.window - 1, 0)
            y = jax.nn.dot_product_attention(
                q, k, v, is_causal=True, local_window_size=reach, implementation='cudnn'
            )
        else:
            k, v = k.swapaxes(1, 2), v.swapaxes(1, 2)
            if cache is not None:
                k, v = cache = cache.extended(k, v, view.positions[0])
            y = attend(q, k, v, view.bias)
        layer = functools.partial(dense, bias=self.bias, dtype=self.dtype)
        out = layer(x.shape[-1], OUT_OF_BRANCH, self.out_init, name='out')
        return Dropout(self.dropout)(out(y.reshape(*x.shape[:2], -1)), train=train), cache

    def _project(self, x: Array) -> list[Array]:
        """q `[B, S, H, d]`, k and v `[B, S, G, d]`."""
        parts = []
        for name, heads in (('q', self.num_heads), ('k', self.key_heads), ('v', self.key_heads)):
            layer = dense(
                heads * self.head_size,
                INTO_BRANCH,
                self.kernel_init,
                bias=self.bias,
                dtype=self.dtype,
                name=name,
            )
            parts.append(layer(x).reshape(*x.shape[:2], heads, self.head_size))
        return parts
