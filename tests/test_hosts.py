"""Several processes that train one model: two real ones on this machine, and what each does when
another is asked to end, or dies."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest

from gen_jax import hosts
from gen_jax.errors import InputError, Preempted, ProcessLost
from gen_jax.writers import read_rows

ROOT = Path(__file__).parent.parent
FLAGS = (
    '--config=configs/ddpm_8gaussians.py:smoke',
    '--config.networks.model.width=32',  # the narrowest whose kernels are large enough to be split
    '--config.train.checkpoint_every=1000000',  # which leaves the last step
    '--config.train.evaluate_every=None',
    '--config.train.score_every=None',
    '--config.train.sample_every=None',
)
LAYOUTS = {
    'jit': ('--config.parallel.data=1', '--config.parallel.fsdp=-1'),
    'pmap': ('--config.parallel.strategy=pmap',),
}
LONG = '--config.train.num_steps=1000000'  # longer than any test waits
SECONDS_TO_START = 120  # on a machine that does much else
SECONDS_TO_NOTICE = 30  # that another process is gone


class Ended(NamedTuple):
    """A process that has ended, and what it wrote to stdout and stderr."""

    status: int
    said: str


class Processes:
    """The processes of one start, which have a folder for what they say."""

    def __init__(
        self, folder: Path, num: int, arguments: tuple[str, ...], second: tuple[str, ...] = ()
    ):
        # A proxy would stand between two processes of one machine.
        environment = {k: v for k, v in os.environ.items() if not k.lower().endswith('_proxy')}
        environment['XLA_FLAGS'] = '--xla_force_host_platform_device_count=1'
        self._running, self._files, self._port = [], [], None
        for i in range(num):
            file = folder / f'said_{time.monotonic_ns()}'
            self._files.append(file)
            with file.open('w') as out:
                process = subprocess.Popen(
                    [
                        *(sys.executable, 'launch.py', *arguments, *self._together(num, i)),
                        *(second if i == 1 else ()),
                    ],
                    cwd=ROOT,
                    env=environment,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                )
            self._running.append(process)

    def _together(self, num: int, i: int) -> tuple[str, ...]:
        if num == 1:
            return ()
        if self._port is None:
            self._port = free_port()
        return (
            f'--coordinator=127.0.0.1:{self._port}',
            f'--num_processes={num}',
            f'--process_id={i}',
        )

    def wait(self, seconds: float = SECONDS_TO_START) -> list[Ended]:
        """All of them, once they have ended; fails where one has not after so many seconds."""
        deadline = time.monotonic() + seconds
        for process in self._running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0, deadline - time.monotonic()))
        ended = [Ended(p.poll(), s) for p, s in zip(self._running, self.said(), strict=True)]
        assert all(e.status is not None for e in ended), f'still there after {seconds} s: {ended}'
        return ended

    def wait_for_step(self, workdir: Path, step: int) -> None:
        """Returns when the row of this step is written."""
        deadline = time.monotonic() + SECONDS_TO_START
        while not any(row['step'] >= step for row in read_rows(workdir / 'metrics.jsonl')):
            assert all(p.poll() is None for p in self._running), self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.02)

    def send(self, which: int, number: signal.Signals) -> None:
        """Sends a signal to one of them."""
        self._running[which].send_signal(number)

    def said(self) -> list[str]:
        """What each wrote so far."""
        return [file.read_text() for file in self._files]

    def end(self) -> None:
        """Kills those that still run."""
        for process in self._running:
            process.kill()
            process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


@pytest.fixture
def start(tmp_path):
    """Starts `num` processes of one run: `start(2, '--workdir=…')`; none outlives the test."""
    started = []

    def run(num: int, *arguments: str, second: tuple[str, ...] = ()) -> Processes:
        started.append(Processes(tmp_path, num, (*FLAGS, *arguments), second))
        return started[-1]

    yield run
    for processes in started:
        processes.end()


def newest_checkpoint(workdir: Path) -> int:
    names = [path.name for path in (workdir / 'checkpoints').iterdir()]
    return max(int(name) for name in names if name.isdecimal())


def training_rows(workdir: Path) -> list[dict]:
    return [row for row in read_rows(workdir / 'metrics.jsonl') if 'model/loss' in row]


@pytest.mark.parametrize('strategy', LAYOUTS)
def test_a_run_goes_on_with_two_processes_then_one_then_two(strategy, start, tmp_path):
    whole, parts = tmp_path / 'whole', tmp_path / 'parts'
    looks = tuple(f'--config.train.{name}_every=8' for name in ('evaluate', 'score', 'sample'))
    if strategy == 'jit':  # under pmap the noise depends on how many devices there are
        alone = start(1, f'--workdir={whole}', '--config.train.num_steps=8', *looks)
    for num, last in ((2, 4), (1, 6), (2, 8)):
        more = looks if last == 8 else ()
        steps = f'--config.train.num_steps={last}'
        ended = start(num, f'--workdir={parts}', *LAYOUTS[strategy], steps, *more).wait()
        assert [e.status for e in ended] == [0] * num, ended
        assert f'step {last}/{last}' in ended[0].said
        assert not any('step' in e.said for e in ended[1:]), ended  # they leave that to the first
        assert newest_checkpoint(parts) == last
        if last > 4:
            assert f'resumed at step {last - 2}' in ended[0].said
    assert [row['step'] for row in training_rows(parts)] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert (parts / 'samples' / 'step_00000008.png').stat().st_size > 100
    evaluation = read_rows(parts / 'metrics.jsonl')[-1]
    assert all(np.isfinite(evaluation[f'eval/{name}']) for name in ('loss', 'FD-raw', 'KID-raw'))
    if strategy == 'pmap':
        return
    assert [e.status for e in alone.wait()] == [0]
    for row, same in zip(*(read_rows(w / 'metrics.jsonl') for w in (parts, whole)), strict=True):
        names = row.keys() - {'seconds', 'examples_per_second'}
        assert {n: row[n] for n in names} == pytest.approx({n: same[n] for n in names}, rel=1e-5)


def test_a_signal_to_one_process_ends_both_and_both_go_on(start, tmp_path):
    """At the second time among saves and previews, and after a resume: nothing else may count in
    what the processes agree on. Then with damage in what only one of them reads."""
    workdir = tmp_path / 'run'
    flags = (f'--workdir={workdir}', *LAYOUTS['jit'])
    busy = ('--config.train.checkpoint_every=1', '--config.train.sample_every=3')
    step = 0
    for which, more in ((1, ()), (0, busy)):
        both = start(2, *flags, LONG, *more)
        both.wait_for_step(workdir, step + 5)
        both.send(which, signal.SIGTERM)
        ended = both.wait()
        assert [e.status for e in ended] == [Preempted.status] * 2, ended
        saved = [re.findall(r'asked to end: step (\d+) is saved', e.said) for e in ended]
        assert saved == [[str(newest_checkpoint(workdir))]] * 2
        if step:
            assert f'resumed at step {step}' in ended[0].said
            assert newest_checkpoint(workdir) < step + 30
        step = newest_checkpoint(workdir)
    for file in (workdir / 'checkpoints' / str(step)).rglob('ocdbt.process_1/d/*'):
        os.truncate(file, file.stat().st_size // 2)
    ended = start(2, *flags, *busy, f'--config.train.num_steps={step + 2}').wait()
    assert [e.status for e in ended] == [0, 0], ended
    assert f'checkpoint {step} is damaged' in ended[0].said + ended[1].said
    assert f'resumed at step {step - 1}' in ended[0].said
    assert [row['step'] for row in training_rows(workdir)] == [*range(1, step + 3)]


@pytest.mark.parametrize('victim', [0, 1], ids=['first', 'second'])
def test_when_one_process_is_killed_the_other_says_so_and_both_go_on(victim, start, tmp_path):
    workdir = tmp_path / 'run'
    flags = (f'--workdir={workdir}', *LAYOUTS['jit'], '--config.train.checkpoint_every=2')
    both = start(2, *flags, LONG)
    both.wait_for_step(workdir, 5)  # by then the checkpoint of step 2 is complete
    both.send(victim, signal.SIGKILL)
    ended = both.wait(SECONDS_TO_NOTICE)
    assert ended[victim].status == -signal.SIGKILL
    other = ended[1 - victim]
    # The runtime ends a process by itself where it hears of the other's death before the process
    # has come to its next message; on slow machines it may.
    assert (other.status == ProcessLost.status and 'another process of this run' in other.said) or (
        other.status == -signal.SIGABRT and 'another task died' in other.said
    ), other
    step = newest_checkpoint(workdir)
    ended = start(2, *flags, f'--config.train.num_steps={step + 3}').wait()
    assert [e.status for e in ended] == [0, 0], ended
    assert f'resumed at step {step}' in ended[0].said
    assert [row['step'] for row in training_rows(workdir)] == [*range(1, step + 4)]


def test_a_bad_config_ends_both_with_one_line(start, tmp_path):
    ended = start(2, f'--workdir={tmp_path / "run"}', '--config.data.batch_size=7').wait()
    for status, said in ended:
        assert status == InputError.status, said
        (line,) = [line for line in said.splitlines() if 'data.batch_size' in line]
        assert line.startswith('error: data.batch_size: 7 examples cannot be split over 2 device')
        assert 'Traceback' not in said
    assert not (tmp_path / 'run').exists()


def test_processes_with_different_configs_do_not_start(start, tmp_path):
    other = ('--config.optim.model.learning_rate=0.01',)
    ended = start(2, f'--workdir={tmp_path / "run"}', second=other).wait()
    assert [e.status for e in ended] == [InputError.status] * 2, ended
    assert 'optim.model.learning_rate is 0.001 there and 0.01 here' in ended[1].said
    assert 'error: --config: all processes of a run need the same' in ended[0].said
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
    ('given', 'named'),
    [
        ((None, 2, 0), '--coordinator: missing'),
        (('a:1', None, 0), '--num_processes: missing'),
        (('a:1', 2, None), '--process_id: missing'),
        (('a', 2, 0), "--coordinator: 'a'"),
        ((':1', 2, 0), "--coordinator: ':1'"),
        (('a:b', 2, 0), "--coordinator: 'a:b'"),
        (('a:99999', 2, 0), "--coordinator: 'a:99999'"),
        (('a:1', 2, 2), '--process_id, --num_processes: 2, 2'),
        (('a:1', 2, -1), '--process_id, --num_processes: -1, 2'),
        (('a:1', 0, 0), '--process_id, --num_processes: 0, 0'),
    ],
)
def test_impossible_flags_are_named(given, named):
    with pytest.raises(InputError, match=f'^{re.escape(named)}'):
        hosts.start(*given)
    assert not jax.distributed.is_initialized()


def test_one_process_does_its_work_once_and_needs_no_others():
    calls = []
    assert hosts.together(lambda: calls.append(0) or 'done', 'work') == 'done'
    assert calls == [0]

    def refuse():
        raise InputError('data: not there')

    with pytest.raises(InputError, match=r'^data: not there$'):
        hosts.together(refuse, 'work')
    assert hosts.is_first() and hosts.any_of(True) and not hosts.of_first(False)


def test_an_error_of_its_own_is_not_blamed_on_another_process():
    assert hosts.explain(ValueError('shapes do not match')) is None
    assert hosts.explain(RuntimeError('UNAVAILABLE')) is None  # there is no other
