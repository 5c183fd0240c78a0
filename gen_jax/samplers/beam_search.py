"""Beam search: the likeliest sequence, as far as a few candidates at a time can find it.

    (1) of the `num_beams` V continuations of `num_beams` sequences, keep the likeliest `num_beams`
    (2) at the end take the one of highest log p / (number of tokens drawn)^length_penalty, the
        form of Hugging Face's transformers; Wu et al. 2016 divide by ((5 + number) / 6)^alpha

A sequence that has ended keeps its place and its log p. With as many beams as there are sequences
the likeliest one is found for sure; with one, the search is greedy.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gen_jax.errors import InputError
from gen_jax.samplers.tokens import Predictor, Rules, at, is_end
from gen_jax.types import Array


class Beams(NamedTuple):
    """`num_beams` candidates K for each of B sequences.

    `tokens` int32 `[B K, N]`; `logs` float32 `[B, K]`: log p of what was drawn; `drawn` `[B, K]`:
    how many tokens that is; `done` `[B, K]`.
    """

    tokens: Array
    cache: Any
    logs: Array
    drawn: Array
    done: Array


def check_search(rules: Rules, num_beams: int | None, length_penalty: float | None) -> None:
    """Raises InputError unless these options of decoding go together. None of beams is no search,
    but sequences drawn by the rules; what these say of chance has no part in a search."""
    if num_beams is None:
        if length_penalty is not None:
            raise InputError('length_penalty: it compares beams; set num_beams, or leave it None')
        return
    if num_beams < 1:
        raise InputError(f'num_beams: {num_beams} must be at least 1, or None')
    if length_penalty is not None and not 0 <= length_penalty < math.inf:
        raise InputError(f'length_penalty: {length_penalty} must be at least 0, or None')
    if rules.repetition_penalty != 1:
        raise InputError(
            f'repetition_penalty: {rules.repetition_penalty}; a search for beams compares the '
            "model's own probabilities, so leave it 1"
        )


def beam_search(
    predictor: Predictor,
    tokens: Array,
    known: Array,
    *,
    num_beams: int,
    length_penalty: float | None = None,
    stop: tuple[int, ...] = (),
    prefix: int = 1,
) -> Array:
    """The likeliest sequences found: int32 `[B, N]`.

    Args:
      predictor: what says how likely a token is.
      tokens: int32 `[B, N]`; what is known stays, and so does what follows an end.
      known: bool `[B, N]`, the first `prefix` of all sequences among them.
      num_beams: of (1).
      length_penalty: of (2); 0 compares log p as it is, and None is 1.
      stop: tokens that end a sequence.
      prefix: how many tokens all sequences begin with.

    Raises:
      InputError: sequences longer than the context.
    """
    length_penalty = 1.0 if length_penalty is None else length_penalty
    batch, length = tokens.shape
    if length - 1 > predictor.context:
        raise InputError(
            f'beam search stays within the context, {predictor.context} tokens, and {length - 1} '
            'are asked for; ask for fewer, or leave num_beams None'
        )
    tokens, known = (jnp.repeat(rows, num_beams, axis=0) for rows in (tokens, known))
    cache = predictor.init_cache(batch * num_beams, length - 1)
    if prefix > 1:
        _, cache = predictor.read(tokens[:, : prefix - 1], cache, jnp.int32(0))
    # All candidates are one at first; only it may be continued.
    logs = jnp.where(jnp.arange(num_beams) == 0, 0.0, -jnp.inf) * jnp.ones((batch, 1))
    nothing = jnp.zeros((batch, num_beams))
    beams = Beams(tokens, cache, logs, nothing, nothing > 0)

    step = functools.partial(_extend, predictor, known, Rules(stop=stop))
    beams = jax.lax.fori_loop(prefix - 1, length - 1, step, beams)
    scores = beams.logs / jnp.maximum(beams.drawn, 1) ** length_penalty
    best = jnp.arange(batch) * num_beams + scores.argmax(-1)
    return beams.tokens[best]


def _select(rows: Array, leaf: Array) -> Array:
    """These rows of a leaf whose leading axis is that of the rows, or has several for each."""
    by_row = leaf.reshape(len(rows), -1, *leaf.shape[1:])
    return by_row[rows].reshape(leaf.shape)


def _extend(
    predictor: Predictor, known: Array, rules: Rules, position: Array, beams: Beams
) -> Beams:
    """Rule (1): the candidates up to `position` + 1."""
    batch, num_beams = beams.logs.shape
    old, is_known = at(beams.tokens, position + 1), at(known, position + 1)
    now = at(beams.tokens, position)
    logits, cache = predictor.read(now[:, None], beams.cache, position)
    logs = jax.nn.log_softmax(logits[:, 0]).reshape(batch, num_beams, -1)
    # Where there is nothing to choose, one continuation at no cost stands for all.
    is_fixed = beams.done | is_known.reshape(batch, num_beams)
    only = jnp.where(jnp.arange(logs.shape[-1]) == 0, 0.0, -jnp.inf)
    logs = beams.logs[..., None] + jnp.where(is_fixed[..., None], only, logs)
    best, index = jax.lax.top_k(logs.reshape(batch, -1), num_beams)
    parent, token = index // logits.shape[-1], index % logits.shape[-1]
    rows = (jnp.arange(batch)[:, None] * num_beams + parent).reshape(-1)
    was_fixed = is_fixed.reshape(-1)[rows]
    token = jnp.where(was_fixed, old[rows], token.reshape(-1))
    ends = is_end(token, rules) & ~was_fixed
    drawn = beams.drawn.reshape(-1)[rows] + ~was_fixed
    done = beams.done.reshape(-1)[rows] | ends
    return Beams(
        jax.lax.dynamic_update_slice_in_dim(
            beams.tokens[rows], token[:, None].astype(jnp.int32), position + 1, 1
        ),
        jax.tree.map(functools.partial(_select, rows), cache),
        best,
        drawn.reshape(batch, num_beams),
        done.reshape(batch, num_beams),
    )
