"""`--mode=sweep`: trains and evaluates every trial of a study that is not done.

    python launch.py --mode=sweep --sweep=experiments/<study>/sweep.py --workers=2
    python launch.py --mode=sweep --sweep=experiments/<study>/sweep.py --sweep_index=3

Each trial is a process of its own, `--workers` of them at a time, each on its share of the
processors and on a GPU of its own where there are some. What is on disk decides what is left to
do (`sweeps/runner.py`), so a sweep may be killed, moved and started again, on one machine or, by
index, as an array of jobs that see the same folder.
"""

from collections.abc import Sequence
from pathlib import Path

import jax

from gen_jax.errors import CheckFailed, InputError
from gen_jax.run import assemble
from gen_jax.sweeps.configs import config_of, distinct, load_study
from gen_jax.sweeps.pool import run_all
from gen_jax.sweeps.runner import (
    Outcome,
    Task,
    failure,
    group_of,
    outcome_of,
    task_of,
    write_trials,
)
from gen_jax.sweeps.study import Study, Trial, describe, trials
from gen_jax.varied import program_of


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
        if slurm is not None:
            raise InputError('--slurm: a search chooses its trials one after the other, here')
        asked, outcomes = _search(study, folder, workers, index, retries)
    else:
        asked = trials(study)
        check(asked)
        write_trials(asked, folder)
        tasks = tasks_of(asked, folder, together)
        if index is not None and not 0 <= index < len(tasks):
            raise InputError(f'--sweep_index: {index}; there are 0 to {len(tasks) - 1}')
        if slurm is not None:
            from gen_jax.sweeps.slurm import submit

            submit(tasks, file, folder, slurm, [f'--retries={retries}', f'--together={together}'])
            return []
        if index is not None:
            tasks, workers = [tasks[index]], 1
            asked = [*tasks[0].trials]
        outcomes = run_all(tasks, folder, workers, retries)
    failed = [t for t, out in zip(asked, outcomes, strict=True) if out.state == 'failed']
    if failed:
        raise CheckFailed(_complaint(failed, len(asked), folder))
    return outcomes


def _search(
    study: Study, folder: Path, workers: int, index: int | None, retries: int
) -> tuple[list[Trial], list[Outcome]]:
    if index is not None:
        raise InputError('--sweep_index: a search has no list of trials to take one from')
    from gen_jax.sweeps.search import check_search, search_points

    check(check_search(study))

    def run(asked: Sequence[Trial]) -> None:
        run_all([task_of(trial, folder) for trial in asked], folder, workers, retries)

    asked = search_points(study, folder, workers, run)
    write_trials(asked, folder)
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


def check(asked: Sequence[Trial]) -> None:
    """Raises InputError, with the point, for the first trial that could not be started."""
    for trial in asked:
        config_of(trial)
    for trial in distinct(asked):
        try:
            assemble(config_of(trial))
        except InputError as error:
            raise InputError(f'{error} ({describe(trial.fields)})') from None


def _complaint(failed: Sequence[Trial], num: int, folder: Path) -> str:
    lines = [f'{len(failed)} of {num} trials failed; the same command tries them again']
    for trial in failed:
        ended = failure(trial, folder)
        lines.append(f'  {trial.name}: status {ended.status}; {folder}/logs/{trial.name}.txt ends')
        lines += [f'    {line}' for line in ended.lines]
    return '\n'.join(lines)
