"""Trials as processes: whatever is killed, nothing is lost and nothing is done twice."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from gen_jax.errors import CheckFailed, InputError, Preempted
from gen_jax.sweep import alone, sweep
from gen_jax.sweeps import pool, results
from gen_jax.sweeps.configs import config_of
from gen_jax.sweeps.report import report
from gen_jax.sweeps.runner import (
    DONE,
    Place,
    Task,
    mark_done,
    mark_failed,
    outcome_of,
    read_trials,
    run_task,
    task_of,
    write_trials,
)
from gen_jax.sweeps.study import Study, grid, make_trial, trials
from gen_jax.workdir import config_values
from gen_jax.writers import write_json

ROOT = Path(__file__).parents[2]
STAND_IN = Path(__file__).with_name('stand_in.py')
CONFIG = 'configs/ddpm_8gaussians.py:smoke'
RATE = 'optim.model.learning_rate'


@pytest.fixture(autouse=True)
def stand_in(monkeypatch):
    """Trials run the stand-in."""
    monkeypatch.setattr(sys, 'argv', [str(STAND_IN)])


def study(*rates: float, seeds: int = 1, num_steps: int = 5) -> Study:
    points = grid({RATE: rates, 'train.num_steps': (num_steps,)})
    return Study(CONFIG, points, seeds, metrics=('SW',))


def run_all(asked, folder: Path, workers: int, retries: int):
    """Each trial by itself."""
    return pool.run_all([task_of(trial, folder) for trial in asked], folder, workers, retries)


def starts(folder: Path) -> dict[str, int]:
    return {path.parent.name: len(path.read_text()) for path in folder.glob('*/starts')}


def write_study(folder: Path, *rates: float, seeds: int = 1) -> Path:
    file = folder / 'sweep.py'
    file.write_text(
        'from gen_jax.sweeps.study import Study, grid\n'
        'def sweep():\n'
        f'    return Study({CONFIG!r}, grid({{{RATE!r}: {rates}}}), {seeds}, ("SW",))\n'
    )
    return file


def test_a_second_start_runs_only_what_is_missing(tmp_path):
    asked = trials(study(0.1, 0.2, seeds=2))
    ended = run_all(asked[:3], tmp_path, workers=2, retries=0)
    assert [outcome.state for outcome in ended] == ['done'] * 3
    assert len(starts(tmp_path)) == 3
    ended = run_all(asked, tmp_path, workers=2, retries=0)
    assert [outcome.state for outcome in ended] == ['done'] * 4
    assert starts(tmp_path) == {trial.name: 1 for trial in asked}


@pytest.mark.parametrize(('field', 'value'), [('num_steps', 6), ('accumulate', 2)])
def test_a_trial_that_is_done_by_other_numbers_is_refused(field, value, tmp_path):
    """It would not be trained again, and stand in the table beside those that are."""
    folder = tmp_path / 'runs'
    sweep(write_study(tmp_path, 0.1), folder)
    (trial,) = read_trials(folder)
    config = config_of(trial)
    now, config.train[field] = config.train[field], value
    write_json(folder / trial.name / 'config.json', config_values(config))
    with pytest.raises(InputError) as error:
        sweep(write_study(tmp_path, 0.1, 0.2), folder)
    said = f'train.{field} is {value} there and {now} here; use the same values or another'
    assert said in str(error.value) and trial.name in str(error.value)
    (folder / trial.name / DONE).unlink()  # then it may go on
    sweep(write_study(tmp_path, 0.1, 0.2), folder)


def test_a_crash_is_reported_with_its_last_lines_and_stops_nobody(tmp_path):
    file, folder = write_study(tmp_path, 0.1, 666.0, 0.2), tmp_path / 'runs'
    with pytest.raises(CheckFailed) as error:
        sweep(file, folder, workers=1, retries=2)
    said = str(error.value)
    assert said.startswith('1 of 3 trials failed') and 'the planted fault' in said
    assert 'learning_rate=666-seed=0' in said and 'status 1' in said
    assert sorted(starts(folder).values()) == [1, 1, 3]
    rows = results.rows_of(('SW',), read_trials(folder), folder)
    assert [row['status'] for row in rows] == ['done', 'failed (1)', 'done']
    assert [row['SW'] for row in rows] == ['10', '', '20']


def test_a_trial_that_crashes_once_is_started_again(tmp_path):
    (ended,) = run_all(trials(study(111.0)), tmp_path, workers=1, retries=1)
    assert ended.state == 'done' and [*starts(tmp_path).values()] == [2]


def test_a_trial_that_was_asked_to_end_alone_is_started_again_whatever_the_retries(tmp_path):
    (ended,) = run_all(trials(study(75.0)), tmp_path, workers=1, retries=0)
    assert ended.state == 'done' and [*starts(tmp_path).values()] == [2]


def test_a_trial_that_is_neither_done_nor_failed_is_no_success(tmp_path, monkeypatch):
    monkeypatch.setattr('gen_jax.sweep.run_all', lambda *_: [])
    with pytest.raises(Preempted, match=r'1 of 1 trials stopped: learning_rate=0\.1'):
        sweep(write_study(tmp_path, 0.1), tmp_path / 'runs')


def test_a_trial_that_diverged_is_a_result_and_not_tried_again(tmp_path):
    asked = trials(study(333.0))
    for _ in range(2):
        (ended,) = run_all(asked, tmp_path, workers=1, retries=3)
        assert (ended.state, ended.status, ended.lines[-2]) == ('failed', 3, 'error: not finite')
    assert [*starts(tmp_path).values()] == [1]


def test_one_trial_by_its_index(tmp_path):
    file, folder = write_study(tmp_path, 0.1, 0.2, 0.3), tmp_path / 'runs'
    sweep(file, folder, index=1)
    assert [name[:17] for name in starts(folder)] == ['learning_rate=0.2']
    with pytest.raises(InputError, match='there are 0 to 2'):
        sweep(file, folder, index=3)


def test_processors_and_gpus_are_shared_out(monkeypatch):
    monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: {0, 1, 2, 3, 4})
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '2,5')
    found = [*pool.places(3)]
    assert [place.cpus for place in found] == [{0, 3}, {1, 4}, {2}]
    assert [place.environment['CUDA_VISIBLE_DEVICES'] for place in found] == ['2', '5', '2']
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')
    assert [*pool.places(1)] == [Place(None, {})]


def test_a_mark_that_another_start_left_does_not_stand_against_what_was_done(tmp_path):
    (trial,) = trials(study(0.1))
    mark_failed(trial, tmp_path, 2, ['another process is training'])
    (tmp_path / trial.name).mkdir()
    mark_done(trial, tmp_path, 1.0)
    assert outcome_of(trial, tmp_path).state == 'done'
    assert not [*(tmp_path / 'failed').iterdir()]


def test_of_a_group_one_that_diverged_stays_so(tmp_path):
    fine, wild = trials(study(0.1, 0.2))
    mark_failed(wild, tmp_path, 3, ['error: not finite'])
    group = Task('both', (fine, wild), task_of(fine, tmp_path).commands)
    ended = run_task(group, tmp_path, Place(), 0, threading.Event())
    assert [outcome.state for outcome in ended] == ['done', 'failed']
    assert not (tmp_path / wild.name).exists()


def test_a_sweep_is_alone_in_its_folder(tmp_path):
    """What is refused leaves the plan of what is at work."""
    file, folder = write_study(tmp_path, 0.1), tmp_path / 'runs'
    write_trials(trials(study(0.2)), folder)
    before = read_trials(folder)
    with alone(folder), pytest.raises(InputError, match='another process'):
        sweep(file, folder)
    with alone(folder), pytest.raises(InputError, match='another process'):
        sweep(file, folder, slurm=['cluster=local'])
    assert read_trials(folder) == before


def test_of_jobs_by_index_none_takes_another_ones_trials_from_the_plan(tmp_path):
    folder = tmp_path / 'runs'
    sweep(write_study(tmp_path, 0.1, 0.2), folder, index=0)
    sweep(write_study(tmp_path, 0.3, 0.1, 0.2), folder, index=0)  # more points
    before = read_trials(folder)
    with pytest.raises(InputError, match=r'sweep\.json has a trial that is none of this study'):
        sweep(write_study(tmp_path, 0.1), folder, index=0)
    assert read_trials(folder) == before and len(starts(folder)) == 2


def test_asking_to_stop_leaves_the_rest_for_the_next_start(tmp_path):
    trial, stopping = trials(study(0.1, num_steps=500))[0], threading.Event()

    def started(process):
        stopping.set()
        process.terminate()

    (ended,) = run_task(task_of(trial, tmp_path), tmp_path, Place(), 0, stopping, started)
    assert ended.state == 'stopped'
    assert not (tmp_path / trial.name / DONE).exists()
    assert not (tmp_path / 'failed').exists()


DRIVER = """
import sys
sys.path.insert(0, {root!r})
sys.argv = [{stand_in!r}]
from pathlib import Path
from gen_jax.sweeps.pool import run_all
from gen_jax.sweeps.runner import read_trials, task_of
folder = Path({folder!r})
print('ready', flush=True)
run_all([task_of(trial, folder) for trial in read_trials(folder)], folder, workers=2, retries=1)
"""


def start_driver(folder: Path) -> subprocess.Popen:
    text = DRIVER.format(root=str(ROOT), stand_in=str(STAND_IN), folder=str(folder))
    process = subprocess.Popen([sys.executable, '-c', text], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == 'ready\n'
    return process


def children_of(pid: int) -> list[int]:
    found = subprocess.run(['pgrep', '-P', str(pid)], capture_output=True, text=True).stdout
    return [int(word) for word in found.split()]


def lives(pid: int) -> bool:
    """Whether the process runs; one that nobody has buried yet does not."""
    try:
        return Path(f'/proc/{pid}/stat').read_text().rsplit(')')[-1].split()[0] != 'Z'
    except FileNotFoundError:
        return False


def test_killed_parents_and_children_leave_the_same_results(tmp_path):
    """A parent is killed three times at random, and a child of it before that; nobody trains on
    behind it, and every step of every trial was taken once."""
    # Of 25 steps, which take half a second: the three rounds of kills end before the trials do.
    asked = trials(study(0.1, 0.2, 0.3, seeds=4, num_steps=25))
    whole, killed = tmp_path / 'a', tmp_path / 'b'
    for folder in (whole, killed):
        write_trials(asked, folder)
    assert start_driver(whole).wait() == 0
    rng = random.Random(0)
    for _ in range(3):
        process = start_driver(killed)
        time.sleep(rng.uniform(0.1, 0.5))
        for child in children_of(process.pid)[:1]:
            with contextlib.suppress(ProcessLookupError):  # just ended
                os.kill(child, signal.SIGKILL)
        time.sleep(rng.uniform(0.0, 0.3))
        children = children_of(process.pid)
        process.kill()
        process.wait()
        deadline = time.monotonic() + 10
        while any(map(lives, children)) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not any(map(lives, children))
    done = len([*killed.glob(f'*/{DONE}')])
    assert done < len(asked)
    assert start_driver(killed).wait() == 0
    written = []
    for folder in (whole, killed):
        path = folder / 'results.csv'
        results.write(results.rows_of(('SW',), read_trials(folder), folder), path)
        written.append(path.read_text())
    assert written[0] == written[1] and written[0].count('done') == 12
    for rows in killed.glob('*/metrics.jsonl'):
        steps = [json.loads(line)['step'] for line in rows.read_text().splitlines()]
        assert steps == [*range(1, 26)]


def test_a_study_through_the_door(launch, tmp_path):
    file = write_study(tmp_path, 1e-3)
    flags = (f'--sweep={file}', f'--workdir={tmp_path / "runs"}')
    done = launch('--mode=sweep', *flags)
    assert done.returncode == 0, done.stderr
    assert '1 trials, 1 to run' in done.stdout and '(1 of 1 done)' in done.stdout
    report(file, tmp_path / 'runs')
    assert '| baseline |' in (tmp_path / 'table.md').read_text()
    refused = launch('--mode=sweep', *flags, f'--config={CONFIG}')
    assert refused.returncode == 2 and '--config: the study names its own' in refused.stderr
    with pytest.raises(InputError, match='--workers: 0 must be 1 or more'):
        sweep(file, tmp_path, workers=0)


def test_trials_are_read_as_they_were_written(tmp_path):
    asked = trials(Study(CONFIG, [{'ema.lengths': (0.05, 0.1), 'data.data_dir': None}], seeds=2))
    write_trials(asked, tmp_path)
    assert read_trials(tmp_path) == asked
    (tmp_path / 'sweep.json').write_text('{"trials": [{"name": 1}]}')
    with pytest.raises(InputError, match='is not of a sweep'):
        read_trials(tmp_path)


def test_a_trial_keeps_its_name_when_points_are_added():
    few, more = trials(study(0.1, 0.2)), trials(study(0.3, 0.1, 0.2))
    assert {trial.name for trial in few} < {trial.name for trial in more}
    assert make_trial(5, CONFIG, few[0].fields).name == few[0].name
