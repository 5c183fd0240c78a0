"""`--mode=train`: the loop, for every method.

    Setup · Data · State · Compile · Loop · Finish

`prepare` is the setup, `training` the run between its steps, and `train` computes these.

Any run may be killed at any instant. What counts is on disk: a checkpoint is the whole state, its
step is the position in the data, and what was written after it is dropped and written again.
"""

import contextlib
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from gen_jax import divergence, hosts, parallel, preemption, restore, symptoms
from gen_jax import workdir as workdirs
from gen_jax.checkpoint import Checkpoints
from gen_jax.chores import Chores
from gen_jax.data.dataset import Dataset, batch_indices
from gen_jax.errors import Collapsed, Diverged, Preempted
from gen_jax.optim import steps_of_schedule
from gen_jax.run import Run, assemble, batches_after, compile_step, initialize, load_data
from gen_jax.state import TrainState, Weights, count_parameters
from gen_jax.types import Batch
from gen_jax.writers import Display, Report, read_rows


def train(config, workdir: Path) -> TrainState:
    """Trains to `train.num_steps`, from the newest checkpoint in `workdir` if there is one.

    Returns:
      The final state, which is also the last checkpoint.

    Raises:
      InputError: bad config, missing data, or a folder that is not this run's to work in.
      Preempted: a signal asked the run to end; its last step is saved.
      Diverged: `train.stop_after_skipped` steps in a row were not finite; see `divergence.py`.
      Collapsed: `train.stop_after_symptoms` rows in a row showed a symptom; see `symptoms.py`.
    """
    prepared = prepare(config, workdir)
    run, steps = prepared.run, training(prepared, load_data(config))
    del prepared  # with weights that were given, which `training` forgets once they are used
    with preemption.watched(), contextlib.closing(steps):  # around all that saves
        # Compile: happens at the first call.
        advance = compile_step(run, config)
        try:
            before = next(steps)
            while True:
                before = steps.send(advance(*before))
        except StopIteration as end:
            return end.value


class Prepared(NamedTuple):
    """A run whose config, folder and beginning have been checked."""

    config: ConfigDict
    workdir: Path
    run: Run
    chores: Chores
    given: Mapping[str, Weights]  # to begin with, by player,
    origins: Mapping[str, Mapping]  # and where they are from
    changed: list[str]  # fields that are others than at the last start


def prepare(config, workdir: Path) -> Prepared:
    """Setup: everything that can be wrong is found before anything is written."""
    workdirs.check_processes(config)
    run = assemble(config)
    workdirs.check_folder(workdir, config)
    changed = workdirs.changes(workdir, config)
    parts = config.train.accumulate
    parallel.check_batch_size(run.parallel, config.data.batch_size, 'data.batch_size', parts)
    chores = Chores(run, config, workdir)
    given, origins = restore.weights(run, config, workdir)
    return Prepared(config, workdir, run, chores, given, origins, changed)


