"""A run that is asked to end: it saves, says so with its status, and goes on as if never asked."""

import importlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gen_jax import preemption
from gen_jax.checkpoint import Checkpoints
from gen_jax.errors import Preempted
from gen_jax.train import train
from gen_jax.writers import read_rows

ROOT = Path(__file__).parent.parent
LAST, EVALUATED = 600, 300  # the run's last step, and the one with an evaluation before
FLAGS = (
    '--config=configs/ddpm_8gaussians.py:smoke',
    f'--config.train.num_steps={LAST}',
    '--config.train.log_every=1',
    f'--config.train.evaluate_every={EVALUATED}',
    '--config.train.sample_every=None',
    '--config.train.score_every=None',
    '--config.train.checkpoint_every=100000',
    '--config.train.keep_checkpoints=None',
    '--config.ema.snapshot_every=200',
    # An evaluation that takes longer than the training before it.
    '--config.data.num_evaluation=3000',
    '--config.evaluate.num_batches=None',
)
TIMES = ('seconds', 'examples_per_second')


@pytest.fixture
def heeded(number):
    """What ignores a signal goes on doing so, and `nohup` has it ignored in all that it starts."""
    before = signal.getsignal(number)
    if before == signal.SIG_IGN:
        signal.signal(number, signal.SIG_DFL)
    yield
    signal.signal(number, before)


@pytest.mark.usefixtures('heeded')
@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_inside_a_signal_waits_for_the_check(number):
    before = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    with preemption.watched():
        preemption.check()
        signal.raise_signal(number)
        for _ in range(2):  # it is not forgotten
            with pytest.raises(Preempted):
                preemption.check()
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == before
    preemption.check()  # outside it does nothing
    with preemption.watched():
        preemption.check()  # and of an earlier block it knows nothing


def test_outside_signals_do_what_they_did():
    heard, before = [], signal.getsignal(signal.SIGTERM)
    try:
        signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
        with preemption.watched(), pytest.raises(Preempted):
            signal.raise_signal(signal.SIGTERM)
            assert heard == []
            preemption.check()
        signal.raise_signal(signal.SIGTERM)
        assert heard == [signal.SIGTERM]
        preemption.check()
    finally:
        signal.signal(signal.SIGTERM, before)


def test_handlers_come_back_whatever_ends_the_block():
    before = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    with pytest.raises(Preempted), preemption.watched():
        signal.raise_signal(signal.SIGTERM)
        preemption.check()
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == before
    preemption.check()


@pytest.mark.parametrize('first', [signal.SIGTERM, signal.SIGINT])
def test_a_second_interrupt_does_not_wait(first):
    with preemption.watched():
        signal.raise_signal(first)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_signals_wait_while_the_last_checkpoint_is_written(tmp_path, monkeypatch):
    heard, write = [], Checkpoints._write

    def told_twice(self, *arguments):
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.1)
        write(self, *arguments)

    monkeypatch.setattr(Checkpoints, '_write', told_twice)
    config = importlib.import_module('configs.ddpm_8gaussians').get_config('smoke')
    config.train.update(evaluate_every=None, sample_every=None, score_every=None)
    config.train.update(num_steps=2, checkpoint_every=2)
    config.ema.snapshot_every = None
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append('it would have ended here'))
    try:
        train(config, tmp_path)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [] and steps_of(tmp_path) == [2]


def start(workdir: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, 'launch.py', *FLAGS, f'--workdir={workdir}'],
        cwd=ROOT,
        env=os.environ | {'XLA_FLAGS': '--xla_force_host_platform_device_count=1'},
        stderr=subprocess.PIPE,
        text=True,
    )


def rows_of(workdir: Path) -> list[dict]:
    """Without what a clock decides."""
    rows = read_rows(workdir / 'metrics.jsonl')
    return [{name: v for name, v in row.items() if name not in TIMES} for row in rows]


def end_after(process: subprocess.Popen, workdir: Path, step: int, wait: float = 0) -> float:
    """Asks a run to end, some seconds after its row of `step`; returns how long that took."""
    path, deadline = workdir / 'metrics.jsonl', time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if path.exists() and f'{{"step": {step},' in path.read_text():
            break
        time.sleep(0.01)
    time.sleep(wait)
    process.send_signal(signal.SIGTERM)
    asked = time.monotonic()
    _, said = process.communicate(timeout=60)
    assert process.returncode == Preempted.status == 75, said
    last = rows_of(workdir)[-1]['step']
    assert said.splitlines()[-1].startswith(f'asked to end: step {last} is saved; the same command')
    return time.monotonic() - asked


def content_of(workdir: Path, name: str = 'checkpoints', step: int | None = None) -> dict:
    """Digests of all that a checkpoint holds, the last one's unless a step is named."""
    with Checkpoints(workdir, read_only=True, name=name) as checkpoints:
        return checkpoints.manifest_of(checkpoints.steps()[-1] if step is None else step)


def steps_of(workdir: Path, name: str = 'checkpoints') -> list[int]:
    with Checkpoints(workdir, read_only=True, name=name) as checkpoints:
        return checkpoints.steps()


@pytest.fixture(scope='module')
def whole(tmp_path_factory, compile_cache) -> Path:
    """A run that nobody interrupted."""
    workdir = tmp_path_factory.mktemp('whole')
    process = start(workdir)
    _, said = process.communicate()
    assert process.returncode == 0, said
    assert steps_of(workdir) == [LAST]
    return workdir


def test_a_run_does_not_depend_on_who_looks(tmp_path):
    process = start(tmp_path)
    process.stderr.close()
    assert process.wait(120) == 0
    assert steps_of(tmp_path)[-1] == LAST


def test_asked_to_end_and_started_again_is_never_asked(whole, tmp_path):
    """Once between two steps, then in the middle of an evaluation, then in that of the last step,
    which nothing follows."""
    end_after(start(tmp_path), tmp_path, 40)
    first = rows_of(tmp_path)[-1]['step']
    assert 40 <= first < EVALUATED and steps_of(tmp_path) == [first]

    for step in (EVALUATED, LAST):
        seconds = end_after(start(tmp_path), tmp_path, step, wait=0.05)
        rows = rows_of(tmp_path)
        assert rows[-1]['step'] == step and 'eval/loss' not in rows[-1]
        assert steps_of(tmp_path)[-1] == step
        assert seconds < 10
    assert steps_of(tmp_path) == [first, EVALUATED, LAST]

    process = start(tmp_path)
    _, said = process.communicate()
    assert process.returncode == 0, said
    assert [row['step'] for row in rows_of(whole) if 'eval/loss' in row] == [EVALUATED, LAST]
    assert rows_of(tmp_path) == rows_of(whole)
    assert content_of(tmp_path) == content_of(whole)
    assert steps_of(tmp_path, 'averages') == steps_of(whole, 'averages') == [200, 400, 600]
    for step in (200, 400, 600):
        assert content_of(tmp_path, 'averages', step) == content_of(whole, 'averages', step)
