"""`--mode=together`: trials of a sweep in one program, of other seeds or other numbers.

    (1) after_k, metrics_k = step(before_k, batch_k; h_k),   k = 1..K, as one vmapped step

Each run has its own workdir, data order, checkpoints and metrics, as though it was trained alone,
and equals that run within float error; it goes on from its own newest checkpoint. What a small
model leaves idle of a device does the others' work, and the program is compiled once.
"""

import contextlib
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp

from gen_jax import preemption
from gen_jax.errors import Ended, InputError, Preempted
from gen_jax.evaluate import evaluate
from gen_jax.run import Run, abstract_batch, load_data, players, step_of
from gen_jax.state import TrainState
from gen_jax.sweeps.configs import config_of
from gen_jax.sweeps.runner import is_over, mark_done, mark_failed, read_trials
from gen_jax.train import prepare, training
from gen_jax.types import Array, Batch
from gen_jax.varied import Varied, varied


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
    left = [trial for trial in asked if not is_over(trial, folder)]
    configs = [config_of(trial) for trial in left]
    ends = train_together(configs, [folder / trial.name for trial in left]) if left else []
    for trial, config, end in zip(left, configs, ends, strict=True):
        if end is not None:
            mark_failed(trial, folder, end.status, [f'error: {end}'])
        else:
            evaluate(config, folder / trial.name)
            mark_done(trial, folder, time.monotonic() - begun)


def train_together(configs: Sequence, workdirs: Sequence[Path]) -> list[Ended | None]:
    """Trains all of these runs to their ends.

    Returns:
      For each run None, or what ended it early: `Diverged` or `Collapsed`. The others went on.

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
    jax.eval_shape(step, (first.template,) * len(runs), (batch,) * len(runs))
    dataset = load_data(configs[0])
    ends: list[Ended | None] = [None] * len(runs)
    with preemption.watched(), contextlib.ExitStack() as opened:
        steps = [training(run, dataset, hidden=i > 0) for i, run in enumerate(runs)]
        for each in steps:
            opened.enter_context(contextlib.closing(each))
        before = {}
        for i in range(len(runs)):
            _take_up(i, steps, before, ends, None)
        compiled_for, advance = None, None
        while before:
            members = tuple(before)
            if members != compiled_for:
                compiled_for, live = members, [configs[i] for i in members]
                advance = compile_together(live, runs[members[0]].run, varied(live))
            after = advance(*zip(*(before[i] for i in members), strict=True))
            for i, result in zip(members, after, strict=True):
                _take_up(i, steps, before, ends, result)
    asked = next((end for end in ends if isinstance(end, Preempted)), None)
    if asked is not None:
        raise asked
    return ends


def _take_up(i: int, steps: Sequence, before: dict, ends: list, result) -> None:
    """Gives run i its result: `before` has what its next step begins with, `ends` its end."""
    before.pop(i, None)
    try:
        before[i] = steps[i].send(result)
    except StopIteration:
        pass
    except InputError:
        raise
    except Ended as end:
        ends[i] = end


def compile_together(configs: Sequence, run: Run, values: Mapping[str, Sequence]) -> Callable:
    """Equation (1) for these configs: `(states, batches) -> [(state, metrics), ...]`.

    `run` is that of any of them; `values` are what `varied` found. The states are donated.
    """
    arrays = {field: jnp.asarray(numbers, jnp.float32) for field, numbers in values.items()}

    def one(state: TrainState, batch: Batch, numbers: Mapping[str, Array]):
        config = configs[0].copy_and_resolve_references().unlock()
        for field, number in numbers.items():
            _set(config, field, Varied(number, values[field], field))
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


def _set(config, field: str, value: Varied) -> None:
    *sections, name = field.split('.')
    for section in sections:
        config = config[section]
    with config.ignore_type():
        config[name] = value
