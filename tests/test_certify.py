"""The certificate: killed and resumed is never killed, and other devices are the same run."""

import importlib
import json
import os
import random
import sys
import time

import pytest

from gen_jax import certify
from gen_jax.errors import CheckFailed, InputError
from gen_jax.train import train


@pytest.mark.parametrize(
    ('config', 'kills'),
    [('gan_8gaussians', 1), ('gpt_modern_shakespeare_char_cpu', 1)],
    ids=str,
)
def test_a_run_of_this_family_is_certified(config, kills, launch, tmp_path):
    folder = tmp_path / 'certificate'
    done = launch(
        f'--config=configs/{config}.py:smoke',
        '--mode=certify',
        '--steps=40',
        f'--kills={kills}',
        f'--workdir={folder}',
    )
    assert done.returncode == 0, done.stdout + done.stderr
    certificate = json.loads((folder / 'certificate.json').read_text())
    assert sum(certificate['kills'].values()) == kills
    parts = {row['part'] for row in certificate['parts']}
    assert {'params', 'opt_state', 'ema_params', 'key', 'data position', 'metrics rows'} <= parts
    assert all(row['equal'] and row['whole'] for row in certificate['parts'])
    assert certificate['devices'] == [8, 1, 2]
    starts = json.loads((folder / 'moved' / 'run.json').read_text())['starts']
    assert [start['devices'][0] for start in starts] == ['8', '1', '2']
    assert certificate['largest_relative_difference_of_losses'] < 1e-5
    killed = json.loads((folder / 'killed' / 'run.json').read_text())['starts']
    assert len(killed) >= 2


def tiny(seed: int):
    config = importlib.import_module('configs.ddpm_8gaussians').get_config('smoke')
    with config.unlocked():
        config.seed = seed
    config.train.update(sample_every=None, evaluate_every=None, score_every=None)
    return config


def test_runs_that_differ_are_told_apart(tmp_path):
    """What a certificate could miss: hashes that are equal whatever is hashed."""
    for name, seed in (('one', 0), ('again', 0), ('other', 1)):
        train(tiny(seed), tmp_path / name)
    (tmp_path / 'again' / 'samples' / 'step_00000003.png.host-1.partial').touch()  # of a kill
    one, again, other = (certify._hashes(tmp_path / name) for name in ('one', 'again', 'other'))
    assert one == again
    equal = {row['part'] for row in certify._compare(one, other) if row['equal']}
    # Both runs have done as many steps and kept as many checkpoints, and nothing was skipped.
    assert equal <= {'data position', 'guard', 'checkpoints kept', 'previews'}
    assert {'params', 'opt_state', 'ema_params', 'key', 'metrics rows', 'snapshots'} <= one.keys()


def test_losses_that_differ_or_are_missing_are_seen():
    losses = {(1, 'model/loss'): 2.0, (2, 'model/loss'): 1.0}
    assert certify._largest_difference(losses, dict(losses)) == 0
    moved = losses | {(2, 'model/loss'): 1.001}
    assert certify._largest_difference(losses, moved) == pytest.approx(1e-3)
    assert certify._largest_difference(losses, {(1, 'model/loss'): 2.0}) == float('inf')
    assert certify._largest_difference(losses, losses | {(3, 'model/loss'): 9.0}) == 0
    assert certify._largest_difference({}, {}) == float('inf')


def test_the_kind_of_a_kill_is_what_it_interrupted(tmp_path):
    """Leftovers of a process before this one do not count."""
    rows = tmp_path / 'metrics.jsonl'
    unfinished = tmp_path / 'checkpoints' / '4.orbax-checkpoint-tmp-0'
    unfinished.mkdir(parents=True)
    rows.write_text('{"step": 4}\n')
    past, started = time.time() - 100, time.time() - 50
    os.utime(rows, (past, past))
    os.utime(unfinished, (past, past))
    assert certify._kind_of(tmp_path, started) == 'starting'
    rows.touch()
    assert certify._kind_of(tmp_path, started) == 'anywhere'
    (tmp_path / 'checkpoints' / 'trash' / '2').mkdir(parents=True)
    assert certify._kind_of(tmp_path, started) == 'anywhere'
    (tmp_path / 'checkpoints' / 'trash' / '2' / 'file').touch()
    assert certify._kind_of(tmp_path, started) == 'deleting'
    unfinished.touch()
    assert certify._kind_of(tmp_path, started) == 'writing'
    assert certify._trains(tmp_path, started, 4) and not certify._trains(tmp_path, started, 5)


def test_a_process_that_had_ended_is_no_kill(tmp_path, monkeypatch):
    whole = tmp_path / 'whole'
    whole.mkdir()
    (whole / 'metrics.jsonl').write_text('{"step": 1, "seconds": 0.1}\n{"step": 9, "seconds": 1}')
    launch = certify._Launch(tmp_path, [])
    monkeypatch.setattr(launch, '_command', [sys.executable, '-c', 'pass'])
    monkeypatch.setattr(certify, '_wait_for_moment', lambda process, *_: process.wait())
    ended = certify._kill_often(launch, tmp_path / 'killed', whole, 12, 3, 1.0, random.Random(0))
    assert ended == []


@pytest.mark.parametrize(
    ('axes', 'fitting'),
    [
        ({}, [8, 1, 2]),
        ({'fsdp': 2}, [8, 2]),
        ({'data': 1, 'fsdp': -1}, [8, 1, 2]),
        ({'data': 2}, [2]),
    ],
    ids=str,
)
def test_only_devices_that_the_mesh_can_take_are_tried(axes, fitting):
    config = tiny(0)
    config.parallel.update(axes)
    assert [number for number in certify.DEVICES if certify._fits(config, number)] == fitting


@pytest.mark.parametrize(
    ('given', 'words'),
    [
        (
            ['--config=a.py', '--config.train.x=1', '--kills=2'],
            ['--config=a.py', '--config.train.x=1'],
        ),
        (['--config', 'a.py', '--config.seed', '-1'], ['--config', 'a.py', '--config.seed', '-1']),
        (
            ['--config.remat', '--mode=certify', '--noconfig.scan'],
            ['--config.remat', '--noconfig.scan'],
        ),
    ],
    ids=str,
)
def test_the_runs_get_the_words_on_the_config_and_no_others(given, words, monkeypatch):
    import launch as door

    monkeypatch.setattr(sys, 'argv', ['launch.py', *given])
    assert door.config_words() == words


def test_a_run_that_fails_by_itself_fails_the_certificate(launch, tmp_path):
    done = launch(
        '--config=configs/ddpm_8gaussians.py:smoke',
        '--config.data.name=nothing_of_this_name',
        '--mode=certify',
        f'--workdir={tmp_path / "certificate"}',
    )
    assert done.returncode == CheckFailed.status
    assert 'ended with status 2: error: data.name' in done.stderr


def test_a_folder_in_use_a_file_and_too_few_steps_are_refused(tmp_path):
    (tmp_path / 'something').touch()
    with pytest.raises(InputError, match='is not empty'):
        certify.certify(tiny(0), tmp_path, [])
    with pytest.raises(InputError, match='something cannot be written'):
        certify.certify(tiny(0), tmp_path / 'something', [])
    with pytest.raises(InputError, match='--steps'):
        certify.certify(tiny(0), tmp_path / 'new', [], steps=3)
