"""`--mode=sweep`: trains and evaluates every trial of a study that is not done.

    python launch.py --mode=sweep --sweep=experiments/<study>/sweep.py --workers=2
    python launch.py --mode=sweep --sweep=experiments/<study>/sweep.py --sweep_index=3

Each trial is a process of its own, `--workers` of them at a time, each on its share of the
processors and on a GPU of its own where there are some. What is on disk decides what is left to
do (`sweeps/runner.py`), so a sweep may be killed, moved and started again, on one machine or, by
index, as an array of jobs that see the same folder.
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax

from gen_jax.errors import CheckFailed, InputError
from gen_jax.run import Run, check_values
from gen_jax.scores import names_of
from gen_jax.sweeps.configs import config_of, distinct, load_study, program_of
from gen_jax.sweeps.pool import run_all
from gen_jax.sweeps.runner import (
    Outcome,
    Task,
    add_trials,
    check_done,
    check_ended,
    failure,
    group_of,
    is_final,
    outcome_of,
    task_of,
    write_trials,
)
from gen_jax.sweeps.study import Study, Trial, describe, trials
from gen_jax.train import prepare
from gen_jax.workdir import check_config, lock


def sweep(
    file: Path,
    folder: Path,
    *,
    workers: int = 1,
    index: int | None = None,
    retries: int = 1,
    together: int = 1,
    slurm: Sequence[str] | None = None,
) -> list[Outcome]:
    """Runs what is missing of the study in `file`; runs lie in `folder`.

    Args:
      workers: how many trials run at a time.
      index: of the one trial to run, or with `together` of the group; None: all.
      retries: how often a trial's process is started again that crashed or was killed.
      together: how many trials at most one process trains, in one program; see `together.py`.
      slurm: options of submitit, where trials are to be jobs of Slurm; None: they run here.

    Returns:
      How each trial ended, in their order, if only before this start; with `slurm` nothing, for
      jobs are only handed in.

    Raises:
      InputError: a study that is wrong, before anything runs, or an index that it does not have.
      Preempted: a signal asked to end; what runs has saved.
      CheckFailed: all is done but for trials that failed.
    """
    jax.config.update('jax_platforms', 'cpu')  # the accelerators are for the trials
    numbers = {'workers': (workers, 1), 'retries': (retries, 0), 'together': (together, 1)}
    for name, (value, least) in numbers.items():
        if value < least:
            raise InputError(f'--{name}: {value} must be {least} or more')
    study = load_study(file)
    if study.search is not None:
        if slurm is not None or index is not None or together > 1:
            raise InputError(
                '--slurm, --sweep_index, --together: a search chooses one point after the other'
            )
        asked, outcomes = _search(study, folder, workers, retries)
    else:
        if workers > 1 and (slurm is not None or index is not None):
            raise InputError('--workers: --slurm and --sweep_index run one trial a job')
        if slurm is not None and index is not None:
            raise InputError('--sweep_index: --slurm hands in all that is missing; leave one out')
        planned, tasks = _plan(study, folder, index, together)
        asked = [trial for task in tasks for trial in task.trials]
        with _written(planned, folder, index):
            if slurm is not None:
                from gen_jax.sweeps.slurm import submit

                more = [f'--retries={retries}', f'--together={together}']
                submit(tasks, file, folder, slurm, more)
                return []
            outcomes = run_all(tasks, folder, workers, retries)
    _conclude(asked, folder)
    return outcomes


def _plan(
    study: Study, folder: Path, index: int | None, together: int
) -> tuple[list[Trial], list[Task]]:
    """The study's trials, checked, and the tasks to run; with `index` one of them."""
    asked = trials(study)
    tasks = tasks_of(asked, folder, together)
    if index is not None and not 0 <= index < len(tasks):
        raise InputError(f'--sweep_index: {index}; there are 0 to {len(tasks) - 1}')
    chosen = tasks if index is None else [tasks[index]]
    mine = asked if index is None else [*tasks[index].trials]
    check(study, asked, folder, deep=mine)
    return asked, chosen


@contextlib.contextmanager
def _written(planned: Sequence[Trial], folder: Path, index: int | None) -> Iterator[None]:
    """Writes the plan down, not over that of another sweep which is at work in the folder."""
    if index is not None:  # of several at a time, which have one plan
        add_trials(planned, folder)
        yield
    else:
        with alone(folder):
            write_trials(planned, folder)
            yield


def _conclude(asked: Sequence[Trial], folder: Path) -> None:
    """Names trials that diverged; raises CheckFailed for others that failed, or else Preempted for
    some that were stopped."""
    failed = [trial for trial in asked if failure(trial, folder) is not None]
    ended = [trial for trial in failed if is_final(trial, folder)]
    if ended:
        print(f'diverged or collapsed: {", ".join(trial.name for trial in ended)}')
    left = [trial for trial in failed if trial not in ended]
    if left:
        lines = [f'{len(left)} of {len(asked)} trials failed; the same command tries them again']
        for trial in left:
            end = failure(trial, folder)
            lines.append(f'  {trial.name}: status {end.status}, its log ends')
            lines += [f'    {line}' for line in end.lines]
        raise CheckFailed('\n'.join(lines))
    check_ended(asked, folder)


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Raises InputError where another sweep of all trials is at work in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / 'lock').open('a') as file:
        lock(file, folder)
        yield


def _search(
    study: Study, folder: Path, workers: int, retries: int
) -> tuple[list[Trial], list[Outcome]]:
    from gen_jax.sweeps.search import check_search, search_points

    edges = check_search(study)
    check(study, edges, folder, deep=edges)

    def run(asked: Sequence[Trial]) -> None:
        run_all([task_of(trial, folder) for trial in asked], folder, workers, retries)

    with alone(folder):
        asked = search_points(study, folder, workers, run)
    return asked, [outcome_of(trial, folder) for trial in asked]


def tasks_of(asked: Sequence[Trial], folder: Path, together: int) -> list[Task]:
    """Each trial by itself, or so many at most together of those that can be one program."""
    if together == 1:
        return [task_of(trial, folder) for trial in asked]
    programs = {}
    for trial in asked:
        programs.setdefault(program_of(config_of(trial)), []).append(trial)
    parts = [
        of_one[start : start + together]
        for of_one in programs.values()
        for start in range(0, len(of_one), together)
    ]
    return [group_of(part, folder) for part in sorted(parts, key=lambda part: part[0].index)]


def check(study: Study, asked: Sequence[Trial], folder: Path, deep: Sequence[Trial]) -> None:
    """Raises InputError, with the point, for the first trial that could not be started, or whose
    run in `folder` is of another config, or done by other numbers. The points of `deep` are built,
    too, as on one device."""
    built = distinct(deep)
    for trial in asked:
        config = config_of(trial)
        try:
            check_values(config)
            check_config(folder / trial.name, config)
            check_done(trial, config, folder)
            if trial in built:
                with config.unlocked():
                    config.parallel.update(data=-1, fsdp=1, tensor=1)
                _check_measured(study, prepare(config, folder / trial.name).run, config)
        except InputError as error:
            raise InputError(f'{error} ({describe(trial.fields)})') from None


def _check_measured(study: Study, run: Run, config) -> None:
    """Raises InputError for a metric that an evaluation of the run will not have."""
    scored = config.evaluate.scores.num is not None
    names = [*run.method.estimators, *(names_of(config.evaluate.scores.metrics) if scored else ())]
    for metric in study.metrics:
        if metric not in names:
            more = '' if scored else '; scores of samples need evaluate.scores.num'
            known = ', '.join(names)
            raise InputError(f'metrics: {metric} is not measured; there are {known}{more}')
