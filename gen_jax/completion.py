"""Texts that go on from a prompt: `--mode=sample --prompt="..."`.

A prompt is the beginning of a document. The model sees at most its context: of a longer prompt the
end, and a text that outgrows the context goes on from its last half (`samplers/tokens.py`); a beam
search stays within it. Prompts are continued in batches, side by side.
"""

import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gen_jax import build, hosts, preemption
from gen_jax.data import text_files
from gen_jax.errors import InputError, in_section
from gen_jax.run import Run, modality
from gen_jax.samplers import tokens as samplers
from gen_jax.samplers.beam_search import beam_search, check_search
from gen_jax.state import TrainState, sampling_params
from gen_jax.types import Array, Key

_PIECE = 8  # tokens between two looks at what has been drawn
_ROUNDED = 32  # lengths are rounded to multiples of this, so that few programs are compiled
_MOST_TOKENS = 2**16  # after a prompt


class Group(NamedTuple):
    """Prompts that are continued side by side, START before each.

    `rows` are their numbers; `tokens` int32 `[B, N]`; `known` bool `[B, N]`: what is not drawn, as
    the prompts are and, in a search, the room that a shorter one has left. The new tokens of row i
    are those from `begins[i]` to `ends[i]`.
    """

    rows: np.ndarray
    tokens: np.ndarray
    known: np.ndarray
    begins: np.ndarray
    ends: np.ndarray


# (parameters, group, key) -> tokens [B, N] and the last position that is final, again and again.
Draw = Callable[[dict, Group, Key], Iterator[tuple[np.ndarray, int]]]


def prompts_of(config, run: Run, prompt: str | None, prompt_file: str | None) -> list[np.ndarray]:
    """The tokens of the prompts that the flags give, int32 `[P]` each.

    A file is read as those of training are (`data/text_files.py`): every line of a .jsonl file is a
    prompt, an object with "text"; any other file is one prompt.

    Raises:
      InputError: a method or data that no text goes into, a file that cannot be read, or what this
        model's tokenizer does not know.
    """
    if prompt is not None and prompt_file is not None:
        raise InputError('--prompt, --prompt_file: give one of the two')
    if run.method.predictor is None or run.spec.tokenizer is None:
        raise InputError('--prompt: only a model of text, token after token, goes on from one')
    encode = functools.partial(modality(config).encode, spec=run.spec)
    if prompt is not None:
        return [encode(prompt, field='--prompt')]
    field, path = f'--prompt_file: {prompt_file}', Path(prompt_file)
    texts = hosts.together(functools.partial(text_files.read, path, field), '--prompt_file')
    return [encode(text, field=field) for text in texts]


