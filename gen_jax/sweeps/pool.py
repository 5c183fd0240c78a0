"""Trials, so many at a time, on one machine."""

import os
import queue
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from gen_jax import preemption
from gen_jax.errors import Preempted
from gen_jax.sweeps.board import Board
from gen_jax.sweeps.runner import Outcome, Place, failure, is_final, run_trial, stop
from gen_jax.sweeps.study import Trial

# How often the parent looks after its children.
_SECONDS = 0.5


class _Pool:
    """Threads that take trials from a queue; each runs the processes of one trial at a time."""

    def __init__(self, asked: Sequence[Trial], folder: Path, retries: int):
        self._folder, self._retries = folder, retries
        self._waiting: queue.SimpleQueue[Trial] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._crashes: list[Exception] = []
        self.processes: dict[str, subprocess.Popen] = {}
        self.outcomes: dict[str, Outcome] = {}
        for trial in asked:
            if is_final(trial, folder):
                self.outcomes[trial.name] = failure(trial, folder) or Outcome('done')
            else:
                self._waiting.put(trial)

    def start(self, workers: int) -> None:
        """Starts so many threads, if there is as much to do."""
        for place in places(min(workers, self._waiting.qsize())):
            self._threads.append(threading.Thread(target=self._work, args=(place,), daemon=True))
            self._threads[-1].start()

    def works(self) -> bool:
        """Whether there is something to wait for; waits a little if so."""
        alive = next((thread for thread in self._threads if thread.is_alive()), None)
        if alive is not None:
            alive.join(_SECONDS)
        elif self._crashes:
            raise self._crashes[0]
        return alive is not None

    def stop(self) -> None:
        """Asks all processes to save and end, and waits for that."""
        self._stopping.set()
        for process in [*self.processes.values()]:
            stop(process)
        for thread in self._threads:
            thread.join()

    def _work(self, place: Place) -> None:
        try:
            while not self._stopping.is_set():
                self._run(self._waiting.get_nowait(), place)
        except queue.Empty:
            pass
        except Exception as error:  # of this program, and not of a trial
            self._crashes.append(error)
            self._stopping.set()

    def _run(self, trial: Trial, place: Place) -> None:
        def started(process: subprocess.Popen) -> None:
            self.processes[trial.name] = process
            if self._stopping.is_set():  # since it was asked for
                stop(process)

        self.outcomes[trial.name] = run_trial(
            *(trial, self._folder, place, self._retries, self._stopping, started)
        )
        self.processes.pop(trial.name, None)


def run_all(asked: Sequence[Trial], folder: Path, workers: int, retries: int) -> list[Outcome]:
    """Runs those of the trials that are not done, so many at a time, and shows how they do.

    Raises:
      Preempted: a signal asked to end; what ran has saved.
    """
    pool = _Pool(asked, folder, retries)
    with preemption.watched(), Board(asked, folder) as board:
        pool.start(workers)
        try:
            board.show(pool.outcomes, {*pool.processes})
            while pool.works():
                preemption.check()
                board.show(pool.outcomes, {*pool.processes})
        except Preempted:
            pool.stop()
            done = sum(outcome.state == 'done' for outcome in pool.outcomes.values())
            raise Preempted(f'asked to end: {done} of {len(asked)} trials are done') from None
        board.show(pool.outcomes, set())
    return [pool.outcomes[trial.name] for trial in asked]


def places(workers: int) -> Iterator[Place]:
    """The processors shared out evenly, and the GPUs in turn, where there are any."""
    usable = sorted(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else []
    gpus = visible_gpus()
    for number in range(workers):
        cpus = frozenset(usable[number::workers]) if len(usable) >= workers > 1 else None
        gpu = {'CUDA_VISIBLE_DEVICES': gpus[number % len(gpus)]} if gpus else {}
        yield Place(cpus, gpu)


def visible_gpus() -> list[str]:
    """The numbers of NVIDIA's GPUs that this process may use; none where there are none."""
    said = os.environ.get('CUDA_VISIBLE_DEVICES')
    if said is not None:
        return [name for name in said.split(',') if name not in ('', '-1')]
    found = [path.name.removeprefix('nvidia') for path in Path('/dev').glob('nvidia[0-9]*')]
    return sorted(found, key=int)