def training(
    prepared: Prepared, dataset: Dataset, hidden: bool = False
) -> Generator[tuple[TrainState, Batch], tuple[TrainState, dict], TrainState]:
    """The run from its newest checkpoint to its end: yields the state and the batch of each step,
    takes the state and the metrics after it, and does the rest. Returns the final state.

    Whoever drives it decides how a step is computed, and of how many runs at a time. Signals are
    noted outside, by `preemption.watched()`; a `Preempted` that is thrown in saves, too. `hidden`:
    without a word.
    """
    config, workdir, run, chores, given, origins, changed = prepared
    every = config.train
    parameters = {player: count_parameters(tree) for player, tree in run.template.params.items()}
    facts = {'parameters': parameters, **({'begins_with': origins} if origins else {})}

    with (
        workdirs.opened(workdir, config, dataset.fingerprint, run.spec, facts),
        _snapshots(workdir, config) as snapshots,
        Checkpoints(
            workdir, every.keep_checkpoints, every.keep_every, after=snapshots
        ) as checkpoints,
    ):
        # State
        state = checkpoints.restore(run.template)
        if state is None:
            state = initialize(run, config.seed, given)
        given = prepared = None  # which would take their memory as long as the run lives
        step = first = int(state.step)
        chores.begin(first, dataset, checkpoints, snapshots)

        # Loop
        sentinel = divergence.Sentinel(every.stop_after_skipped)
        sentinel.follow(first, int(state.guard.in_a_row))
        before = [row for row in read_rows(workdir / 'metrics.jsonl') if row['step'] <= first]
        watch = symptoms.Watch(run.method.symptoms, every.stop_after_symptoms, before)
        hidden = hidden or not hosts.is_first()
        with (
            contextlib.closing(batches_after(first, dataset, config)) as batches,
            Display(every.num_steps, first, hidden) as display,
            Report(workdir, display, first, config.data.batch_size, hosts.is_first()) as report,
        ):
            for line in _greetings(first, config, parameters, origins, changed):
                report.say(line)
            try:
                for step in range(max(first, 1), every.num_steps + 1):
                    if step > first:
                        batch = parallel.place_for_step(run.parallel, next(batches))
                        state, metrics = yield state, batch
                        in_a_row = metrics.pop('skipped_in_a_row')
                        report.flush()  # the row of the step before, while this one computes
                        if chores.is_due(step, every.log_every) or step == 1:
                            report.hold(step, metrics)
                        sentinel.follow(step, in_a_row)
                        watch.follow(report.take())
                        preemption.check()
                    chores.do(step, state, report)
                sentinel.finish()
                report.flush()
                watch.follow(report.take())  # the last row
                watch.finish()
            except (Preempted, Collapsed, Diverged) as reason:
                step = int(state.step)  # thrown in, it comes before the step that is due
                chores.save(step, state, report)
                if isinstance(reason, Preempted):
                    raise Preempted(f'asked to end: step {step} is saved') from None
                if isinstance(reason, Collapsed):
                    raise Collapsed(f'{reason}; step {step} is saved') from None
                raise Diverged(_record(reason, state, dataset, config, workdir)) from None

        # Finish: the blocks write the last row and wait for the last checkpoint.
    return state


def _snapshots(workdir: Path, config) -> contextlib.AbstractContextManager:
    """Where the averages for other lengths go; None where the config keeps none."""
    if config.ema.snapshot_every is None:
        return contextlib.nullcontext()
    return Checkpoints(workdir, name='averages')


def _record(reason: Diverged, state: TrainState, dataset: Dataset, config, workdir: Path) -> str:
    """Writes down how to repeat the first skipped step; returns what to say."""
    first = int(state.guard.since)
    examples = batch_indices(dataset.train, config.data.batch_size, config.seed, first - 1)
    divergence.write_record(workdir, state, np.asarray(examples).tolist(), config.seed)
    return (
        f'{reason}; step {int(state.step)} is saved, with all that they would have changed as it '
        f'was before, and {workdir / divergence.FILE} says how they began: look at it with '
        '--mode=replay'
    )


def _origin(folder: str, step: int | None = None, num_steps: int | None = None) -> str:
    return f'in {folder}' if step is None else f'of step {step:,} of {num_steps:,} in {folder}'


def _greetings(
    first: int,
    config: ConfigDict,
    parameters: dict[str, int],
    origins: Mapping[str, Mapping],
    changed: list[str],
) -> Iterator[str]:
    """What a run says before its first step."""
    num_steps = config.train.num_steps
    yield _greeting(first, num_steps, parameters)
    if config.data.source == 'synthetic':
        yield "the data is made up (data.source is 'synthetic'): good for trying things out only"
    else:
        yield from _unfinished_schedules(config)
    for player, origin in origins.items():
        yield f'{player} begins with the weights {_origin(**origin)}'
    if changed and first:
        yield f'since the last start: {"; ".join(changed)}'


def _unfinished_schedules(config: ConfigDict) -> Iterator[str]:
    """A line for each player whose rate has not fallen to its end when training ends: of a run
    that was made shorter by `train.num_steps` alone, mostly."""
    num_steps = config.train.num_steps
    for player, section in config.optim.items():
        last = steps_of_schedule(**section)
        if last > num_steps:
            yield (
                f'the rate of {player} would reach its end at step {last:,} '
                f'(optim.{player}.decay_steps and what comes before), and training ends at '
                f'{num_steps:,}'
            )


def _greeting(first: int, num_steps: int, parameters: dict[str, int]) -> str:
    sizes = ', '.join(f'{player} {number:,}' for player, number in parameters.items())
    text = f'parameters: {sizes}; devices: {jax.device_count()}'
    if jax.process_count() > 1:
        text = f'{text} of {jax.process_count()} processes'
    if first >= num_steps:
        return f'{text}; step {first} is already done: raise train.num_steps to train on'
    return f'{text}; resumed at step {first}' if first else text
