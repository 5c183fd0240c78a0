"""`--mode=train`: the loop, for every method.

    Setup · Data · State · Compile · Loop · Finish

Any run may be killed at any instant. What counts is on disk: a checkpoint is the whole state, its
step is the position in the data, and what was written after it is dropped and written again.
"""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import jax

from gen_jax import parallel
from gen_jax import workdir as workdirs
from gen_jax.checkpoint import Checkpoints
from gen_jax.data.dataset import Arrays, Dataset, training_batches
from gen_jax.errors import InputError
from gen_jax.evaluate import make_evaluation, scores_of, summarize
from gen_jax.run import Run, assemble, compile_step, initialize, load_data
from gen_jax.sample import make_preview
from gen_jax.scores import names_of
from gen_jax.scoring import make_scores
from gen_jax.selection import best_step
from gen_jax.state import TrainState, count_parameters
from gen_jax.writers import Display, Report, read_rows


def train(config, workdir: Path) -> TrainState:
    """Trains to `train.num_steps`, from the newest checkpoint in `workdir` if there is one.

    Returns:
      The final state, which is also the last checkpoint.

    Raises:
      InputError: bad config, missing data, or a folder that is not this run's to work in.
    """
    # Setup: everything that can be wrong is found before anything is written.
    workdirs.check(workdir, config)
    run = assemble(config)
    every = config.train
    parallel.check_batch_size(run.parallel, config.data.batch_size, 'data.batch_size')
    preview = None if every.sample_every is None else make_preview(run, config, workdir)
    evaluate = _make_evaluations(run, config)

    # Data
    dataset = load_data(config)
    parameters = {player: count_parameters(tree) for player, tree in run.template.params.items()}

    with (
        workdirs.opened(workdir, config, dataset.fingerprint, {'parameters': parameters}),
        Checkpoints(workdir, every.keep_checkpoints) as checkpoints,
    ):
        # State
        state = checkpoints.restore(run.template)
        if state is None:
            state = initialize(run, config.seed)
        first = int(state.step)
        batches = _batches(dataset, config, first)
        rows = [row for row in read_rows(workdir / 'metrics.jsonl') if row['step'] <= first]
        checkpoints.keep_best(best_step(rows, every.best_by, checkpoints.steps()))

        # Compile: happens at the first call.
        advance = compile_step(run, config)

        # Loop
        with (
            Display(every.num_steps, first) as display,
            Report(
                workdir, display, first, config.data.batch_size, is_writer=jax.process_index() == 0
            ) as report,
        ):
            report.say(_greeting(first, every.num_steps, parameters))
            for step in range(first + 1, every.num_steps + 1):
                batch = parallel.place_for_step(run.parallel, next(batches))
                state, metrics = advance(state, batch)
                report.flush()  # the row of the step before, while this one computes
                due = functools.partial(_due, step, last=step == every.num_steps)
                if due(every.log_every) or step == 1:
                    report.hold(step, metrics)
                is_best = False
                if due(every.evaluate_every) or due(every.score_every):
                    with report.pause():
                        rows.append(report.evaluation(step, evaluate(due, state, dataset)))
                    could_be = {*checkpoints.steps(), step}
                    is_best = best_step(rows, every.best_by, could_be) == step
                    if is_best:
                        checkpoints.keep_best(step)
                if due(every.sample_every):
                    with report.pause():
                        preview(step, state)
                if due(every.checkpoint_every) or is_best:
                    report.flush()  # a checkpoint vouches for the rows up to its step
                    checkpoints.save(step, state)

        # Finish: the blocks write the last row and wait for the last checkpoint.
        batches.close()
    return state


def _make_evaluations(run: Run, config) -> Callable[..., dict[str, dict]]:
    """A function `(due, state, dataset) -> {name: {value, ...}}` for the loop.

    Raises:
      InputError: as `make_evaluation` and `make_scores`, or a `train.best_by` that is not measured.
    """
    every = config.train
    # What --mode=evaluate will do, hours from now.
    make_evaluation(run, config, config.evaluate.options.to_dict())
    scores_of(run, config)

    measure, score = make_evaluation(run, config), None
    if every.score_every is not None:
        score = make_scores(
            run,
            config,
            metrics=every.score_metrics,
            num=every.score_num,
            limit=every.score_seconds,
            in_training=True,
        )
    names = [] if every.evaluate_every is None else list(run.method.estimators)
    names += [] if score is None else names_of(every.score_metrics)
    if every.best_by not in (None, *names):
        raise InputError(
            f'train.best_by: {every.best_by!r} is not measured in training; use None, or one of: '
            f'{", ".join(names) or "nothing is measured"}'
        )

    def evaluate(due: Callable, state: TrainState, dataset: Dataset) -> dict:
        results = {}
        if due(every.evaluate_every):
            columns = measure(state, dataset.evaluation)
            results |= summarize(columns, run.method.estimators)
        if due(every.score_every):
            scored = score(state, dataset)
            results |= {} if scored is None else scored.records
        return results

    return evaluate


def _batches(dataset: Dataset, config, first: int) -> Iterator[Arrays]:
    """This process's rows of the batches of steps first + 1, first + 2, ..."""
    return training_batches(
        dataset.train,
        batch_size=config.data.batch_size,
        seed=config.seed,
        start_step=first,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )


def _due(step: int, every: int | None, last: bool) -> bool:
    """Whether something of this cadence is due; it always is at the last step, None is never."""
    return every is not None and (last or step % every == 0)


def _greeting(first: int, num_steps: int, parameters: dict[str, int]) -> str:
    sizes = ', '.join(f'{player} {number:,}' for player, number in parameters.items())
    text = f'parameters: {sizes}; devices: {jax.device_count()}'
    if first >= num_steps:
        return f'{text}; step {first} is already done: raise train.num_steps to train on'
    return f'{text}; resumed at step {first}' if first else text