def make_completer(
    run: Run,
    prompts: Sequence[np.ndarray],
    max_tokens: int | None,
    batch_size: int,
    options: dict,
) -> Callable[[TrainState, Key], Iterator[list[np.ndarray]]]:
    """A function `(state, key)` that yields the sequences so far, again and again until all have
    ended: each begins with its prompt, and ends before the token that ends a document.

    Args:
      run: whose method draws.
      prompts: tokens; none are a document of which nothing is known.
      max_tokens: to be drawn after each prompt; None for the context of the model, or, of a search,
        what is left of it.
      batch_size: how many prompts are continued side by side.
      options: `sample.options` of the config.

    Raises:
      InputError: options out of range; found now.
    """
    context, end = run.spec.shape[0], run.spec.start_token
    if max_tokens is not None and not 0 < max_tokens <= _MOST_TOKENS:
        raise InputError(f'--max_tokens: {max_tokens} must be from 1 to {_MOST_TOKENS:,}')
    rules, search = _rules_of(options, end)
    is_search = search['num_beams'] is not None
    whole = [np.concatenate([[end], tokens]).astype(np.int32) for tokens in prompts]
    if is_search:
        _check_room(max(map(len, whole)), max_tokens, context)
    elif hosts.is_first():
        for long in sorted({len(tokens) for tokens in prompts if len(tokens) >= context}):
            print(
                f'of a prompt of {long} tokens the model sees the last {context}', file=sys.stderr
            )
    shown = [tokens[-context:] for tokens in whole]
    most = [max_tokens or (context + 1 - len(t) if is_search else context) for t in shown]
    rows = min(batch_size, len(shown))
    if not is_search:  # which is not divided among devices
        rows = -(-rows // run.parallel.batch_devices) * run.parallel.batch_devices
    groups = _group(shown, most, rows, end, context)
    prefix = max(1, min(map(len, shown)) // _ROUNDED * _ROUNDED)
    if is_search:
        draw = _make_search(run, rules, search, prefix)
    else:
        draw = _make_sampler(run, rules, prefix)

    def complete(state: TrainState, key: Key) -> Iterator[list[np.ndarray]]:
        params, texts = sampling_params(state), []
        for number, group in enumerate(groups):
            finished = list(texts)
            for drawn, last in draw(params, group, jax.random.fold_in(key, number)):
                texts = [*finished]
                for row, prompt in enumerate(group.rows[: len(prompts) - len(finished)]):
                    new = drawn[row, group.begins[row] : min(group.ends[row], last + 1)]
                    texts.append(np.concatenate([prompts[prompt], _before(end, new)]))
                yield texts

    return complete


def _rules_of(options: dict, end: int) -> tuple[samplers.Rules, dict]:
    """`sample.options` as rules of chance, and as what a search is told; `num_beams` None there is
    no search."""
    search = {name: options.get(name) for name in ('num_beams', 'length_penalty')}
    options = {name: value for name, value in options.items() if name not in search}
    own = ('stop', 'separator')
    build.check_keywords(samplers.Rules, options, 'sample.options', hidden=own)
    rules = samplers.Rules(**options, stop=(end,))
    with in_section('sample.options'):
        samplers.check(rules)
        check_search(rules, **search)
    return rules, search


def _before(end: int, tokens: np.ndarray) -> np.ndarray:
    """What stands before the first end, or everything."""
    ends = np.flatnonzero(tokens == end)
    return tokens[: ends[0]] if len(ends) else tokens


def _check_room(longest: int, max_tokens: int | None, context: int) -> None:
    """Raises InputError where a search for beams would not stay within the context."""
    room = context + 1 - longest
    if room < (max_tokens or 1):
        raise InputError(
            f'--max_tokens: {max_tokens} after {longest} tokens; a search for beams stays within '
            f'the context of {context}, which has room for {max(room, 0)}'
        )


def _group(
    prompts: Sequence[np.ndarray], most: Sequence[int], size: int, end: int, context: int
) -> list[Group]:
    """Groups of `size` prompts, all of one shape; the last one is filled up from the first."""
    begins = np.array([len(tokens) for tokens in prompts])
    ends = begins + np.array(most)
    length = -(-int(ends.max()) // _ROUNDED) * _ROUNDED
    if ends.max() <= context + 1:  # what fits shall not outgrow the context by rounding
        length = min(length, context + 1)
    tokens = np.full((len(prompts), length), end, np.int32)
    for row, prompt in zip(tokens, prompts, strict=True):
        row[: len(prompt)] = prompt
    places = np.arange(length)
    known = (places < begins[:, None]) | (places >= ends[:, None])
    groups = []
    for start in range(0, len(prompts), size):
        rows = (start + np.arange(size)) % len(prompts)
        groups.append(Group(rows, tokens[rows], known[rows], begins[rows], ends[rows]))
    return groups


def _make_sampler(run: Run, rules: samplers.Rules, prefix: int) -> Draw:
    """Draws by chance, `_PIECE` tokens at a time; each device has a part of the rows."""

    @run.parallel.jit
    def begin(params, tokens, known):
        split = functools.partial(
            jax.lax.with_sharding_constraint, shardings=run.parallel.batch_sharding
        )
        predict = run.method.predictor(params)
        return samplers.begin(predict, split(tokens), split(known), rules, prefix=prefix)

    @functools.partial(run.parallel.jit, donate_argnums=1)
    def advance(params, sequences, key, until):
        return samplers.advance(run.method.predictor(params), sequences, key, until, rules)

    def draw(params: dict, group: Group, key: Key) -> Iterator[tuple[np.ndarray, int]]:
        sequences = begin(params, group.tokens, group.known)
        first, last = int(group.begins.min()), int(group.ends.max()) - 1
        for until in (*range(first, last, _PIECE), last):
            sequences = advance(params, sequences, key, jnp.int32(until))
            drawn, done = hosts.to_host((sequences.tokens, sequences.done))
            yield drawn, until
            preemption.check()
            if done.all():
                return

    return draw


def _make_search(run: Run, rules: samplers.Rules, search: dict, prefix: int) -> Draw:
    """Looks for the likeliest texts, all at once."""

    @run.parallel.jit
    def find(params: dict, tokens: Array, known: Array) -> Array:
        predict = run.method.predictor(params)
        return beam_search(predict, tokens, known, stop=rules.stop, prefix=prefix, **search)

    def draw(params: dict, group: Group, key: Key) -> Iterator[tuple[np.ndarray, int]]:
        yield hosts.to_host(find(params, group.tokens, group.known)), group.tokens.shape[1] - 1
        preemption.check()

    return draw


def show(parts: Iterator[list[np.ndarray]], decode: Callable, num: int) -> np.ndarray:
    """Prints a text to stdout as it grows, where `num` is one, or all of them at the end, each
    under a line with its number. Returns the texts, str `[num]`."""
    shown, rows = '', []
    for rows in parts:
        if num == 1 and hosts.is_first():
            # Without the first bytes of a character that is to come.
            whole = decode(rows[0][None])[0].rstrip('\ufffd')
            print(whole[len(shown) :], end='', flush=True)
            shown = whole
    texts = [decode(row[None])[0] for row in rows]
    if num == 1 and hosts.is_first():
        print(texts[0][len(shown) :], flush=True)
    elif hosts.is_first():
        print_texts(texts)
    return np.array(texts, str)


def print_texts(texts: Sequence[str]) -> None:
    """Each under a line with its number, where there are several."""
    for number, text in enumerate(texts, start=1):
        head = f'======== {number} of {len(texts)} ========\n' if len(texts) > 1 else ''
        print(f'{head}{text}\n', flush=True)
