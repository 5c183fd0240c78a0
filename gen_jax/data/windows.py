"""Windows of documents: a stream of tokens becomes a training Split and an evaluation Split.

A corpus is one stream, its documents with a separator before each and after the last,

    START doc_1 START doc_2 ... START doc_n START

START being one token, or a whole frame of F equal ones where documents are made of frames of F
tokens, so that frames stay aligned. s_0, ..., s_{M-1} are the M tokens after the first START. The
window of L tokens at b is x = s_b, ..., s_{b+L-1}, and `before` it stands s_{b-1}.

    (1) training     window i begins at  b = i L + r F,  r = 0, ..., L / F - 1 drawn from the bits
                     of its row (bits of zero: r = 0), i = 0, ..., ceil(M / L) - 1. The stream is a
                     ring: what follows the last START is doc_1, again where the corpus is short.
    (2) evaluation   window k begins at  b = k S,  k = 0, ..., ceil((M - L) / S). The first one is
                     predicted whole and of the others the last S tokens, which those before did
                     not reach: so each of the M tokens is predicted exactly once, and all but the
                     first L of them with at least L - S tokens before them in their window. What
                     would lie after the end is START, of weight 0.

Batches hold `x`, `before`, `weight` and `counts`, as `gen_jax/types.py` says.
"""

from collections.abc import Callable, Iterable

import numpy as np

from gen_jax.data.dataset import Arrays, Split
from gen_jax.errors import InputError


def join(documents: Iterable[np.ndarray], start: np.ndarray) -> np.ndarray:
    """The stream of documents of whole frames, each int `[n F]`; `start`, int `[F]`, is START and
    gives the stream its type.

    Raises:
      ValueError: a document that is not made of whole frames.
    """
    parts = [start]
    for document in documents:
        if len(document) % len(start):
            raise ValueError(f'a document of {len(document)} tokens, in frames of {len(start)}')
        parts += [np.asarray(document, start.dtype), start]
    return np.concatenate(parts)


def check(length: int, stride: int | None, frame: int = 1) -> None:
    """Raises InputError unless windows of `length` tokens can advance by `stride`, in frames."""
    if length < 1 or length % frame:
        wanted = '1 or more' if frame == 1 else f'a positive multiple of {frame}, whole frames'
        raise InputError(f'data.context: {length} tokens; use {wanted}')
    if stride is not None and (not 0 < stride <= length or stride % frame):
        wanted = f'{frame} to {length}' + ('' if frame == 1 else f', in steps of {frame}')
        raise InputError(
            f'data.evaluation_stride: {stride} tokens; use {wanted}, or None for {length}'
        )


def training(
    stream: np.ndarray,
    length: int,
    per_token: np.ndarray,
    *,
    frame: int = 1,
    change: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
) -> Split:
    """Equation (1): windows that begin anywhere, all of whose tokens are predicted.

    Args:
      stream: of `join`; int of any width, also on disk.
      length: L, a multiple of `frame`.
      per_token: float `[V, U]`, how many of each unit a token makes; U may be 0.
      frame: F, the tokens of START.
      change: augmentation, `(tokens, bits) -> tokens`: int32 `[B, 1 + L]`, the first column being
        `before`, and uint64 `[B]`, bits of zero for none.
    """
    num_tokens, offsets = len(stream) - frame, np.arange(-1, 2 * length - frame)

    def fetch(indices: np.ndarray) -> Arrays:
        places = (indices[:, None] * length + offsets) % num_tokens
        return {'tokens': stream[frame + places]}

    def transform(raw: Arrays, bits: np.ndarray) -> Arrays:
        # The lower half of the bits is for the place, the upper one for the augmentation.
        shift = (bits & np.uint64(0xFFFFFFFF)) % np.uint64(length // frame)
        places = shift.astype(np.int64)[:, None] * frame + np.arange(length + 1)
        tokens = np.take_along_axis(raw['tokens'], places, axis=1).astype(np.int32)
        if change is not None:
            tokens = change(tokens, bits >> np.uint64(32))
        return _batch(tokens, np.ones((len(tokens), length), np.float32), per_token)

    return Split(-(-num_tokens // length), fetch, transform)


def evaluation(
    stream: np.ndarray,
    length: int,
    stride: int | None,
    per_token: np.ndarray,
    *,
    frame: int = 1,
) -> Split:
    """Equation (2): every token after the first START is predicted once.

    `stride` is S, at most L and None for L; the rest is as in `training`.
    """
    num_tokens, stride = len(stream) - frame, stride or length
    offsets = np.arange(-1, length)

    def fetch(indices: np.ndarray) -> Arrays:
        places = indices[:, None] * stride + offsets
        inside = places < num_tokens
        tokens = np.where(inside, stream[frame + np.where(inside, places, -1)], stream[0])
        new = (indices[:, None] == 0) | (offsets[1:] >= length - stride)
        return {'tokens': tokens, 'weight': (inside[:, 1:] & new).astype(np.float32)}

    def transform(raw: Arrays, bits: np.ndarray) -> Arrays:
        return _batch(raw['tokens'].astype(np.int32), raw['weight'], per_token)

    return Split(1 + max(0, -(-(num_tokens - length) // stride)), fetch, transform)


def _batch(tokens: np.ndarray, weight: np.ndarray, per_token: np.ndarray) -> Arrays:
    before, x = tokens[:, 0], tokens[:, 1:]
    counts = np.einsum('bl,blu->bu', weight, per_token[x]).astype(np.float32)
    return {'x': x, 'before': before, 'weight': weight, 'counts': counts}
