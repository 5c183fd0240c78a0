"""Trials, from their first start to their mark: training and evaluation, in other processes.

A sweep's folder holds

    sweep.json            its trials, when it was last started
    <trial>/              the run's workdir; DONE in it says that it was trained and evaluated
    failed/<trial>.json   how it ended, where it did not come to its end
    logs/<task>.txt       what its processes said; a task is a trial, or some trained together

A trial without DONE is started, or goes on from its checkpoint, but for one that diverged or
collapsed, which is a result. So whatever is killed, parent or children, at any instant, the next
start does what is missing and no more.
"""

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from gen_jax.errors import CheckFailed, Diverged, InputError, Preempted
from gen_jax.sweeps.configs import words_of
from gen_jax.sweeps.study import Trial
from gen_jax.workdir import check_config, plain, read_json
from gen_jax.writers import write_json

DONE, _TRIALS = 'DONE', 'sweep.json'
# Statuses that another try would only repeat.
_FINAL = (InputError.status, Diverged.status, CheckFailed.status)
_MODES = ('train', 'evaluate')
_LAST_LINES = 6
# Of what may differ when a run goes on, what one that is done was made by.
_MADE_BY = ('train.num_steps', 'train.accumulate')

# Run in the child before it becomes `launch.py`: it dies with the thread that started it, so that a
# killed parent leaves nobody behind who would train on where the next start does. Linux has this;
# elsewhere such a child ends its trial, and the next start finds the folder locked until then.
_DIE_WITH_PARENT = (
    'import ctypes, os, signal, sys\n'
    'prctl = getattr(ctypes.CDLL(None), "prctl", None)\n'
    'if prctl: prctl(1, signal.SIGKILL)\n'
    'if os.getppid() == int(sys.argv[1]):\n'
    '    os.execv(sys.executable, [sys.executable, *sys.argv[2:]])\n'
)


class Place(NamedTuple):
    """Where a trial runs: these processors, None for all, and these variables."""

    cpus: frozenset[int] | None = None
    environment: Mapping[str, str] = {}


class Task(NamedTuple):
    """Trials that the same processes train and evaluate, by these words for `launch.py` in turn."""

    name: str
    trials: Sequence[Trial]
    commands: Sequence[Sequence[str]]
    marks: bool = False  # whether they say themselves how trials ended


class Outcome(NamedTuple):
    """How a trial ended: 'done', 'failed' or 'stopped', with the exit status and the last lines of
    the process that failed."""

    state: str
    status: int = 0
    lines: tuple[str, ...] = ()


def task_of(trial: Trial, folder: Path) -> Task:
    """A trial by itself."""
    words = [f'--config={trial.config}', *words_of(trial.fields)]
    words.append(f'--workdir={folder / trial.name}')
    return Task(trial.name, (trial,), [[*words, f'--mode={mode}'] for mode in _MODES])


def group_of(trials: Sequence[Trial], folder: Path) -> Task:
    """Trials that one process trains in one program, `--mode=together`."""
    name = trials[0].name if len(trials) == 1 else f'{trials[0].name}-and-{len(trials) - 1}-more'
    names = ','.join(trial.name for trial in trials)
    words = ['--mode=together', f'--workdir={folder}', f'--trials={names}']
    return Task(name, trials, [words], marks=True)


