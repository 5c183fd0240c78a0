"""Texts that go on from a prompt: `--mode=sample --prompt="..."`.

The model sees at most its context. Of a longer prompt it is shown the end; a text that outgrows the
context goes on from its last half (`samplers/tokens.py`).
"""

import functools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from gen_jax import build, hosts, preemption
from gen_jax.errors import InputError, in_section
from gen_jax.run import Run, modality
from gen_jax.samplers import tokens as samplers
from gen_jax.samplers.beam_search import beam_search
from gen_jax.state import TrainState, sampling_params
from gen_jax.types import Array, Key

_PIECE = 8  # tokens between two looks at what has been drawn
_ROUNDED = 32  # lengths are rounded to multiples of this, so that few programs are compiled


def prompts_of(config, run: Run, prompt: str | None, prompt_file: str | None) -> list[np.ndarray]:
    """The tokens of the prompts that the flags give, int32 `[P]` each, at least one.

    A file that ends in .jsonl holds one prompt in each line, an object with "text"; any other is
    one prompt. An empty prompt is the beginning of a document.

    Raises:
      InputError: a method or data that no text goes into, a file that cannot be read, or what this
        model's tokenizer does not know.
    """
    if prompt is not None and prompt_file is not None:
        raise InputError('--prompt, --prompt_file: give one of the two')
    if run.method.predictor is None or run.spec.tokenizer is None:
        raise InputError('--prompt: only a model of text, token after token, goes on from one')
    field = '--prompt' if prompt_file is None else f'--prompt_file: {prompt_file}'
    texts = [prompt] if prompt_file is None else _read(Path(prompt_file).expanduser())
    found = [modality(config).encode(text, run.spec, field) for text in texts]
    start = np.array([run.spec.start_token], np.int32)
    return [tokens if len(tokens) else start for tokens in found]


def _read(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding='utf-8')
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f'--prompt_file: cannot read {path} as text ({error})') from None
    if path.suffix != '.jsonl':
        return [text]
    prompts = []
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            prompts.append(json.loads(line)['text'])
        except (ValueError, TypeError, KeyError):
            prompts.append(None)
        if not isinstance(prompts[-1], str):
            raise InputError(
                f'--prompt_file: line {number} of {path} is not an object like {{"text": "..."}}'
            )
    if not prompts:
        raise InputError(f'--prompt_file: {path} holds no line')
    return prompts


def make_completer(
    run: Run, prompts: Sequence[np.ndarray], max_tokens: int | None, options: dict
) -> Callable[[TrainState, Key], Iterator[list[np.ndarray]]]:
    """A function `(state, key)` that yields the sequences so far, again and again until all have
    ended: each begins with its prompt, and ends before the token that ends a document.

    Args:
      run: whose method draws.
      prompts: tokens, at least one in each.
      max_tokens: to be drawn after each prompt; None for the context of the model.
      options: `sample.options` of the config.

    Raises:
      InputError: options out of range; found now.
    """
    context, end = run.spec.shape[0], run.spec.start_token
    max_tokens = context if max_tokens is None else max_tokens
    if max_tokens < 1:
        raise InputError(f'--max_tokens: {max_tokens} must be at least 1')
    options = {'num_beams': None} | options
    num_beams = options.pop('num_beams')
    build.check_keywords(samplers.Rules, options, 'sample.options', hidden=('stop',))
    rules = samplers.Rules(**options, stop=(end,))
    with in_section('sample.options'):
        samplers.check(rules)
    shown = [tokens[-context:] for tokens in prompts]
    for long in {len(tokens) for tokens in prompts if len(tokens) > context}:
        print(f'of a prompt of {long} tokens the model sees the last {context}', file=sys.stderr)
    lengths = np.array([len(tokens) for tokens in shown])
    tokens, known = _lay_out(shown, int(lengths.max()) + max_tokens, end, context)
    prefix = max(1, int(lengths.min()) // _ROUNDED * _ROUNDED)
    draw = _by_pieces if num_beams is None else functools.partial(_by_beams, num_beams=num_beams)
    positions = range(int(lengths.min()), int(lengths.max()) + max_tokens)

    def complete(state: TrainState, key: Key) -> Iterator[list[np.ndarray]]:
        given = (run, sampling_params(state), tokens, known, prefix, rules)
        for drawn, position in draw(*given, key, positions):
            rows = []
            for row, prompt, length in zip(drawn, prompts, lengths, strict=True):
                new = row[length : max(min(length + max_tokens, position + 1), length)]
                ends = np.flatnonzero(new == end)
                rows.append(np.concatenate([prompt, new[: ends[0]] if len(ends) else new]))
            yield rows

    return complete


def _by_pieces(run, params, tokens, known, prefix, rules, key, positions):
    """Yields the tokens of all sequences `[B, N]`, and the position up to which they are drawn."""

    @run.parallel.jit
    def begin(params, tokens, known):
        return samplers.begin(run.method.predictor(params), tokens, known, rules, prefix=prefix)

    @functools.partial(run.parallel.jit, donate_argnums=1)
    def advance(params, sequences, key, until):
        return samplers.advance(run.method.predictor(params), sequences, key, until, rules)

    sequences = begin(params, tokens, known)
    for until in (*positions[::_PIECE], positions[-1]):
        sequences = advance(params, sequences, key, jnp.int32(until))
        drawn, done = hosts.to_host((sequences.tokens, sequences.done))
        yield drawn, until
        preemption.check()
        if done.all():
            return


def _by_beams(run, params, tokens, known, prefix, rules, key, positions, num_beams):
    """The same, all at once."""

    @run.parallel.jit
    def search(params, tokens, known):
        predictor, options = run.method.predictor(params), {'stop': rules.stop, 'prefix': prefix}
        return beam_search(predictor, tokens, known, num_beams=num_beams, **options)

    with in_section('sample.options'):
        yield hosts.to_host(search(params, tokens, known)), positions[-1]


def _lay_out(
    prompts: Sequence[np.ndarray], length: int, filling: int, context: int
) -> tuple[Array, Array]:
    """Prompts as tokens `[B, N]`, N at least `length`, and which of them are known."""
    rounded = -(-length // _ROUNDED) * _ROUNDED
    if length <= context + 1:  # what fits shall not outgrow the context by rounding
        rounded = min(rounded, context + 1)
    tokens = np.full((len(prompts), rounded), filling, np.int32)
    known = np.zeros(tokens.shape, bool)
    for row, prompt in enumerate(prompts):
        tokens[row, : len(prompt)], known[row, : len(prompt)] = prompt, True
    return jnp.asarray(tokens), jnp.asarray(known)


def show(parts: Iterator[list[np.ndarray]], decode: Callable) -> np.ndarray:
    """Prints a text to stdout as it grows, where there is one, or all of them at the end, each
    under a line with its number. Returns the texts, str `[B]`."""
    shown, texts = '', []
    for rows in parts:
        texts = [decode(row[None])[0] for row in rows]
        if len(texts) == 1 and hosts.is_first():
            whole = texts[0].rstrip('\ufffd')  # the first bytes of a character that is to come
            print(whole[len(shown) :], end='', flush=True)
            shown = whole
    if len(texts) == 1 and hosts.is_first():
        print(texts[0][len(shown) :], flush=True)
    elif hosts.is_first():
        for number, text in enumerate(texts, start=1):
            print(f'======== {number} of {len(texts)} ========\n{text}\n', flush=True)
    return np.array(texts, str)
