"""A decoder-only transformer over tokens (Vaswani et al. 2017; Radford et al. 2019).

    (1) h_0 = table[tokens] + positions + phases[position mod `period`]
    (2) h <- h + attention(norm(h)),   h <- h + mlp(norm(h))        for each of `num_layers` blocks
    (3) logits = norm(h) head',  head = table where `tied`;  cap tanh(logits / cap) with `soft_cap`

    period      of the last term of (1), where places in a frame mean different things, such as four
                voices: however a window is cut, it begins with the first; None leaves the term out
    positions   'learned' (a table, added in (1)), 'rotary', 'alibi' (see `attention.py`), 'none'
    norm        'layernorm' (Ba et al. 2016), 'rmsnorm' (Zhang & Sennrich 2019)
    activation  'gelu': W2 gelu(W1 h), in the tanh form of GPT-2;  'relu2': W2 relu(W1 h)^2 (So et
                al. 2021);  'swiglu': W2 (silu(W1 h) * W3 h) (Shazeer 2020)

The defaults are GPT-2's: 124,439,808 parameters with a vocabulary of 50,257 and a context of 1,024.
"""

import functools
import math
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from gen_jax.errors import InputError
from gen_jax.networks.attention import Cache, SelfAttention, View, bias_of, is_fused
from gen_jax.networks.layers import INTO_BRANCH, OUT_OF_BRANCH, Dropout, dense
from gen_jax.types import Array

POSITIONS = ('learned', 'rotary', 'alibi', 'none')
NORMS = ('layernorm', 'rmsnorm')
ACTIVATIONS = ('gelu', 'relu2', 'swiglu')


class Fields(nn.Module):
    """What a transformer and its blocks are told.

    `num_kv_heads` None is as many as `num_heads`; `hidden`, the inner width of the mlp, None is
    4 `width`. `window` is how many keys a query sees at most. `init_std` is the standard deviation
    of every matrix at the start, divided by sqrt(2 `num_layers`) in those that end a branch.
    `dtype` is what is computed in.
    """

    width: int = 768
    num_layers: int = 12
    num_heads: int = 12
    num_kv_heads: int | None = None
    hidden: int | None = None
    positions: str = 'learned'
    norm: str = 'layernorm'
    activation: str = 'gelu'
    bias: bool = True
    qk_norm: bool = False
    window: int | None = None
    dropout: float = 0.0
    norm_epsilon: float = 1e-5
    rotary_base: float = 10_000.0
    init_std: float = 0.02
    dtype: str = 'float32'

    def of_block(self) -> dict:
        """These fields, for a block."""
        own = Fields.__dataclass_fields__.keys() - {'parent', 'name'}  # which every module has
        return {name: getattr(self, name) for name in own}

    def make_norm(self, name: str) -> nn.Module:
        """A normalization."""
        if self.norm == 'rmsnorm':
            return nn.RMSNorm(epsilon=self.norm_epsilon, dtype=self.dtype, name=name)
        return nn.LayerNorm(
            epsilon=self.norm_epsilon, use_bias=self.bias, dtype=self.dtype, name=name
        )