def write_trials(trials: Sequence[Trial], folder: Path) -> None:
    """Writes `sweep.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / _TRIALS, {'trials': [trial._asdict() for trial in trials]})


def add_trials(trials: Sequence[Trial], folder: Path) -> None:
    """Writes `sweep.json` where others may be at work by it.

    Raises:
      InputError: it has a trial that is none of these; another process may be about to run it.
    """
    path, names = folder / _TRIALS, {trial.name for trial in trials}
    for trial in read_trials(folder) if path.exists() else ():
        if trial.name not in names:
            raise InputError(
                f'--workdir: {path} has a trial that is none of this study, {trial.name}; use '
                'another --workdir, or remove that file when nothing runs there'
            )
    write_trials(trials, folder)


def read_trials(folder: Path) -> list[Trial]:
    """What `write_trials` wrote.

    Raises:
      InputError: it is not there, or is something else.
    """
    try:
        found = [Trial(**trial) for trial in read_json(folder / _TRIALS)['trials']]
        return [trial._replace(fields=plain(trial.fields)) for trial in found]
    except (AttributeError, KeyError, TypeError):
        raise InputError(f'--workdir: {folder / _TRIALS} is not of a sweep') from None


def failure(trial: Trial, folder: Path) -> Outcome | None:
    """How a trial ended that failed; None for others."""
    path = _failure(trial, folder)
    if (folder / trial.name / DONE).exists() or not path.exists():
        return None
    record = read_json(path)
    return Outcome('failed', record['status'], tuple(record['lines']))


def is_final(trial: Trial, folder: Path) -> bool:
    """Whether another start would repeat what was: the trial is done, or its numbers diverged."""
    failed = failure(trial, folder)
    return (folder / trial.name / DONE).exists() or (
        failed is not None and failed.status == Diverged.status
    )


def check_done(trial: Trial, config, folder: Path) -> None:
    """Raises InputError for a trial that is done and would be another one by this config: it would
    not be trained again, and stand beside those that are."""
    if (folder / trial.name / DONE).exists():
        check_config(folder / trial.name, config, lambda field, *_: field not in _MADE_BY)


def outcome_of(trial: Trial, folder: Path) -> Outcome:
    """How a trial ended; 'stopped' where it has not been said."""
    if (folder / trial.name / DONE).exists():
        return Outcome('done')
    return failure(trial, folder) or Outcome('stopped')


def check_ended(trials: Sequence[Trial], folder: Path) -> None:
    """Raises Preempted for trials that were stopped: neither done nor failed."""
    stopped = [trial.name for trial in trials if outcome_of(trial, folder).state == 'stopped']
    if stopped:
        raise Preempted(f'{len(stopped)} of {len(trials)} trials stopped: {", ".join(stopped)}')


def run_task(
    task: Task,
    folder: Path,
    place: Place,
    retries: int,
    stopping: threading.Event,
    started: Callable[[subprocess.Popen], None] = lambda process: None,
) -> list[Outcome]:
    """Runs the commands of a task, and marks its trials as done or failed.

    Args:
      place: the processors that the calling thread is left on, and more of the environment.
      retries: how often a process is started again that crashed or was killed; one that saved and
        ended because it was asked to is started again without that.
      stopping: once it is set no process is started, and one that ends is not marked as failed.
      started: is told of each process.

    Returns:
      How each trial of the task ended.
    """
    for trial in task.trials:
        if not is_final(trial, folder):
            _failure(trial, folder).unlink(missing_ok=True)
    (folder / 'logs').mkdir(parents=True, exist_ok=True)
    log, begun, status = folder / 'logs' / f'{task.name}.txt', time.monotonic(), 0
    if place.cpus is not None and hasattr(os, 'sched_setaffinity'):
        os.sched_setaffinity(0, place.cpus)  # of this thread; its children have the same
    for words in task.commands:
        left = retries
        while True:
            if stopping.is_set():
                return [outcome_of(trial, folder) for trial in task.trials]
            status = _run(words, log, place.environment, started)
            if status == 0 or stopping.is_set() or status in _FINAL:
                break
            if status != Preempted.status:  # which is no crash: it was asked to end, and has saved
                left -= 1
            if left < 0:
                break
            _note(log, f'ended with status {status}; it is started again')
        if status != 0:
            break
    for trial in task.trials:
        if status == 0 and not task.marks:
            mark_done(trial, folder, time.monotonic() - begun)
        elif status != 0 and not stopping.is_set():
            mark_failed(trial, folder, status, [*_last_lines(log), f'(from {log})'])
    return [outcome_of(trial, folder) for trial in task.trials]


def mark_done(trial: Trial, folder: Path, seconds: float) -> None:
    """Says that a trial was trained and evaluated. A mark of failure, which another start may have
    left that found this one at work, is wrong then."""
    if not is_final(trial, folder):
        _failure(trial, folder).unlink(missing_ok=True)
        write_json(folder / trial.name / DONE, {'seconds': round(seconds, 1)})


def mark_failed(trial: Trial, folder: Path, status: int, lines: Sequence[str]) -> None:
    """Says how a trial failed, unless it has been said already how it ended."""
    path = _failure(trial, folder)
    if not (path.exists() or is_final(trial, folder)):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {'status': status, 'lines': [*lines]})


def stop(process: subprocess.Popen) -> None:
    """Asks a process of a trial to save and end."""
    with contextlib.suppress(ProcessLookupError):
        process.terminate()


def _run(words, log: Path, environment: Mapping[str, str], started: Callable) -> int:
    shim = [sys.executable, '-c', _DIE_WITH_PARENT, str(os.getpid()), sys.argv[0]]
    with log.open('a') as file:
        process = subprocess.Popen(
            [*shim, *words],
            stdout=file,
            stderr=file,
            stdin=subprocess.DEVNULL,
            env=os.environ | environment,
            start_new_session=True,  # a terminal's Ctrl-C is for the parent, which asks to save
        )
        started(process)
        return process.wait()


def _note(log: Path, text: str) -> None:
    with log.open('a') as file:
        file.write(f'sweep: {text}\n')


def _last_lines(log: Path) -> tuple[str, ...]:
    lines = [line.rstrip() for line in log.read_text(errors='replace').splitlines() if line.strip()]
    return tuple(lines[-_LAST_LINES:])


def _failure(trial: Trial, folder: Path) -> Path:
    return folder / 'failed' / f'{trial.name}.json'
