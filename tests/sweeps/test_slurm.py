"""Jobs as they would be handed to Slurm, run here."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from gen_jax.errors import InputError
from gen_jax.sweeps.runner import DONE, task_of, write_trials
from gen_jax.sweeps.slurm import Job, submit
from gen_jax.sweeps.study import Study, grid, trials

pytest.importorskip('submitit')
ROOT = Path(__file__).parents[2]
CONFIG = 'configs/ddpm_8gaussians.py:smoke'


def test_each_missing_trial_is_a_job_that_runs_it(tmp_path, monkeypatch):
    echo = tmp_path / 'echo.py'
    echo.write_text(f'import sys; open({str(tmp_path)!r} + sys.argv[-1], "w").write(str(sys.argv))')
    monkeypatch.setattr(sys, 'argv', [str(echo)])
    asked = trials(Study(CONFIG, grid({'ema.decay': (0.9, 0.99, 0.999)})))
    folder = tmp_path / 'runs'
    write_trials(asked, folder)
    (folder / asked[1].name).mkdir()
    (folder / asked[1].name / DONE).write_text('{}')
    jobs = submit(
        *([task_of(trial, folder) for trial in asked], tmp_path / 'sweep.py', folder),
        *(['cluster=local', 'timeout_min=1'], ['--retries=2']),
    )
    for job in jobs:
        job.result()
    said = [Path(f'{tmp_path}--sweep_index={index}') for index in range(3)]
    assert [path.exists() for path in said] == [True, False, True]
    words = said[0].read_text()
    assert f'--workdir={folder}' in words and '--retries=2' in words
    assert f'--sweep={tmp_path / "sweep.py"}' in words


def test_at_its_time_limit_a_job_saves_and_is_handed_in_again(tmp_path):
    """The command here ends when it is asked to, and says so."""
    text = (
        'import signal, sys, time, pathlib\n'
        f'folder = pathlib.Path({str(tmp_path)!r})\n'
        'signal.signal(15, lambda *_: ((folder / "saved").touch(), sys.exit(75)))\n'
        '(folder / "began").touch()\n'
        'time.sleep(60)\n'
    )
    job = Job([sys.executable, '-c', text])
    job.process = subprocess.Popen(job.words)
    while not (tmp_path / 'began').exists():
        time.sleep(0.01)
    again = job.checkpoint()
    assert (tmp_path / 'saved').exists() and job.process.returncode == 75
    assert again.function.words == job.words
    with pytest.raises(RuntimeError, match='status 3'):
        Job([sys.executable, '-c', 'import sys; sys.exit(3)'])()


@pytest.mark.parametrize(
    ('options', 'complaint'),
    [(['timeout'], "'timeout' is no option"), (['cluster=local', 'nothing=3'], 'nothing')],
)
def test_other_options_are_refused(tmp_path, options, complaint):
    with pytest.raises(InputError) as error:
        submit([], tmp_path / 'sweep.py', tmp_path, options, [])
    assert '--slurm' in str(error.value) and complaint in str(error.value)
