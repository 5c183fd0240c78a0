"""Jobs as they would be handed to Slurm, run here."""

import sys
from pathlib import Path

import pytest

from gen_jax.errors import InputError
from gen_jax.sweeps.runner import DONE, task_of, write_trials
from gen_jax.sweeps.slurm import submit
from gen_jax.sweeps.study import Study, grid, trials

pytest.importorskip('submitit')
ROOT = Path(__file__).parents[2]
CONFIG = 'configs/ddpm_8gaussians.py:smoke'


def test_each_missing_trial_is_a_job_that_runs_it(tmp_path, monkeypatch):
    echo = tmp_path / 'echo.py'
    echo.write_text('import sys; print("asked", *sys.argv[1:])')
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
    words = [job.result() for job in jobs]
    assert [text.split()[-1] for text in words] == ['--sweep_index=0', '--sweep_index=2']
    assert f'--workdir={folder}' in words[0] and '--retries=2' in words[0]
    assert f'--sweep={tmp_path / "sweep.py"}' in words[0]


@pytest.mark.parametrize(
    ('options', 'complaint'),
    [(['timeout'], "'timeout' is no option"), (['cluster=local', 'nothing=3'], 'nothing')],
)
def test_other_options_are_refused(tmp_path, options, complaint):
    with pytest.raises(InputError) as error:
        submit([], tmp_path / 'sweep.py', tmp_path, options, [])
    assert '--slurm' in str(error.value) and complaint in str(error.value)
