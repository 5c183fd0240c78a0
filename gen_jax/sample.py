"""`--mode=sample`: draws from a trained model, as arrays and as something to look at."""

import functools
import hashlib
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from gen_jax import build, hosts, keys, preemption
from gen_jax import workdir as workdirs
from gen_jax.completion import make_completer, print_texts, prompts_of, show
from gen_jax.editing import NUM_SEEN, make_editor
from gen_jax.errors import InputError, in_section
from gen_jax.exploring import make_explorer
from gen_jax.files import replacing
from gen_jax.given import HELD_OUT, examples_of, given_of
from gen_jax.run import Run, assemble, labels_for, modality
from gen_jax.state import TrainState, sampling_params
from gen_jax.trained import trained
from gen_jax.types import Key
from gen_jax.writers import Display


def sample(
    config,
    workdir: Path,
    *,
    num: int | None = None,
    seed: int | None = None,
    out: str | None = None,
    label: int | None = None,
    steps: int | None = None,
    prompt: str | None = None,
    prompt_file: str | None = None,
    max_tokens: int | None = None,
    given: str | None = None,
    keep: str | None = None,
    edit: str | None = None,
    checkpoint: str = 'latest',
    ema_length: float | None = None,
) -> list[Path]:
    """Draws from the averaged weights of a checkpoint of `workdir`.

    Args:
      config: the run's config; `sample.options` go to the method.
      workdir: the run's folder.
      num: how many; None for `sample.num`, or for one of each prompt.
      seed: of the draw; None for 0.
      out: a file, `.npz` (array `x`, and `label` where there is one) or the artifact's own kind
        (`.png` for images); None writes both under the workdir's `samples/`.
      label: the class of all samples, for a class-conditional model; None takes them in turn.
      steps: overrides `sample.options.num_steps`; of a projection, how many its descent has.
      prompt, prompt_file: what a text begins with; see `completion.py`. A single text is printed as
        it is drawn.
      max_tokens: to draw after a prompt; None for as many as the context has, or a search has room.
      given, keep: examples that are completed, and what is kept of them; see `given.py`.
      edit: a picture of latents in the place of samples: of `given`, or of held-out examples, where
        the method has an encoder, see `editing.py`; else of drawn ones, see `exploring.py`.
      checkpoint: 'latest', 'best' or a step.
      ema_length: of the average of the weights; see `trained.py`.

    Returns:
      The files that this process wrote: of several the first does.

    Raises:
      InputError: bad config or flags, or no readable checkpoint.
    """
    has_prompt = prompt is not None or prompt_file is not None
    _check_flags(num, label, max_tokens, given, keep, edit, has_prompt)
    if num is None:
        num = 1 if has_prompt else config.sample.num
    seed = 0 if seed is None else seed
    if out is None:
        workdirs.check(workdir, config)
    else:
        workdirs.check_config(workdir, config)
    run = assemble(config, spec=workdirs.saved_spec(workdir))
    data = modality(config)
    of_descent = steps if edit == 'project' else None
    told = (prompt, prompt_file, max_tokens, given, keep)
    words = [str(flag) for flag in told if flag is not None]
    options = _options(config, None if edit == 'project' else steps)
    if has_prompt:
        words.append(json.dumps(options))
    flags = {'label': label, 'length': ema_length, 'steps': steps}
    flags['checkpoint'] = None if checkpoint == 'latest' else checkpoint
    which = _which(edit, num, seed, flags, words)
    stem, suffixes = _destination(out, workdir, which, data.SUFFIXES, has_prompt)
    key, decode = keys.stream(seed, 'sample'), functools.partial(data.decode, spec=run.spec)
    restore = functools.partial(_restore, run, config, workdir, checkpoint, ema_length)
    if has_prompt:
        if num > 1 and options.get('num_beams') is not None:
            raise InputError(f'--num: {num}; a search for beams finds the same each time; use 1')
        prompts = num * prompts_of(config, run, prompt, prompt_file)
        size = config.sample.batch_size
        complete = make_completer(run, prompts, max_tokens, size, options)
        arrays = {'x': show(complete(restore(), key), decode, len(prompts))}
    elif edit is not None:
        change = _make_edit(config, run, workdir, edit, num, key, label, given, of_descent)
        arrays = {'x': decode(change(restore()))}
    else:
        if given is None:
            labels, parts = labels_for(run, num, label), None
        else:
            *parts, labels = given_of(config, run, workdir, given, keep, num, label)
        draw = make_sampler(run, min(config.sample.batch_size, num), options)
        x = decode(draw(restore(), key, num, labels, parts, show_progress=True))
        if x.dtype.kind == 'U' and hosts.is_first():
            print_texts(x)
        arrays = {'x': x} if labels is None else {'x': x, 'label': labels}
    if not hosts.is_first():
        return []
    written = [_write(stem, suffix, arrays, data) for suffix in suffixes]
    for path in written:
        print(path)
    return written


