"""Contenders in turn: each in a process of its own, round after round, and the table of it.

A benchmark's file, started with `--worker=<contender> --network=<network>`, answers lines
'<job> <times>' on its standard input with [seconds of one, peak MiB so far]; see `serve`. The
allocator and the thread pools belong to a process, and where in memory one comes to lie changes its
speed by a fifth for as long as it lives: so each contender has a process, and all of them are
started again several times.
"""

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

SGEMM = 2048  # a matrix product of this size shows what the machine can do


def serve(jobs: Mapping[str, Callable[[], object]]) -> None:
    """Runs the jobs that standard input asks for; each function runs one job to its end."""
    for line in sys.stdin:
        job, times = line.split()
        begin = time.perf_counter()
        for _ in range(int(times)):
            jobs[job]()
        seconds = (time.perf_counter() - begin) / int(times)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps([seconds, memory]), flush=True)


class Worker:
    """A contender's process."""

    def __init__(self, file: str, contender: str, network: str):
        self.contender = contender
        self.process = subprocess.Popen(
            [sys.executable, file, f'--worker={contender}', f'--network={network}'],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def seconds(self, job: str, times: int = 1) -> float:
        """Runs a job `times` times; the mean seconds of one. Keeps the peak memory in MiB."""
        self.process.stdin.write(f'{job} {times}\n')
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f'{self.contender} ended: see its message above')
        seconds, self.memory = json.loads(line)
        return seconds

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


class Figures(NamedTuple):
    """Of each contender: seconds of a job in every round, of the sgemm, and peak MiB."""

    seconds: dict[str, list[float]]
    sgemm: dict[str, list[float]]
    memory: dict[str, float]


def measure(
    file: str,
    network: str,
    job: str,
    contenders: Sequence[str],
    *,
    rounds: int,
    times: int,
    restarts: int,
) -> Figures:
    """Measures one job on all contenders in turn."""
    figures = Figures(
        {contender: [] for contender in contenders},
        {contender: [] for contender in contenders},
        dict.fromkeys(contenders, 0.0),
    )
    for _ in range(restarts):
        workers = [Worker(file, contender, network) for contender in contenders]
        for worker in workers:
            worker.seconds(job)  # compiles
            worker.seconds(job)
        for _ in range(rounds):
            for worker in workers:
                figures.seconds[worker.contender].append(worker.seconds(job, times))
                figures.sgemm[worker.contender].append(worker.seconds('sgemm', 5))
        for worker in workers:
            figures.memory[worker.contender] = max(figures.memory[worker.contender], worker.memory)
            worker.close()
    return figures


def report(title: str, gflop: float, figures: Figures) -> None:
    """Prints the table: the median over rounds and the fastest round, each with the best peer's
    time over its own. The fastest rounds are those that other work on the machine disturbed least.
    """
    seconds = figures.seconds
    median = {name: statistics.median(values) for name, values in seconds.items()}
    fastest = {name: min(values) for name, values in seconds.items()}
    peers = [name for name in seconds if name != 'gen_jax']
    peak = 2 * SGEMM**3 / min(statistics.median(times) for times in figures.sgemm.values()) / 1e9
    rounds = len(seconds['gen_jax'])
    print(f'\n{title}, {gflop:.3g} GFLOP, {rounds} rounds')
    print(f'sgemm of {SGEMM} x {SGEMM}, the fastest contender: {peak:.0f} GFLOP/s')
    heads = ('ms', 'peer/it', 'fastest', 'peer/it', 'GFLOP/s', 'of sgemm', 'peak MiB')
    print(' ' * 15 + ''.join(f'{head:>11}' for head in heads))
    for name in seconds:
        cells = []
        for of_all in (median, fastest):
            best = min((of_all[peer] for peer in peers), default=float('nan'))
            cells += [f'{of_all[name] * 1e3:.4g}', f'{best / of_all[name]:.2f}']
        cells += [
            f'{gflop / median[name]:.0f}',
            f'{gflop / median[name] / peak:.0%}',
            f'{figures.memory[name]:.0f}',
        ]
        print(f'{name:15}' + ''.join(f'{cell:>11}' for cell in cells), flush=True)
