"""`--mode=certify`: proof that a run of this config may be killed, and moved to other devices.

The config is trained three times, by processes of its own, for a few steps with many checkpoints:

    whole    never killed
    killed   SIGKILL at random moments: while it starts, anywhere, and in the middle of writing and
             of deleting checkpoints; started again each time
    moved    on 8, then 1, then 2 virtual devices (on CPUs, under jit, as far as its mesh and its
             batches can be split), from the same checkpoints

Everything that `killed` leaves must be equal to what `whole` leaves, bit for bit; the losses of
`moved` must be those of `whole` up to the order of summation. Scores of samples, which take
minutes, and the checkpoint that is best by them are left out.
"""

import contextlib
import hashlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax

from gen_jax import parallel
from gen_jax import workdir as workdirs
from gen_jax.checkpoint import Checkpoints
from gen_jax.errors import CheckFailed, InputError
from gen_jax.files import PARTIAL
from gen_jax.writers import read_rows, write_json

DEVICES = (8, 1, 2)
TOLERANCE = 1e-5  # of a loss on other devices, relative
_CADENCES = ('evaluate_every', 'sample_every')
_CLOCK = ('seconds', 'examples_per_second')  # of a row: what a clock decides may differ
_KINDS = ('anywhere', 'writing', 'deleting', 'starting')
_PATIENCE = 60.0  # seconds to wait for a moment to kill in, once the run has come near it


def certify(
    config,
    workdir: Path,
    words: Sequence[str],
    *,
    steps: int | None = None,
    kills: int = 20,
    seed: int | None = None,
) -> dict:
    """Prints the certificate of a config, and writes it to `certificate.json` in the workdir.

    Args:
      config: the config.
      workdir: a folder that does not exist yet.
      words: the config as words of a command line, `--config=...` and the fields set.
      steps: to train; None for 60.
      kills: how often to kill.
      seed: of the random moments; None for 0.

    Returns:
      The certificate.

    Raises:
      InputError: bad flags, or a folder with something in it or that cannot be written.
      CheckFailed: something is not equal, a run failed by itself, or no kill came in time.
    """
    steps, seed = 60 if steps is None else steps, seed or 0
    if steps < 12:
        raise InputError(f'--steps: {steps}; a certificate takes 12 or more')
    if kills < 0:
        raise InputError(f'--kills: {kills}; use 0 or more')
    workdirs.check_folder(workdir, config)
    if workdir.exists() and any(workdir.iterdir()):
        raise InputError(f'--workdir: {workdir} is not empty; name a new folder')
    # This process reads what the runs leave; accelerators are for the runs.
    jax.config.update('jax_platforms', 'cpu')
    started = time.monotonic()
    launch = _Launch(workdir, [*words, *_short(config, steps)])

    whole, killed, moved = (workdir / name for name in ('whole', 'killed', 'moved'))
    launch.finish(whole)
    seconds = time.monotonic() - started
    moments = _kill_often(launch, killed, whole, steps, kills, seconds, random.Random(seed))
    if kills and not moments:
        raise CheckFailed('the run ended before it could be killed; give it more --steps')
    rows = _compare(_hashes(whole), _hashes(killed))
    devices, most = _move(launch, config, moved, whole, steps)
    certificate = {
        'config': list(words),
        'commit': workdirs.commit(),
        'device': workdirs.facts(whole)['starts'][0]['devices'],
        'steps': steps,
        'kills': {kind: moments.count(kind) for kind in _KINDS},
        'parts': rows,
        'devices': devices,
        'largest_relative_difference_of_losses': most,
        'seconds': round(time.monotonic() - started, 1),
    }
    write_json(workdir / 'certificate.json', certificate)
    _show(certificate)
    unequal = [row['part'] for row in rows if not row['equal']]
    if unequal or (most is not None and not most <= TOLERANCE):
        raise CheckFailed(f'not certified: {", ".join(unequal) or "losses on other devices"}')
    return certificate