class Transformer(Fields):
    """Equations (1) to (3).

    `vocab_size` and `context` are the rows of the tables of tokens and learned positions. `remat`
    computes a block anew in the backward pass; `scan` runs the blocks as one loop over parameters
    `[num_layers, ...]`.

    Raises:
      InputError: fields that make no network.
    """

    vocab_size: int = 0
    context: int = 0
    tied: bool = True
    period: int | None = None
    soft_cap: float | None = None
    remat: bool = False
    scan: bool = False

    def __post_init__(self):
        _check(self)
        super().__post_init__()

    @nn.compact
    def __call__(
        self,
        tokens: Array,
        *,
        segments: Array | None = None,
        cache: tuple[Cache, ...] | None = None,
        start: Array | int = 0,
        train: bool = False,
    ) -> Array | tuple[Array, tuple[Cache, ...]]:
        """Logits of the token after each, float32 `[B, S, vocab_size]`.

        Args:
          tokens: int32 `[B, S]`.
          segments: int32 `[B, S]`; a token sees those of its own segment alone.
          cache: of `init_cache`; then the tokens are those at positions `start`, `start` + 1, ...,
            they see what the cache holds before, and the cache with them comes back, too.
          start: see `cache`.
          train: whether numbers are dropped.
        """
        rows = functools.partial(
            nn.Embed,
            features=self.width,
            embedding_init=nn.initializers.normal(self.init_std),
            dtype=self.dtype,
        )
        table = rows(self.vocab_size, name='tokens')
        h = table(tokens)
        positions = start + jnp.arange(tokens.shape[1])
        if self.positions == 'learned':
            h = h + rows(self.context, name='positions')(positions)
        if self.period is not None:
            h = h + rows(self.period, name='phases')(positions % self.period)
        h = Dropout(self.dropout)(h, train=train)
        h, cache = self._run_blocks(h, self._view(positions, segments, cache), cache, train)
        h = self.make_norm('norm_out')(h)
        head = table if self.tied else rows(self.vocab_size, name='head')
        # Products of half precision are summed in float32, and stay so.
        rows_of_h, kernel = h.reshape(-1, self.width), head.embedding.astype(h.dtype).T
        logits = jnp.matmul(rows_of_h, kernel, preferred_element_type='float32')
        logits = logits.reshape(*tokens.shape, -1)
        if self.soft_cap is not None:
            logits = self.soft_cap * jnp.tanh(logits / self.soft_cap)
        return logits if cache is None else (logits, cache)

    def init_cache(self, batch_size: int, length: int) -> tuple[Cache, ...]:
        """An empty cache for so many positions, one entry for each layer."""
        heads, size = self.num_kv_heads or self.num_heads, self.width // self.num_heads
        return (Cache.empty(batch_size, heads, length, size, self.dtype),) * self.num_layers

    def grow_cache(self, cache: tuple[Cache, ...], length: int) -> tuple[Cache, ...]:
        """The cache with room for so many positions."""
        return tuple(layer.grown(length) for layer in cache)

    def for_decoding(self, params: Mapping) -> tuple['Transformer', dict]:
        """The same network and its parameters as a cache needs them: each block by itself."""
        plain = self.clone(scan=False, remat=False)
        if not self.scan:
            return plain, dict(params)
        layers = {
            f'block_{i}': jax.tree.map(lambda leaf, i=i: leaf[i], params['blocks'])
            for i in range(self.num_layers)
        }
        return plain, {name: tree for name, tree in params.items() if name != 'blocks'} | layers

    def _view(self, positions: Array, segments: Array | None, cache) -> View:
        plain = segments is None and cache is None and self.positions != 'alibi'
        if plain and is_fused(self.dtype, self.width // self.num_heads):
            return View(positions, None)
        keys = positions if cache is None else jnp.arange(cache[0].positions)
        heads = self.num_heads if self.positions == 'alibi' else None
        bias = bias_of(positions, keys, window=self.window, segments=segments, alibi_heads=heads)
        return View(positions, bias)

    def _run_blocks(self, h: Array, view: View, cache, train: bool):
        """All of equation (2)."""
        block = Block
        if self.remat:
            block = nn.remat(Block, prevent_cse=not self.scan, static_argnums=(4,))
        block = functools.partial(block, **self.of_block())
        if not self.scan:
            kept = []
            for i in range(self.num_layers):
                layer = None if cache is None else cache[i]
                h, layer = block(name=f'block_{i}')(h, view, layer, train)
                kept.append(layer)
            return h, None if cache is None else tuple(kept)
        if cache is not None:
            raise ValueError('a cache needs blocks of their own: see `for_decoding`')
        loop = nn.scan(
            lambda block, h, view: block(h, view, None, train),
            variable_axes={'params': 0},
            split_rngs={'params': True, 'dropout': True},
            in_axes=nn.broadcast,
            length=self.num_layers,
            metadata_params={nn.PARTITION_NAME: 'layers'},
        )
        return loop(block(name='blocks'), h, view)


class Block(Fields):
    """Equation (2), once."""

    @nn.compact
    def __call__(
        self, h: Array, view: View, cache: Cache | None, train: bool
    ) -> tuple[Array, Cache | None]:
        """h `[B, S, width]` to the next h, and the cache of this layer with it."""
        init = nn.initializers.normal(self.init_std)
        out_init = nn.initializers.normal(self.init_std / math.sqrt(2 * self.num_layers))
        attention = SelfAttention(
            self.num_heads,
            self.num_kv_heads or self.num_heads,
            self.width // self.num_heads,
            init,
            out_init,
            bias=self.bias,
            qk_norm=self.qk_norm,
            norm_epsilon=self.norm_epsilon,
            rotary_base=self.rotary_base if self.positions == 'rotary' else None,
            window=self.window,
            dropout=self.dropout,
            dtype=self.dtype,
            name='attention',
        )
        branch, cache = attention(self.make_norm('norm_0')(h), view, cache, train=train)
        h = h + branch
        branch = self._mlp(self.make_norm('norm_1')(h), init, out_init)
        return h + Dropout(self.dropout)(branch, train=train), cache

    def _mlp(self, x: Array, init, out_init) -> Array:
        layer = functools.partial(dense, bias=self.bias, dtype=self.dtype)
        hidden = self.hidden or 4 * self.width
        inner = layer(hidden, INTO_BRANCH, init, name='in')(x)
        if self.activation == 'gelu':
            inner = nn.gelu(inner, approximate=True)
        elif self.activation == 'relu2':
            inner = nn.relu(inner) ** 2
        else:
            inner = nn.silu(inner) * layer(hidden, INTO_BRANCH, init, name='gate')(x)
        return layer(self.width, OUT_OF_BRANCH, out_init, name='out')(inner)


def _check(network: Transformer) -> None:
    """Raises InputError for fields that make no network."""
    for field, known in (('positions', POSITIONS), ('norm', NORMS), ('activation', ACTIVATIONS)):
        value = getattr(network, field)
        if value not in known:
            raise InputError(f'{field}: no {value!r}; choose from {", ".join(known)}')
    counts = ('width', 'num_layers', 'num_heads', 'num_kv_heads', 'hidden', 'window', 'period')
    for field in counts:
        value = getattr(network, field)
        if value is not None and value < 1:
            raise InputError(f'{field}: {value} must be at least 1')
    if network.width % network.num_heads:
        raise InputError(
            f'num_heads: {network.num_heads} do not divide a width of {network.width} evenly'
        )
    if network.num_heads % (network.num_kv_heads or network.num_heads):
        raise InputError(
            f'num_kv_heads: {network.num_kv_heads} do not divide {network.num_heads} heads evenly'
        )
    if network.positions == 'rotary' and network.width // network.num_heads % 2:
        raise InputError('num_heads: rotary positions need heads of an even size')
    if network.soft_cap is not None and not network.soft_cap > 0:
        raise InputError(f'soft_cap: {network.soft_cap} must be above 0, or None')
    if not 0 <= network.dropout < 1:
        raise InputError(f'dropout: {network.dropout} must be from 0 to below 1')
