"""`--mode=together`: trials of a sweep in one program, of other seeds or other numbers.

    (1) after_k, metrics_k = step(before_k, batch_k; h_k),   k = 1..K, as one vmapped step

Each run has its own workdir, data order, checkpoints and metrics, as though it was trained alone,
and equals that run within float error; it goes on from its own newest checkpoint. What a small
model leaves idle of a device does the others' work, and the program is compiled once.
"""

import contextlib
import functools
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp

from gen_jax import preemption
from gen_jax.errors import Ended, InputError, Preempted
from gen_jax.evaluate import evaluate
from gen_jax.fields import section_of
from gen_jax.run import Run, abstract_batch, load_data, players, step_of
from gen_jax.state import TrainState
from gen_jax.sweeps.configs import config_of, varied
from gen_jax.sweeps.runner import is_final, mark_done, mark_failed, read_trials
from gen_jax.train import prepare, training
from gen_jax.types import Array, Batch
from gen_jax.varied import Varied


def together(folder: Path, names: Sequence[str]) -> None:
    """Trains and evaluates these trials of the sweep in `folder`, and marks each as it ends.

    Raises:
      InputError: no such trial, a run that is wrong, or runs that are not one program.
      Preempted: a signal asked to end; the last step of each run is saved.
    """
    known = {trial.name: trial for trial in read_trials(folder)}
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise InputError(f'--trials: no {", ".join(unknown) or "names"} in {folder}')
    begun, asked = time.monotonic(), [known[name] for name in names]
    left = [trial for trial in asked if not is_final(trial, folder)]
    if not left:
        return
    configs = [config_of(trial) for trial in left]

    def ended(i: int, end: Ended) -> None:  # at once, for the others may be killed
        mark_failed(left[i], folder, end.status, [f'error: {end}'])

    ends = train_together(configs, [folder / trial.name for trial in left], ended)
    for trial, config, end in zip(left, configs, ends, strict=True):
        if end is None:
            try:
                evaluate(config, folder / trial.name)
            except Preempted:
                raise
            except Exception as error:  # this trial's own
                traceback.print_exception(error)
                status = error.status if isinstance(error, Ended) else 1
                mark_failed(trial, folder, status, [f'error: {error}'])
            else:
                mark_done(trial, folder, time.monotonic() - begun)


def train_together(
    configs: Sequence,
    workdirs: Sequence[Path],
    ended: Callable[[int, Ended], None] = lambda i, end: None,
) -> list[Ended | None]:
    """Trains all of these runs to their ends.

    Args:
      ended: is told at once of a run, by its place, that ended early.

    Returns:
      For each run None, or what ended it early, such as `Diverged`. The others went on.

    Raises:
      InputError: a run that is wrong, or runs that are not one program.
      Preempted: a signal asked to end; the last step of each run is saved.
    """
    varied(configs)  # or they are not one program
    runs = [prepare(*pair) for pair in zip(configs, workdirs, strict=True)]
    first, n = runs[0].run, configs[0].data.batch_size
    if first.parallel.strategy != 'jit':
        raise InputError("parallel.strategy: runs are trained together by 'jit' only")
    # Whether code decides by a number shows when it is traced.
    step, batch = compile_together(configs, first, varied(configs)), abstract_batch(first.spec, n)
    jax.eval_shape(step, (first.template,) * len(configs), (batch,) * len(configs))
    dataset = load_data(configs[0])
    ends: list[Ended | None] = [None] * len(runs)
    with preemption.watched(), contextlib.ExitStack() as opened:
        steps = [training(run, dataset, hidden=i > 0) for i, run in enumerate(runs)]
        del runs  # with weights that were given
        for each in steps:
            opened.enter_context(contextlib.closing(each))
        before, compiled_for, advance = {}, None, None
        for i, each in enumerate(steps):
            _take_up(i, each.send, None, before, ends, ended)
        while before:
            if any(isinstance(end, Preempted) for end in ends):
                for i in [*before]:
                    _take_up(i, steps[i].throw, Preempted(), before, ends, ended)
                break
            members = tuple(before)
            if members != compiled_for:
                compiled_for, live = members, [configs[i] for i in members]
                advance = compile_together(live, first, varied(live))
            after = advance(*zip(*(before[i] for i in members), strict=True))
            for i, result in zip(members, after, strict=True):
                _take_up(i, steps[i].send, result, before, ends, ended)
    asked = next((end for end in ends if isinstance(end, Preempted)), None)
    if asked is not None:
        raise asked
    return ends


def _take_up(i: int, send: Callable, given, before: dict, ends: list, ended: Callable) -> None:
    """Gives run i its result: `before` has what its next step begins with, `ends` its end."""
    before.pop(i, None)
    try:
        before[i] = send(given)
    except StopIteration:
        pass
    except Ended as end:
        ends[i] = end
        if not isinstance(end, Preempted):
            ended(i, end)


def compile_together(configs: Sequence, run: Run, values: Mapping[str, Sequence]) -> Callable:
    """Equation (1) for these configs: `(states, batches) -> [(state, metrics), ...]`.

    `run` is that of any of them; `values` are what `varied` found. The states are donated.
    """
    arrays = {field: jnp.asarray(numbers, jnp.float32) for field, numbers in values.items()}

    def one(state: TrainState, batch: Batch, numbers: Mapping[str, Array]):
        config = configs[0].copy_and_resolve_references().unlock()
        for field, number in numbers.items():
            section, name = section_of(config, field)
            with section.ignore_type():
                section[name] = Varied(number, values[field], field)
        return step_of(config, *players(config, run.spec))(state, batch)

    def step(states, batches):
        stack = functools.partial(jax.tree.map, lambda *leaves: jnp.stack(leaves))
        after = jax.vmap(one)(stack(*states), stack(*batches), arrays)
        return [jax.tree.map(lambda leaf, k=k: leaf[k], after) for k in range(len(configs))]

    num, shardings = len(configs), jax.tree.map(lambda leaf: leaf.sharding, run.template)
    return run.parallel.jit(
        step,
        in_shardings=((shardings,) * num, (run.parallel.batch_sharding,) * num),
        out_shardings=[(shardings, run.parallel.replicated)] * num,
        donate_argnums=(0,),
    )
