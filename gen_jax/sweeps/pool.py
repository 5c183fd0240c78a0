"""Tasks, so many at a time, on one machine."""

import os
import queue
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from gen_jax import preemption
from gen_jax.errors import Preempted
from gen_jax.sweeps.board import Board
from gen_jax.sweeps.runner import Outcome, Place, Task, failure, is_final, run_task, stop

# How often the parent looks after its children.
_SECONDS = 0.5


class _Pool:
    """Threads that take tasks from a queue; each runs the processes of one at a time."""

    def __init__(self, tasks: Sequence[Task], folder: Path, retries: int):
        self._folder, self._retries = folder, retries
        self._waiting: queue.SimpleQueue[Task] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._crashes: list[Exception] = []
        self._processes: dict[str, subprocess.Popen] = {}
        self._running: dict[str, list[str]] = {}  # the trials of each task that runs
        self.outcomes: dict[str, Outcome] = {}
        for task in tasks:
            for trial in task.trials:
                if is_final(trial, folder):
                    self.outcomes[trial.name] = failure(trial, folder) or Outcome('done')
            if any(trial.name not in self.outcomes for trial in task.trials):
                self._waiting.put(task)

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
        if self._crashes:
            self.stop()
            raise self._crashes[0]
        return alive is not None

    def names_running(self) -> set[str]:
        """Of the trials that are being run."""
        return {name for names in [*self._running.values()] for name in names}

    def stop(self) -> None:
        """Asks all processes to save and end, and waits for that."""
        self._stopping.set()
        for process in [*self._processes.values()]:
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

    def _run(self, task: Task, place: Place) -> None:
        def started(process: subprocess.Popen) -> None:
            self._processes[task.name] = process
            if self._stopping.is_set():  # since it was asked for
                stop(process)

        left = [trial.name for trial in task.trials if trial.name not in self.outcomes]
        self._running[task.name] = left
        ended = run_task(task, self._folder, place, self._retries, self._stopping, started)
        self.outcomes.update(zip((trial.name for trial in task.trials), ended, strict=True))
        self._running.pop(task.name, None)


def run_all(tasks: Sequence[Task], folder: Path, workers: int, retries: int) -> list[Outcome]:
    """Runs those of the tasks that are not done, so many at a time, and shows how they do.

    Returns:
      How each trial ended, by their index.

    Raises:
      Preempted: a signal asked to end; what ran has saved.
    """
    pool = _Pool(tasks, folder, retries)
    asked = sorted((trial for task in tasks for trial in task.trials), key=lambda t: t.index)
    with preemption.watched(), Board(asked, folder) as board:
        pool.start(workers)
        try:
            board.show(pool.outcomes, pool.names_running())
            while pool.works():
                preemption.check()
                board.show(pool.outcomes, pool.names_running())
        except Preempted:
            pool.stop()
            done = sum(outcome.state == 'done' for outcome in pool.outcomes.values())
            raise Preempted(f'asked to end: {done} of {len(asked)} trials are done') from None
        board.show(pool.outcomes, pool.names_running())
    return [pool.outcomes[trial.name] for trial in asked]


def places(workers: int) -> Iterator[Place]:
    """Processors and GPUs, shared out evenly; of fewer GPUs than workers several share one."""
    usable = sorted(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else []
    gpus = visible_gpus()
    for number in range(workers):
        cpus = frozenset(usable[number::workers]) if len(usable) >= workers > 1 else None
        environment = {}
        if gpus:
            own = gpus[number::workers] or [gpus[number % len(gpus)]]
            environment['CUDA_VISIBLE_DEVICES'] = ','.join(own)
        if len(gpus) < workers and gpus:  # several on one, each of which would take three quarters
            share = 0.9 / -(-workers // len(gpus))
            fraction = os.environ.get('XLA_PYTHON_CLIENT_MEM_FRACTION', f'{share:.3f}')
            environment['XLA_PYTHON_CLIENT_MEM_FRACTION'] = fraction
        yield Place(cpus, environment)


def visible_gpus() -> list[str]:
    """The numbers of NVIDIA's GPUs that this process may use; none where there are none."""
    said = os.environ.get('CUDA_VISIBLE_DEVICES')
    if said is not None:
        return [name for name in said.split(',') if name not in ('', '-1')]
    found = [path.name.removeprefix('nvidia') for path in Path('/dev').glob('nvidia[0-9]*')]
    return sorted(found, key=int)
