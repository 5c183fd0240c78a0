"""The words that every room shares: arrays, keys, batches, and the shape of the data.

`Batch` is a plain dict. `x` is float `[B, H, W, C]`, `[B, T, C]`, `[B, D]` or int32 `[B, L]`;
optional entries are `label` (int32 `[B]`), `cond`, and `mask` (float `[B]`, 0 on padding rows),
which makes the last evaluation batch exact.
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
    discrete likelihood.
    """

    shape: tuple[int, ...]
    dtype: str = 'float32'
    levels: int | None = None
    dequantized: bool = False
    num_classes: int | None = None
