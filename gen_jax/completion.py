"""Texts that go on from a prompt: `--mode=sample --prompt="..."`.

The model sees at most its context. Of a longer prompt it is shown the end; a text that outgrows the
context goes on from its last half (`samplers/tokens.py`). Prompts are continued in batches, side by
side; a beam search, which stays within the context, takes one after the other.
"""

import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

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
from gen_jax.types import Key

# The tokens `[B, N]` of some sequences, and the last position that is final in them.
Drawn = tuple[np.ndarray, int]
# (parameters, tokens, known, key) -> what is drawn, again and again.
Draw = Callable[[dict, np.ndarray, np.ndarray, Key], Iterator[Drawn]]

_PIECE = 8  # tokens between two looks at what has been drawn
_ROUNDED = 32  # lengths are rounded to multiples of this, so that few programs are compiled
_MOST_TOKENS = 2**20  # after a prompt


def prompts_of(config, run: Run, prompt: str | None, prompt_file: str | None) -> list[np.ndarray]:
    """The tokens of the prompts that the flags give, int32 `[P]` each.

    A file is read as those of training are (`data/text_files.py`): every line of a .jsonl file is a
    prompt, an object with "text"; any other file is one prompt. An empty prompt is the beginning of
    a document.

    Raises:
      InputError: a method or data that no text goes into, a file that cannot be read, or what this
        model's tokenizer does not know.
    """
    if prompt is not None and prompt_file is not None:
        raise InputError('--prompt, --prompt_file: give one of the two')
    if run.method.predictor is None or run.spec.tokenizer is None:
        raise InputError('--prompt: only a model of text, token after token, goes on from one')
    field = '--prompt' if prompt_file is None else f'--prompt_file: {prompt_file}'
    texts = [prompt] if prompt_file is None else text_files.read(Path(prompt_file), field)
    return [modality(config).encode(text, run.spec, field) for text in texts]


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
      prompts: tokens; none are the beginning of a document.
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
    start = np.array([end], np.int32)
    shown = [tokens[-context:] if len(tokens) else start for tokens in prompts]
    for long in sorted({len(tokens) for tokens in prompts if len(tokens) > context}):
        print(f'of a prompt of {long} tokens the model sees the last {context}', file=sys.stderr)
    search = {name: options.get(name) for name in ('num_beams', 'length_penalty')}
    options = {name: value for name, value in options.items() if name not in search}
    build.check_keywords(samplers.Rules, options, 'sample.options', hidden=('stop',))
    rules = samplers.Rules(**options, stop=(end,))
    with in_section('sample.options'):
        samplers.check(rules)
        check_search(rules, **search)
    lengths = [len(tokens) for tokens in shown]
    if search['num_beams'] is None:
        most = [max_tokens or context] * len(shown)
        groups = _in_batches(shown, most[0], end, context, batch_size)
        draw = _make_sampler(run, rules, lengths, most[0])
    else:
        fits = context + 1 - max(lengths)
        if max_tokens is not None and max_tokens > fits:
            raise InputError(
                f'--max_tokens: {max_tokens} after {max(lengths)}; a search for beams stays within '
                f'the context of {context} tokens, so use at most {fits}'
            )
        most = [max_tokens or context + 1 - length for length in lengths]
        groups = [_lay_out([p], len(p) + n, end) for p, n in zip(shown, most, strict=True)]
        draw = _make_search(run, rules, search)

    def complete(state: TrainState, key: Key) -> Iterator[list[np.ndarray]]:
        params, rows = sampling_params(state), []
        for number, group in enumerate(groups):
            finished = list(rows)
            for drawn, position in draw(params, *group, jax.random.fold_in(key, number)):
                these = range(len(finished), len(prompts))
                rows = [*finished]
                for row, i in zip(drawn, these, strict=False):  # a last batch may be filled up
                    new = row[lengths[i] : position + 1][: most[i]]
                    ends = np.flatnonzero(new == end)
                    rows.append(np.concatenate([prompts[i], new[: ends[0]] if len(ends) else new]))
                yield rows

    return complete


def _in_batches(
    prompts: Sequence[np.ndarray], num: int, end: int, context: int, batch_size: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Prompts with room for `num` tokens after the longest, all batches of one shape."""
    length = max(map(len, prompts)) + num
    rounded = -(-length // _ROUNDED) * _ROUNDED
    if length <= context + 1:  # what fits shall not outgrow the context by rounding
        rounded = min(rounded, context + 1)
    tokens, known = _lay_out(prompts, rounded, end)
    size = min(batch_size, len(prompts))
    starts = range(0, len(prompts), size)
    batches = [(start + np.arange(size)) % len(prompts) for start in starts]
    return [(tokens[these], known[these]) for these in batches]


def _lay_out(
    prompts: Sequence[np.ndarray], length: int, filling: int
) -> tuple[np.ndarray, np.ndarray]:
    """Prompts as tokens `[B, length]`, and which of them are known."""
    tokens = np.full((len(prompts), length), filling, np.int32)
    known = np.zeros(tokens.shape, bool)
    for row, prompt in enumerate(prompts):
        tokens[row, : len(prompt)], known[row, : len(prompt)] = prompt, True
    return tokens, known


def _make_sampler(run: Run, rules: samplers.Rules, lengths: Sequence[int], num: int) -> Draw:
    """Draws `num` tokens after prompts of these lengths, `_PIECE` at a time."""
    prefix = max(1, min(lengths) // _ROUNDED * _ROUNDED)
    positions = range(min(lengths), max(lengths) + num)

    @run.parallel.jit
    def begin(params, tokens, known):
        return samplers.begin(run.method.predictor(params), tokens, known, rules, prefix=prefix)

    @functools.partial(run.parallel.jit, donate_argnums=1)
    def advance(params, sequences, key, until):
        return samplers.advance(run.method.predictor(params), sequences, key, until, rules)

    def draw(params: dict, tokens: np.ndarray, known: np.ndarray, key: Key) -> Iterator[Drawn]:
        sequences = begin(params, tokens, known)
        for until in (*positions[::_PIECE], positions[-1]):
            sequences = advance(params, sequences, key, jnp.int32(until))
            drawn, done = hosts.to_host((sequences.tokens, sequences.done))
            yield drawn, until
            preemption.check()
            if done.all():
                return

    return draw


def _make_search(run: Run, rules: samplers.Rules, search: dict) -> Draw:
    """Looks for the likeliest sequence that goes on from a prompt, all of it at once."""

    @functools.partial(run.parallel.jit, static_argnums=3)
    def find(params, tokens, known, prefix):
        predict = run.method.predictor(params)
        return beam_search(predict, tokens, known, stop=rules.stop, prefix=prefix, **search)

    def draw(params: dict, tokens: np.ndarray, known: np.ndarray, key: Key) -> Iterator[Drawn]:
        yield hosts.to_host(find(params, tokens, known, int(known.sum()))), tokens.shape[1] - 1
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
        for number, text in enumerate(texts, start=1):
            print(f'======== {number} of {len(texts)} ========\n{text}\n', flush=True)
    return np.array(texts, str)
