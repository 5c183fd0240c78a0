"""What is due beside the steps of training: evaluations, previews, snapshots, checkpoints.

A step's chores are done after its update, in this order, and its checkpoint comes last: it vouches
for everything up to its step. Only a run that was asked to end saves before they are done; it does
them when it goes on, so nothing is left out and nothing is done twice.
"""

import functools
import time
from collections.abc import Callable, Collection
from pathlib import Path

from gen_jax import hosts, parallel
from gen_jax.checkpoint import Checkpoints
from gen_jax.data.dataset import Dataset
from gen_jax.errors import InputError
from gen_jax.evaluate import make_evaluation, scores_of, summarize
from gen_jax.files import PARTIAL
from gen_jax.run import Run
from gen_jax.sample import make_preview
from gen_jax.scores import names_of
from gen_jax.scoring import make_scores
from gen_jax.selection import best_step, better
from gen_jax.state import TrainState
from gen_jax.writers import Report, read_rows


class Chores:
    """The chores of one run; `do` after every step, or again after the last one that was restored.

    Raises:
      InputError: a chore that cannot be done, found before the first step.
    """

    def __init__(self, run: Run, config, workdir: Path):
        self._every, self._workdir = config.train, workdir
        self._parallel = run.parallel
        self._snapshot_every = config.ema.snapshot_every
        self._cadences = (
            *(
                self._every[f'{what}_every']
                for what in ('evaluate', 'score', 'sample', 'checkpoint')
            ),
            self._snapshot_every,
            None if self._every.checkpoint_minutes is None else self._every.log_every,
        )
        self._evaluate = _make_evaluations(run, config)
        self._estimators = run.method.estimators
        self._preview = None
        if self._every.sample_every is not None:
            self._preview = make_preview(run, config, workdir)

    def begin(
        self, first: int, dataset: Dataset, checkpoints: Checkpoints, snapshots: Checkpoints | None
    ) -> None:
        """Takes up the run after step `first`; `snapshots` is None where none are kept."""
        self._dataset, self._checkpoints, self._snapshots = dataset, checkpoints, snapshots
        self._first = first
        rows = read_rows(self._workdir / 'metrics.jsonl')
        self._rows = [row for row in rows if row['step'] <= first]
        checkpoints.keep_best(best_step(self._rows, self._every.best_by, checkpoints.steps()))
        if snapshots is not None:
            snapshots.drop_after(first)
        self._saved_at = time.monotonic()

    def is_due(self, step: int, every: int | None) -> bool:
        """Whether something of this cadence is due; the last step always is, None never."""
        return every is not None and (step == self._every.num_steps or step % every == 0)

    def do(self, step: int, state: TrainState, report: Report) -> None:
        """Does what is due after `step` and has not been done."""
        due, is_best = functools.partial(self.is_due, step), False
        if not any(map(due, self._cadences)):
            return
        state = parallel.as_global(self._parallel, state)
        if left := self._left_to_measure(step):
            with report.pause():
                row = report.evaluation(step, self._evaluate(left, state, self._dataset))
            self._rows.append(row)
            could_be = {*self._checkpoints.steps(), step}
            best = best_step(self._rows, self._every.best_by, could_be) == step
            is_best = hosts.of_first(best)  # each process computed the scores for itself
            if is_best:
                self._checkpoints.keep_best(step)
        if due(self._every.sample_every) and not self._is_drawn(step):
            with report.pause():
                self._preview(step, state)
        if due(self._snapshot_every) and step not in self._snapshots.steps():
            self._snapshots.save(step, state.power_ema)
        if due(self._every.checkpoint_every) or is_best or self._is_late(step):
            self.save(step, state, report)

    def save(self, step: int, state: TrainState, report: Report) -> None:
        """Saves a checkpoint of `step`, if there is none."""
        report.sync()  # a checkpoint vouches for the rows up to its step
        if step not in self._checkpoints.steps():
            self._checkpoints.save(step, parallel.as_global(self._parallel, state))
        self._saved_at = time.monotonic()

    def _left_to_measure(self, step: int) -> list[str]:
        """Of 'evaluate' and 'score', what is due and in no row of this step."""
        due = [
            what
            for what in ('evaluate', 'score')
            if self.is_due(step, self._every[f'{what}_every'])
        ]
        done = {
            'evaluate' if name.removeprefix('eval/') in self._estimators else 'score'
            for row in self._rows
            if row['step'] == step
            for name in row
            if name.startswith('eval/')
        }
        return [what for what in due if hosts.of_first(what not in done)]

    def _is_drawn(self, step: int) -> bool:
        if step != self._first:
            return False  # a file of a later step is of a run that was killed, and made again
        files = (self._workdir / 'samples').glob(f'step_{step:08}.*')
        return hosts.of_first(any(file.suffix != PARTIAL for file in files))

    def _is_late(self, step: int) -> bool:
        """Whether the last checkpoint is too old. Looked at where rows are written, for processes
        have to agree on it, and that takes a message."""
        minutes = self._every.checkpoint_minutes
        if minutes is None or not self.is_due(step, self._every.log_every):
            return False
        return hosts.of_first(time.monotonic() - self._saved_at > 60 * minutes)


def _make_evaluations(run: Run, config) -> Callable[..., dict[str, dict]]:
    """A function `(left, state, dataset) -> {name: {value, ...}}` for the loop; `left` is what of
    'evaluate' and 'score' is left to measure.

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
    names = [name for name in names if better(name) != 'nowhere']
    if every.best_by not in (None, *names):
        raise InputError(
            f'train.best_by: {every.best_by!r} is not measured in training; use None, or one of: '
            f'{", ".join(names) or "nothing is measured"}'
        )

    def evaluate(left: Collection[str], state: TrainState, dataset: Dataset) -> dict:
        results = {}
        if 'evaluate' in left:
            columns = measure(state, dataset.evaluation)
            results |= summarize(columns, run.method.estimators)
        if 'score' in left:
            scored = score(state, dataset)
            results |= {} if scored is None else scored.records
        return results

    return evaluate
