"""The average that was asked for, after training, is the one that would have been kept."""

import importlib

import jax
import numpy as np
import pytest

from gen_jax.errors import InputError
from gen_jax.run import assemble
from gen_jax.train import train
from gen_jax.trained import trained


def tiny(**ema):
    config = importlib.import_module('configs.ddpm_8gaussians').get_config('smoke')
    config.train.update(sample_every=None, evaluate_every=None, score_every=None)
    config.train.update(num_steps=60, checkpoint_every=20, keep_checkpoints=None)
    config.optim.model.warmup_steps = 1
    config.ema.update(ema)
    return config


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """A config with snapshots at every third step, and the folder that it was trained in."""
    folder, config = tmp_path_factory.mktemp('run'), tiny(snapshot_every=3)
    train(config, folder)
    return config, folder


def distance(a, b) -> float:
    flat = [np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(t)]) for t in (a, b)]
    return float(np.linalg.norm(flat[0] - flat[1]))


def moved(state) -> float:
    """How far training moved the weights, as the scale of an error."""
    return distance(state.params, state.power_ema[1])


def test_a_length_that_was_not_kept_is_the_one_that_would_have_been(run, tmp_path):
    config, folder = run
    kept = train(tiny(snapshot_every=60, lengths=(0.07, 0.15)), tmp_path)
    for index, length in enumerate((0.07, 0.15)):
        made = trained(assemble(config), config, folder, ema_length=length)
        assert f'length {length:g}' in made.average
        error = distance(made.state.ema_params, kept.power_ema[index])
        assert error < 0.02 * moved(made.state)
        others = (distance(kept.power_ema[index], other) for other in made.state.power_ema)
        assert error < 0.1 * min(others)


def test_a_length_that_was_kept_comes_back_as_it_was(run):
    config, folder = run
    made = trained(assemble(config), config, folder, ema_length=0.1)
    assert distance(made.state.ema_params, made.state.power_ema[1]) < 1e-5


def test_an_earlier_checkpoint_has_the_average_up_to_it(run, tmp_path):
    config, folder = run
    shorter = tiny(snapshot_every=60, lengths=(0.07, 0.15))
    shorter.train.num_steps = 40
    kept = train(shorter, tmp_path)
    made = trained(assemble(config), config, folder, '40', ema_length=0.07)
    assert distance(made.state.ema_params, kept.power_ema[0]) < 0.02 * moved(made.state)


def test_without_a_length_it_is_the_average_of_the_run(run):
    config, folder = run
    made = trained(assemble(config), config, folder)
    assert made.average.startswith(f'decay {config.ema.decay:g}')


def test_lengths_that_cannot_be_made_are_refused(run, tmp_path):
    config, folder = run
    assembled = assemble(config)
    with pytest.raises(InputError, match=r'--ema_length: 0.5 must be above 0 and at most 0.289'):
        trained(assembled, config, folder, ema_length=0.5)
    with pytest.raises(InputError, match=r'--ema_length: .* can only be made \d+% off'):
        trained(assembled, config, folder, ema_length=0.002)
    without = tiny(snapshot_every=None)
    without.train.num_steps = 1
    train(without, tmp_path)
    with pytest.raises(InputError, match=r'train with ema\.snapshot_every set'):
        trained(assemble(without), without, tmp_path, ema_length=0.1)


def test_samples_and_evaluations_take_a_length(run, launch):
    _, folder = run
    flags = ['--config=configs/ddpm_8gaussians.py:smoke', f'--workdir={folder}']
    flags += ['--config.ema.snapshot_every=3', '--config.optim.model.warmup_steps=1']
    drawn = {}
    for length in (None, 0.07):
        out = folder / f'{length}.npz'
        chosen = [] if length is None else [f'--ema_length={length}']
        done = launch(*flags, '--mode=sample', f'--out={out}', *chosen)
        assert done.returncode == 0, done.stderr
        drawn[length] = np.load(out)['x']
    assert not np.array_equal(drawn[None], drawn[0.07])
    done = launch(*flags, '--mode=evaluate', '--ema_length=0.07')
    assert done.returncode == 0, done.stderr
    assert 'average of length 0.07' in done.stderr
