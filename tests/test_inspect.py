"""`--mode=inspect`: what lies in a workdir, and a bit that was flipped in it."""

import importlib

import pytest

from gen_jax.checkpoint import restore_for_use
from gen_jax.errors import CheckFailed, InputError
from gen_jax.inspect import inspect
from gen_jax.run import assemble
from gen_jax.train import train


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """A config and the folder that it was trained in, for three steps."""
    config = importlib.import_module('configs.ddpm_8gaussians').get_config('smoke')
    config.train.update(sample_every=None, evaluate_every=None, score_every=None)
    config.train.checkpoint_every = 1
    folder = tmp_path_factory.mktemp('run')
    train(config, folder)
    return config, folder


def flip_a_bit_of_the_values(folder) -> None:
    path = max((folder / 'state' / 'd').iterdir(), key=lambda p: p.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def test_every_checkpoint_is_listed_with_its_size_and_found_sound(run, launch):
    _, folder = run
    done = launch('--mode=inspect', f'--workdir={folder}')
    assert done.returncode == 0, done.stderr
    assert 'step 3 of 3' in done.stdout
    for step in (1, 2, 3):
        assert f'checkpoints/{step}: ' in done.stdout
        assert f'averages/{step}: ' in done.stdout
    assert done.stdout.count(', sound') == 6
    found = inspect(folder)
    assert all(entry['bytes'] > 1000 and entry['fault'] is None for entry in found)


def test_a_config_that_differs_is_shown_field_by_field(run, launch):
    _, folder = run
    done = launch(
        '--mode=inspect',
        '--config=configs/ddpm_8gaussians.py:smoke',
        '--config.optim.model.learning_rate=0.5',
        f'--workdir={folder}',
    )
    assert done.returncode == 0, done.stderr
    assert 'optim.model.learning_rate is 0.001 there and 0.5 here' in done.stdout


def test_a_flipped_bit_is_found_and_the_checkpoint_before_is_used(run, launch, capsys):
    config, folder = run
    flip_a_bit_of_the_values(folder / 'checkpoints' / '3')
    with pytest.raises(CheckFailed, match='damaged: checkpoints/3;'):
        inspect(folder)
    assert 'checkpoints/3: ' in (shown := capsys.readouterr().out) and 'DAMAGED' in shown
    assert int(restore_for_use(assemble(config).template, folder).step) == 2
    assert 'checkpoint 3 is damaged' in capsys.readouterr().err


def test_a_folder_of_no_run_is_refused(tmp_path, launch):
    with pytest.raises(InputError, match='not of a run'):
        inspect(tmp_path)
    done = launch('--mode=inspect')
    assert done.returncode == 2 and '--config' in done.stderr