def _short(config, steps: int) -> list[str]:
    """Fields that make a run short, with a checkpoint at every other step."""
    fields = {
        'num_steps': steps,
        'log_every': 3,  # not a divisor of the next, so that resuming falls between
        'checkpoint_every': 2,
        'keep_checkpoints': 2,
        'score_every': None,
        'best_by': None,
        **{name: steps // 2 for name in _CADENCES if config.train[name] is not None},
    }
    words = [f'--config.train.{name}={value}' for name, value in fields.items()]
    words.append('--config.evaluate.num_batches=2')
    if config.ema.snapshot_every is not None:
        words.append(f'--config.ema.snapshot_every={steps // 4}')
    return words


class _Launch:
    """Starts the run of a folder, on a number of virtual devices where these are CPUs."""

    def __init__(self, workdir: Path, words: Sequence[str]):
        workdir.mkdir(parents=True, exist_ok=True)
        self._log = workdir / 'log.txt'
        self._command = [sys.executable, sys.argv[0], *words]

    @contextlib.contextmanager
    def start(
        self, folder: Path, *words: str, devices: int | None = None
    ) -> Iterator[subprocess.Popen]:
        """The process, which does not outlive the block; `devices` None: as in this one."""
        environment = dict(os.environ)
        if devices is not None:
            flags = f'--xla_force_host_platform_device_count={devices}'
            environment['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} {flags}'
        command = [*self._command, f'--workdir={folder}', *words]
        with self._log.open('a') as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def finish(self, folder: Path, *words: str, devices: int | None = None) -> None:
        """Lets the run come to its end.

        Raises:
          CheckFailed: it ended with another status than 0.
        """
        with self.start(folder, *words, devices=devices) as process:
            if process.wait() != 0:
                raise self.failure(process)

    def failure(self, process: subprocess.Popen) -> CheckFailed:
        """A run that ended by itself, and what it said last."""
        last = self._log.read_text().strip().split('\n')[-1]
        return CheckFailed(f'a run ended with status {process.returncode}: {last}')


def _kill_often(
    launch: _Launch,
    folder: Path,
    whole: Path,
    steps: int,
    kills: int,
    seconds: float,
    rng: random.Random,
) -> list[str]:
    """Trains in `folder` through so many kills; returns the kind of moment that each came at.

    A process that was at the end of the run already is not one of them.
    """
    rows = [row for row in read_rows(whole / 'metrics.jsonl') if 'seconds' in row]
    pace = (rows[-1]['seconds'] - rows[0]['seconds']) / steps
    starting = max(seconds - rows[-1]['seconds'], 1.0)
    moments = []
    for number, kind in zip(range(kills), itertools.cycle(_KINDS), strict=False):
        target, started = 1 + number * (steps - 1) // kills, time.time()
        with launch.start(folder) as process:
            if kind == 'starting':
                time.sleep(rng.uniform(0, starting))
            else:
                _wait(
                    process,
                    lambda at=target, since=started: _trains(folder, since, at),
                    _PATIENCE * 10,
                )
                _wait_for_moment(process, kind, folder, started, rng.uniform(0, 2 * pace))
            ended = process.poll()
            if ended not in (None, 0):
                raise launch.failure(process)
            process.send_signal(signal.SIGKILL)
            process.wait()
        if ended is None:
            moments.append(_kind_of(folder, started))
            done = f'killed {len(moments)} of {kills} times'
            print(f'{done}, at step {_last_step(folder)}: {moments[-1]}', flush=True)
    launch.finish(folder)
    return moments


def _wait_for_moment(
    process: subprocess.Popen, kind: str, folder: Path, started: float, delay: float
) -> None:
    if kind == 'writing':
        _wait(process, lambda: _writes(folder, started), _PATIENCE)
    elif kind == 'deleting':
        trash = folder / 'checkpoints' / 'trash'
        _wait(process, lambda: any(trash.glob('*')), _PATIENCE)
        full = _num_files(trash)
        _wait(process, lambda: _num_files(trash) < full, _PATIENCE)
    else:
        time.sleep(delay)


def _trains(folder: Path, started: float, step: int = 0) -> bool:
    """Whether the process that was started then has come to its steps, and to this one."""
    rows = folder / 'metrics.jsonl'
    return rows.exists() and rows.stat().st_mtime > started and _last_step(folder) >= step


def _writes(folder: Path, started: float) -> bool:
    """Whether there is a checkpoint that the process began and has not finished."""
    for unfinished in (folder / 'checkpoints').glob('*tmp*'):
        with contextlib.suppress(FileNotFoundError):  # just finished
            if unfinished.stat().st_mtime > started:
                return True
    return False


def _wait(process: subprocess.Popen, condition: Callable[[], bool], seconds: float) -> None:
    """Returns when the condition holds, the process has ended, or so many seconds are over."""
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline and not condition():
        time.sleep(0.0005)


def _kind_of(folder: Path, started: float) -> str:
    """What the kill interrupted in the process that was started then, by what it left behind."""
    if not _trains(folder, started):
        return 'starting'
    if _writes(folder, started):
        return 'writing'
    return 'deleting' if _num_files(folder / 'checkpoints' / 'trash') else 'anywhere'


def _num_files(folder: Path) -> int:
    return sum(len(files) for _, _, files in os.walk(folder))


def _last_step(folder: Path) -> int:
    rows = read_rows(folder / 'metrics.jsonl')
    return rows[-1]['step'] if rows else 0


def _hashes(folder: Path) -> dict[str, str]:
    """A hash of each part of what a run left."""
    parts = {}
    kept = _manifests(folder, 'checkpoints')
    for path, leaf in kept[max(kept)].items():
        parts.setdefault(path.split('/')[0], {})[path] = leaf
    parts['data position'] = parts.pop('step')
    if (folder / 'averages').is_dir():
        parts['snapshots'] = _manifests(folder, 'averages')
    rows = read_rows(folder / 'metrics.jsonl')
    parts['metrics rows'] = [{n: v for n, v in row.items() if n not in _CLOCK} for row in rows]
    parts['previews'] = [
        (file.name, hashlib.sha256(file.read_bytes()).hexdigest())
        for file in sorted((folder / 'samples').iterdir())
        if file.suffix != PARTIAL
    ]
    parts['checkpoints kept'] = kept
    return {
        part: hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
        for part, value in parts.items()
    }


def _manifests(folder: Path, name: str) -> dict[int, dict]:
    """What each checkpoint of this kind holds, by its step.

    Raises:
      CheckFailed: one of them holds something else, or there is none.
    """
    with Checkpoints(folder, read_only=True, name=name) as checkpoints:
        faults = {step: checkpoints.fault_of(step) for step in checkpoints.steps()}
        for step, fault in faults.items():
            if fault is not None:
                raise CheckFailed(f'{checkpoints.folder / str(step)} is damaged: {fault}')
        if not faults:
            raise CheckFailed(f'{checkpoints.folder}: there is none')
        return {step: dict(checkpoints.manifest_of(step)) for step in faults}


def _compare(whole: dict[str, str], killed: dict[str, str]) -> list[dict]:
    return [
        {'part': part, 'whole': whole.get(part), 'killed': killed.get(part)}
        | {'equal': whole.get(part) == killed.get(part)}
        for part in whole | killed
    ]


def _move(
    launch: _Launch, config, folder: Path, whole: Path, steps: int
) -> tuple[list[int], float | None]:
    """Trains on one number of devices after the other; these, and how far the losses are apart."""
    kind = workdirs.facts(whole)['starts'][0]['devices']
    devices = [number for number in DEVICES if _fits(config, number)]
    if config.parallel.strategy != 'jit' or 'cpu' not in kind.lower() or len(devices) < 2:
        return [], None
    for turn, number in enumerate(devices, 1):
        end = steps * turn // len(devices)
        without = [f'--config.train.{name}=None' for name in _CADENCES]  # losses are compared
        launch.finish(folder, f'--config.train.num_steps={end}', *without, devices=number)
    return devices, _largest_difference(_losses(whole), _losses(folder))


def _fits(config, num_devices: int) -> bool:
    """Whether the mesh and the batches can be split over so many devices."""
    axes = config.parallel
    try:
        parallel.axis_sizes(num_devices, axes.data, axes.fsdp, axes.tensor)
    except InputError:
        return False
    batch = config.data.batch_size // config.train.accumulate
    return batch % num_devices == 0 and config.evaluate.batch_size % num_devices == 0


def _losses(folder: Path) -> dict[tuple[int, str], float]:
    return {
        (row['step'], name): value
        for row in read_rows(folder / 'metrics.jsonl')
        for name, value in row.items()
        if name.endswith('/loss') and not name.startswith('eval/') and value is not None
    }


def _largest_difference(losses: dict, others: dict) -> float:
    """Over the rows of `losses`; `others` have more, one at the end on each number of devices."""
    if not losses or not losses.keys() <= others.keys():
        return float('inf')
    return max(abs(others[at] - loss) / max(abs(loss), 1e-12) for at, loss in losses.items())


def _show(certificate: dict) -> None:
    kinds = ', '.join(f'{number} {kind}' for kind, number in certificate['kills'].items())
    print(f'{"part":20}{"never killed":20}{"killed":20}equal')
    for row in certificate['parts']:
        word = 'yes' if row['equal'] else 'NO'
        print(f'{row["part"]:20}{row["whole"] or "-":20}{row["killed"] or "-":20}{word}')
    print(f'{sum(certificate["kills"].values())} kills: {kinds}; {certificate["steps"]} steps')
    most = certificate['largest_relative_difference_of_losses']
    if most is None:
        print(
            'other device counts: not tried (they need virtual devices of a CPU, jit, and a mesh '
            f'and batches that can be split over two of {DEVICES})'
        )
    else:
        moved = ' -> '.join(map(str, certificate['devices']))
        print(f'on {moved} devices: losses within {most:.1e}, relative (limit {TOLERANCE:g})')
