"""The words that every room shares: arrays, keys, batches, and the shape of the data.

`Batch` is a plain dict. `x` is float `[B, H, W, C]`, `[B, T, C]`, `[B, D]` or int32 `[B, L]`;
optional entries are `label` (int32 `[B]`; in training -1 where it is unknown, for methods that
learn from such examples), `cond`, and `mask` (float `[B]`, 0 on padding rows), which makes the last
evaluation batch exact.

Documents cut into windows of tokens, text or music, also have `before` (int32 `[B]`: the token that
precedes x, a document's start or whatever stood there), `weight` (float32 `[B, L]`: 0 on tokens
that are read and not predicted, as context or padding, else 1), and `counts` (float32
`[B, len(spec.units)]`: how many of each unit the tokens of weight 1 make).
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

Array = jax.Array
Key = jax.Array
Batch = Mapping[str, Array]
Tree = Any
# (x_t [B, ...], t []) -> an estimate of x_0 [B, ...]: all that a sampler sees of a network.
Predictor = Callable[[Array, Array], Array]


class DataSpec(NamedTuple):
    """What a network must know of one example; it flows from data to methods, never back.

    `levels` counts the equally spaced values in [-1, 1] that the original data takes (256 for
    8-bit images), None for data that is continuous in itself. `dequantized` says that uniform
    noise of one level's width was added, so that `x` is continuous and its density bounds the
    discrete likelihood. `bounded` says that x lies in [-1, 1], or almost; latents do not.

    Tokens, int32 `[L]`, are below `vocab_size`. Windows of documents have a `start_token`, which
    stands before the first token of each document and after the last; `units` are what they are
    counted in besides tokens ('char', 'byte', 'frame', 'note'). Of text, `tokenizer` is what turns
    them into characters again, as JSON (`data/tokenizers.py`); of music in events, `words` says
    what each token is (`data/events.py`).
    """

    shape: tuple[int, ...]
    dtype: str = 'float32'
    levels: int | None = None
    dequantized: bool = False
    bounded: bool = True
    num_classes: int | None = None
    vocab_size: int | None = None
    start_token: int | None = None
    units: tuple[str, ...] = ()
    tokenizer: str | None = None
    words: tuple[str, ...] | None = None
