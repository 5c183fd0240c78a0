"""A recurrent network over tokens: long short-term memory (Hochreiter & Schmidhuber 1997).

    (1) (i, f, g, o) = W [x_t, h_{t-1}] + b
        c_t = sigmoid(f) c_{t-1} + sigmoid(i) tanh(g),   h_t = sigmoid(o) tanh(c_t)
    (2) logits_t = W' h_t of the last layer

What came before the first token is c = h = 0. It answers the same calls as the transformer, with
the (c, h) of each layer as what is kept of the tokens before.
"""

import functools
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from gen_jax.errors import InputError
from gen_jax.networks.layers import Dropout
from gen_jax.types import Array

# (c, h) of each layer, `[B, width]`.
Cache = tuple[tuple[Array, Array], ...]


class LSTM(nn.Module):
    """`num_layers` layers of equation (1), each `width` wide, with dropout between them.

    Raises:
      InputError: fields that make no network.
    """

    vocab_size: int
    context: int
    width: int = 256
    num_layers: int = 1
    dropout: float = 0.0
    dtype: str = 'float32'

    def __post_init__(self):
        for field in ('width', 'num_layers'):
            if getattr(self, field) < 1:
                raise InputError(f'{field}: {getattr(self, field)} must be at least 1')
        if not 0 <= self.dropout < 1:
            raise InputError(f'dropout: {self.dropout} must be from 0 to below 1')
        super().__post_init__()

    @nn.compact
    def __call__(
        self,
        tokens: Array,
        *,
        segments: Array | None = None,
        cache: Cache | None = None,
        start: Array | int = 0,
        train: bool = False,
    ) -> Array | tuple[Array, Cache]:
        """Logits of the token after each of int32 `[B, S]`: float32 `[B, S, vocab_size]`, and the
        cache after them, where one is given. `start` changes nothing.

        Raises:
          InputError: segments, which a recurrent network would need to forget between.
        """
        if segments is not None:
            raise InputError(
                'method.separate_documents: a recurrent network reads on; set it to False'
            )
        h = nn.Embed(self.vocab_size, self.width, dtype=self.dtype, name='tokens')(tokens)
        kept = []
        for i in range(self.num_layers):
            h = Dropout(self.dropout)(h, train=train)
            cell = nn.OptimizedLSTMCell(self.width, dtype=self.dtype, name=f'cell_{i}')
            before = None if cache is None else cache[i]
            after, h = nn.RNN(cell, name=f'layer_{i}')(h, initial_carry=before, return_carry=True)
            kept.append(after)
        h = Dropout(self.dropout)(h, train=train)
        # Products of half precision are summed in float32, and stay so.
        product = functools.partial(jax.lax.dot_general, preferred_element_type=jnp.float32)
        head = nn.Dense(self.vocab_size, dtype=self.dtype, dot_general=product, name='head')
        logits = head(h)
        return logits if cache is None else (logits, tuple(kept))

    def init_cache(self, batch_size: int, length: int) -> Cache:
        """What is kept before the first token, float32 as where no cache is given; it does not
        grow with the length."""
        nothing = jnp.zeros((batch_size, self.width), jnp.float32)
        return ((nothing, nothing),) * self.num_layers

    def grow_cache(self, cache: Cache, length: int) -> Cache:
        """The cache as it is."""
        return cache

    def for_decoding(self, params: Mapping) -> tuple['LSTM', dict]:
        """The same network and parameters: nothing is in the way of reading token after token."""
        return self, dict(params)
