"""Streams of tokens cut into windows: the examples that a model of documents sees.

A stream is END document END document END ... END. Its tokens after the first END are what is
predicted, each given those before it in its window and the one just before the window, `before`.

Training: windows of L tokens that begin L apart, each shifted by as many tokens as its random bits
say, 0 … L - 1: so every token is at every place of a window, by and by. The last END and the first
are the same one, and a window goes on after it with the first document.

Evaluation: windows of L tokens that begin S apart. The first predicts all its tokens, each further
one its last S, so that these have a context of at least L - S; what lies beyond the stream is
padding. Every token is predicted in exactly one window:

    S = L      |--------|--------|--------|
    S = L / 2  |--------|
                    ....|----|
                         ....|----|
"""

import numpy as np

from gen_jax.data.dataset import Arrays, Split
from gen_jax.errors import InputError


def training(stream: np.ndarray, context: int, units: np.ndarray) -> Split:
    """Windows of `context` tokens of a stream, drawn anew in each epoch.

    Args:
      stream: any integers `[T]`; it may be a memory map.
      context: L, the length of a window.
      units: float32 `[vocab_size, U]`, what each token counts of each unit.

    Batches hold `x` int32 `[B, L]`, `before` int32 `[B]`, `weight` float32 `[B, L]` of ones, and
    `counts` float32 `[B, U]`. Bits of zero shift by nothing.

    Raises:
      InputError: naming data.context: the stream is shorter than a window.
    """
    stream = np.asarray(stream)
    around = len(stream) - 1  # tokens until the END that is also the first one
    if around < context:
        raise InputError(
            f'data.context: {context} is more than the {around:,} tokens of the training split; '
            'use a smaller one, or more text'
        )
    reach = np.arange(2 * context)

    def fetch(indices: np.ndarray) -> Arrays:
        tokens = np.empty((len(indices), 2 * context), np.int32)
        for row, index in zip(tokens, indices, strict=True):
            start = int(index) * context
            if start + 2 * context <= len(stream):
                row[:] = stream[start : start + 2 * context]
            else:
                row[:] = stream[(start + reach) % around]
        return {'tokens': tokens}

    def transform(raw: Arrays, bits: np.ndarray) -> Arrays:
        shift = (bits % np.uint64(context)).astype(np.int64)
        cut = np.take_along_axis(raw['tokens'], shift[:, None] + reach[: context + 1], axis=1)
        weight = np.ones((len(cut), context), np.float32)
        return _batch(cut[:, 1:], cut[:, 0], weight, units)

    return Split(-(-around // context), fetch, transform)


def evaluation(
    stream: np.ndarray, context: int, stride: int, units: np.ndarray, padding: int
) -> Split:
    """Windows that predict every token of a stream once.

    Args:
      stream, context, units: as for `training`; the stream may be shorter than a window.
      stride: S, from 1 to L.
      padding: the token that fills the last window.

    Batches are those of `training`, with a weight of 0 on what is not predicted; bits change
    nothing.
    """
    stream = np.asarray(stream)
    further = max(0, len(stream) - 1 - context)
    places = np.arange(context)

    def fetch(indices: np.ndarray) -> Arrays:
        tokens = np.full((len(indices), context + 1), padding, np.int32)
        for row, index in zip(tokens, indices, strict=True):
            found = stream[int(index) * stride :][: context + 1]
            row[: len(found)] = found
        there = (indices * stride)[:, None] + places + 1 < len(stream)
        new = (indices == 0)[:, None] | (places >= context - stride)
        return {'tokens': tokens, 'weight': (there & new).astype(np.float32)}

    def transform(raw: Arrays, bits: np.ndarray) -> Arrays:
        tokens = raw['tokens']
        return _batch(tokens[:, 1:], tokens[:, 0], raw['weight'], units)

    return Split(1 + -(-further // stride), fetch, transform)


def _batch(x: np.ndarray, before: np.ndarray, weight: np.ndarray, units: np.ndarray) -> Arrays:
    counts = np.einsum('blu,bl->bu', units[x], weight)
    return {'x': x, 'before': before, 'weight': weight, 'counts': counts}
