"""Sequences drawn token after token, from any network that can say what comes next.

    (1) x_{t+1} ~ p(. | x_<=t), as `Rules` change it; tokens that are known are taken as they are
    (2) the network reads each token once: what it keeps of it lies in a cache, made beforehand
    (3) where a sequence outgrows the context, the network reads the last half of it anew, and goes
        on from there

All sequences of a batch stand at the same position; in one with a longer prompt than others more
tokens are known. Everything is one compiled loop. What the tokens of position t are drawn with
depends on the key and t, so it does not matter in how many calls of `advance` they are drawn.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gen_jax.errors import InputError
from gen_jax.types import Array, Key

# A cache grows in so many steps, which are compiled one by one, and by so many places at least.
_ROOMS = 4
_SMALLEST_ROOM = 64


class Predictor(NamedTuple):
    """All that decoding sees of a network.

    read: `(tokens [B, S], cache, start) -> (logits [B, S, V], cache)`: reads tokens at the places
      `start`, `start` + 1, ... of the context, `start` int32 `[]`.
    init_cache: `(batch size, places) -> cache`: arrays in whose leading axis each row of the batch
      has one place, or as many as any other, one after another.
    grow_cache: `(cache, places) -> cache`: the same with room for more.
    vocab_size: V.
    context: the most places that the network was trained for.
    """

    read: Callable[[Array, Any, Array], tuple[Array, Any]]
    init_cache: Callable[[int, int], Any]
    grow_cache: Callable[[Any, int], Any]
    vocab_size: int
    context: int


class State(NamedTuple):
    """Sequences in the making.

    `tokens` int32 `[B, N]` are final up to `position`, the last one there is; `place` is where in
    the context it belongs, and the cache holds the places before. `done` `[B]`: those that have
    ended. `seen` bool `[B, V]`: the tokens up to `position`, or None where nobody asks. `goes_on`
    bool `[B, N]`: where more of the same document is known to come, or None.
    """

    tokens: Array
    known: Array
    goes_on: Array | None
    cache: Any
    position: Array
    place: Array
    done: Array
    seen: Array | None


class Rules(NamedTuple):
    """How a token is drawn from logits, in this order.

    repetition_penalty: logits of tokens that are there already are divided by it where they are
      positive, and else multiplied by it (Keskar et al. 2019).
    temperature: logits are divided by it; 0 takes the likeliest token always.
    top_k: only the k likeliest tokens (Fan et al. 2018).
    top_p: only the likeliest tokens that together have at least this probability (Holtzman et al.
      2020).
    min_p: only tokens with at least this share of the likeliest one's probability (Nguyen et al.
      2024).
    stop: a sequence ends with the first of these that is drawn.
    separator: what stands between documents, and is not drawn before a token of the same document
      that is known; None where there are no documents, or nothing known but the beginning.
    """

    repetition_penalty: float = 1.0
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    stop: tuple[int, ...] = ()
    separator: int | None = None


def check(rules: Rules) -> None:
    """Raises InputError for a value out of its range."""
    if not rules.repetition_penalty > 0:
        raise InputError(f'repetition_penalty: {rules.repetition_penalty} must be above 0')
    if not rules.temperature >= 0:
        raise InputError(f'temperature: {rules.temperature} must be at least 0')
    if rules.top_k is not None and rules.top_k < 1:
        raise InputError(f'top_k: {rules.top_k} must be at least 1, or None')
    for name in ('top_p', 'min_p'):
        share = getattr(rules, name)
        if share is not None and not 0 < share <= 1:
            raise InputError(f'{name}: {share} must be above 0 and at most 1, or None')


def choose(rules: Rules, logits: Array, seen: Array | None, key: Key) -> Array:
    """Tokens int32 `[B]` from logits `[B, V]`, `seen` being those of the sequence `[B, V]`."""
    if rules.repetition_penalty != 1:
        logits = penalize(logits, seen, rules.repetition_penalty)
    if rules.temperature == 0:
        return logits.argmax(-1).astype(jnp.int32)
    logits = logits / rules.temperature
    if rules.top_k is not None:
        logits = keep_top_k(logits, rules.top_k)
    if rules.top_p is not None:
        logits = keep_top_p(logits, rules.top_p)
    if rules.min_p is not None:
        best = logits.max(-1, keepdims=True)
        logits = jnp.where(logits >= best + jnp.log(rules.min_p), logits, -jnp.inf)
    return jax.random.categorical(key, logits).astype(jnp.int32)


def keep_top_k(logits: Array, k: int) -> Array:
    """Logits `[B, V]`, those below the k-th largest -inf."""
    if k >= logits.shape[-1]:
        return logits
    smallest = jax.lax.top_k(logits, k)[0][..., -1:]
    return jnp.where(logits >= smallest, logits, -jnp.inf)


def keep_top_p(logits: Array, p: float) -> Array:
    """Logits `[B, V]`, -inf outside the fewest likeliest tokens that have a probability of p."""
    descending = jnp.sort(logits, axis=-1, descending=True)
    probabilities = jax.nn.softmax(descending, -1)
    before = jnp.cumsum(probabilities, -1) - probabilities
    smallest = jnp.where(before < p, descending, jnp.inf).min(-1, keepdims=True)
    return jnp.where(logits >= smallest, logits, -jnp.inf)


def penalize(logits: Array, seen: Array, penalty: float) -> Array:
    """Logits `[B, V]`, those of tokens seen divided by the penalty where they are positive and else
    multiplied by it."""
    lower = jnp.where(logits > 0, logits / penalty, logits * penalty)
    return jnp.where(seen, lower, logits)


def begin(
    predictor: Predictor,
    tokens: Array,
    known: Array,
    rules: Rules,
    *,
    prefix: int = 1,
    room: int | None = None,
) -> State:
    """Sequences of which nothing is drawn yet.

    Args:
      predictor: see there.
      tokens: int32 `[B, N]`; what is not known is overwritten, except after the end of a sequence.
      known: bool `[B, N]`; the first `prefix` tokens of all sequences are.
      rules: for `advance`.
      prefix: how many tokens all sequences begin with, at least 1 and at most the context; those
        but the last are read at once.
      room: places of the cache, at least `prefix`; None for all that will be needed.
    """
    batch_size, length = tokens.shape
    cache = predictor.init_cache(batch_size, room or min(length - 1, predictor.context))
    if prefix > 1:
        _, cache = predictor.read(tokens[:, : prefix - 1], cache, jnp.int32(0))
    seen = None
    if rules.repetition_penalty != 1:
        rows = jnp.arange(batch_size)[:, None]
        nothing = jnp.zeros((batch_size, predictor.vocab_size), bool)
        seen = nothing.at[rows, tokens[:, :prefix]].set(True)
        if rules.stop:  # what stands before a document also ends one, and shall be no less likely
            seen = seen.at[:, jnp.array(rules.stop)].set(False)
    goes_on = None
    if rules.separator is not None:
        comes = jnp.where(known, jnp.where(tokens == rules.separator, 0, 1), -1)
        goes_on = _next_known(comes) == 1
    last, done = jnp.int32(prefix - 1), jnp.zeros(batch_size, bool)
    return State(tokens, known, goes_on, cache, last, last, done, seen)


def _next_known(values: Array) -> Array:
    """Of values `[B, N]`, -1 where nothing is known: the next one that is known, this one among
    them; -1 where there is none."""

    def nearer(later: Array, earlier: Array) -> Array:
        return jnp.where(earlier >= 0, earlier, later)

    return jax.lax.associative_scan(nearer, values, reverse=True, axis=1)


def advance(
    predictor: Predictor, state: State, key: Key, until: Array | int, rules: Rules
) -> State:
    """Goes on to the position `until`, or until all sequences have ended. What comes after the end
    of a sequence stays as it was."""
    outgrows = state.tokens.shape[1] - 1 > predictor.context

    def unfinished(state: State) -> Array:
        return (state.position < until) & ~state.done.all()

    def extend(state: State) -> State:
        if outgrows:
            state = jax.lax.cond(
                state.place >= predictor.context,
                functools.partial(reread, predictor),
                lambda state: state,
                state,
            )
        position = state.position + 1
        now, old = at(state.tokens, state.position), at(state.tokens, position)
        is_known = at(state.known, position)
        logits, cache = predictor.read(now[:, None], state.cache, state.place)
        logits = logits[:, 0]
        if state.goes_on is not None:
            barred = jnp.arange(logits.shape[-1]) == rules.separator
            barred &= at(state.goes_on, position)[:, None]
            logits = jnp.where(barred, -jnp.inf, logits)
        drawn = choose(rules, logits, state.seen, jax.random.fold_in(key, state.position))
        token = jnp.where(is_known | state.done, old, drawn)
        done = state.done | (is_end(token, rules) & ~is_known)
        seen = state.seen
        if seen is not None:
            seen = seen.at[jnp.arange(len(token)), token].set(True)
        tokens = jax.lax.dynamic_update_slice_in_dim(state.tokens, token[:, None], position, 1)
        return state._replace(
            tokens=tokens,
            cache=cache,
            position=position,
            place=state.place + 1,
            done=done,
            seen=seen,
        )

    return jax.lax.while_loop(unfinished, extend, state)


def at(rows: Array, position: Array) -> Array:
    """A column of rows `[B, N]`: `[B]`."""
    return jax.lax.dynamic_index_in_dim(rows, position, 1, keepdims=False)


def is_end(token: Array, rules: Rules) -> Array:
    """Which of the tokens `[B]` end their sequence: bool `[B]`."""
    return jnp.isin(token, jnp.array(rules.stop, jnp.int32))


def reread(predictor: Predictor, state: State) -> State:
    """Rule (3): the half of the context before the last token is read as if it began there."""
    kept = predictor.context // 2
    tokens = jax.lax.dynamic_slice_in_dim(state.tokens, state.position - kept, kept, 1)
    empty = predictor.init_cache(len(tokens), predictor.context)
    _, cache = predictor.read(tokens, empty, jnp.int32(0))
    return state._replace(cache=cache, place=jnp.int32(kept))


def generate(
    predictor: Predictor,
    tokens: Array,
    known: Array,
    key: Key,
    rules: Rules,
    *,
    prefix: int = 1,
) -> Array:
    """`begin`, and `advance` to the end: the finished tokens `[B, N]`."""
    last = tokens.shape[1] - 1
    room, *others = rooms(prefix, min(last, predictor.context))
    state = begin(predictor, tokens, known, rules, prefix=prefix, room=room)
    for more in others:
        state = advance(predictor, state, key, room, rules)
        state = state._replace(cache=predictor.grow_cache(state.cache, more))
        room = more
    return advance(predictor, state, key, last, rules).tokens


def rooms(prefix: int, most: int) -> list[int]:
    """Places of the cache, one after another: a token costs a look at every place there is, also at
    those that are empty."""
    step = max(_SMALLEST_ROOM, -(-most // _ROOMS))
    return [room for room in range(step, most, step) if room > prefix] + [most]