def _options(config, steps: int | None) -> dict:
    """`sample.options`, with this number of steps where one is given."""
    options = config.sample.options.to_dict()
    if steps is not None and 'num_steps' not in options:
        raise InputError(f'--steps: {steps}; this method draws in no number of steps')
    return options if steps is None else options | {'num_steps': steps}


def _make_edit(
    config,
    run: Run,
    workdir: Path,
    edit: str,
    num: int,
    key: Key,
    label: int | None,
    given: str | None,
    steps: int | None,
) -> Callable[[TrainState], np.ndarray]:
    """A function of the state that makes a picture of latents, its examples read already."""
    size = config.sample.batch_size
    if run.method.latents is None:
        change = make_editor(run, edit, num, size)
        examples = examples_of(config, run, workdir, given or HELD_OUT, max(num, NUM_SEEN), label)
        return lambda state: change(state, examples)
    explore, examples = make_explorer(run, edit, num, size, label, steps), None
    if edit == 'project':
        examples = examples_of(config, run, workdir, given or HELD_OUT, num, label)
    elif given is not None:
        raise InputError(
            f'--given: {edit!r} is of latents that are drawn; only --edit=project takes examples'
        )
    return lambda state: explore(state, key, examples)


def _restore(run: Run, config, workdir: Path, checkpoint: str, length: float | None) -> TrainState:
    """The state to draw with, after a line that says which it is."""
    made = trained(run, config, workdir, checkpoint, length)
    if hosts.is_first():
        print(f'step {int(made.state.step)}, average: {made.average}', file=sys.stderr)
    return made.state


def _check_flags(num, label, max_tokens, given, keep, edit, has_prompt: bool) -> None:
    """Raises InputError for flags of `sample` that do not go together."""
    if num is not None and num < 1:
        raise InputError(f'--num: {num} must be at least 1')
    if max_tokens is not None and not has_prompt:
        raise InputError('--max_tokens: it goes with --prompt or --prompt_file')
    if keep is not None and given is None:
        raise InputError('--keep: it goes with --given, which says of what')
    if has_prompt and (given is not None or label is not None or edit is not None):
        raise InputError('--prompt: neither --given, --label nor --edit goes with it')
    if edit is not None and keep is not None:
        raise InputError('--keep: --edit changes whole examples; give one of the two')


def make_sampler(run: Run, batch_size: int, options: dict) -> Callable[..., np.ndarray]:
    """A function `(state, key, num, labels, given) -> x`, `[num, ...]`, compiled once for
    `batch_size`; `given` is examples and which parts of them are known.

    It gives up, and returns None, where the pace of its batches after the first, which compiles,
    says that all of them will take more than `limit` seconds.

    The samples depend on the key and `batch_size`, and not on the number of devices: where the
    batch does not divide by it, rows are added to each and cut off again.

    Raises:
      InputError: options that the method refuses; found now, not after hours of training.
    """
    if run.method.sample is None:
        reason = 'it is no generative model'
        if run.method.codec is not None:
            reason = (
                'it makes codes, and knows nothing of which are likely; train a model of them, '
                "method 'latent.latent', as a second stage"
            )
        raise InputError(f'method.name: this method draws no samples; {reason}')
    given = ('params', 'model_state', 'key', 'num', 'cond', 'given')
    build.check_keywords(run.method.sample, options, 'sample.options', hidden=given)
    rows = -(-batch_size // run.parallel.batch_devices) * run.parallel.batch_devices
    draw = run.parallel.jit(
        functools.partial(run.method.sample, num=rows, **options),
        out_shardings=run.parallel.batch_sharding,  # each device draws its part
    )
    cond = None
    if run.method.num_classes is not None:
        cond = jax.ShapeDtypeStruct((rows,), jnp.int32)
    state = run.template
    with in_section('sample.options'):
        jax.eval_shape(draw, sampling_params(state), state.model_state, state.key, cond=cond)

    def sampler(
        state: TrainState,
        key: Key,
        num: int,
        labels: np.ndarray | None = None,
        given: Sequence[np.ndarray] | None = None,
        show_progress: bool = False,
        limit: float | None = None,
    ) -> np.ndarray | None:
        params, parts = sampling_params(state), []
        num_batches, started = -(-num // batch_size), None
        with Display(num_batches, hidden=not (show_progress and hosts.is_first())) as display:
            for number in range(num_batches):
                these = (number * batch_size + np.arange(rows)) % num
                told = {'cond': None if labels is None else jnp.asarray(labels[these])}
                if given is not None:
                    told['given'] = tuple(jnp.asarray(of_all[these]) for of_all in given)
                batch_key = jax.random.fold_in(key, number)
                x = hosts.to_host(draw(params, state.model_state, batch_key, **told))
                parts.append(x[:batch_size])
                display.report(number + 1, {})
                preemption.check()
                now = time.perf_counter()
                started = now if number == 0 else started
                pace = (now - started) / max(number, 1)
                if limit is None or number + 1 == num_batches:
                    continue
                if hosts.of_first(pace * num_batches > limit):
                    return None
        return np.concatenate(parts)[:num]

    return sampler


def make_preview(run: Run, config, workdir: Path) -> Callable[[int, TrainState], None]:
    """A function `(step, state)` that draws `sample.num` samples for people to look at, each time
    from the same noise, so that what changes from one picture to the next is the model.

    Raises:
      InputError: as `make_sampler`.
    """
    num = config.sample.num
    draw = make_sampler(run, min(config.sample.batch_size, num), config.sample.options.to_dict())
    labels, data = labels_for(run, num), modality(config)
    key = keys.stream(config.seed, 'preview')

    def preview(step: int, state: TrainState) -> None:
        x = draw(state, key, num, labels)
        if hosts.is_first():
            data.write(data.decode(x, run.spec), workdir / 'samples' / f'step_{step:08}')

    return preview


def _which(
    edit: str | None, num: int, seed: int, flags: Mapping[str, object], words: list[str]
) -> str:
    """What samples are called: by these flags, which are None where they were not given, and by
    `words`, all that they were told besides."""
    name = f'{"" if edit is None else f"{edit}_"}num{num}_seed{seed}'
    name += ''.join(f'_{flag}{value}' for flag, value in flags.items() if value is not None)
    told = hashlib.sha256('\n'.join(words).encode()).hexdigest()[:8]
    return f'{name}_given{told}' if words else name


def _destination(
    out: str | None, workdir: Path, which: str, kinds: tuple[str, ...], prompted: bool
) -> tuple[Path, tuple[str, ...]]:
    """The file name without its suffix, and the suffixes to write."""
    if out is None:
        return workdir / 'samples' / which, kinds if prompted else (*kinds, '.npz')
    path = workdirs.check_out(out, ('.npz', *kinds))
    return path.with_suffix(''), (path.suffix,)


def _write(stem: Path, suffix: str, arrays: dict[str, np.ndarray], data) -> Path:
    stem.parent.mkdir(exist_ok=True)
    if suffix != '.npz':
        return data.write(arrays['x'], stem, suffix)
    path = stem.with_name(stem.name + suffix)
    with replacing(path) as file:
        np.savez_compressed(file, **arrays)
    return path
