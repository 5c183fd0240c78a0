"""Sampling: the same samples on any number of devices, and labels that go with them."""

import importlib

import jax
import numpy as np
import pytest

from gen_jax.errors import InputError
from gen_jax.run import assemble, initialize, labels_for
from gen_jax.sample import make_sampler, sample
from gen_jax.train import train


@pytest.fixture(scope='module')
def config():
    return importlib.import_module('configs.ddpm_digits').get_config('smoke')


def stirred(state):
    """Averaged weights moved at random: at the start the output is zero, whatever goes in."""
    rng = np.random.default_rng(0)
    ema_params = jax.tree.map(
        lambda leaf: leaf + 0.1 * rng.normal(size=leaf.shape).astype(leaf.dtype), state.ema_params
    )
    return state.replace(ema_params=ema_params)


def test_samples_are_the_same_on_one_and_eight_devices(config):
    """With a batch that eight does not divide, and a last one that is not full."""
    drawn = []
    for num_devices in (1, 8):
        run = assemble(config, jax.devices()[:num_devices])
        draw = make_sampler(run, 5, {'sampler': 'ancestral', 'num_steps': 4})
        state, key = stirred(initialize(run, 0)), jax.random.key(1)
        drawn.append(draw(state, key, 13, labels_for(run, 13)))
        others = draw(state, key, 13, labels_for(run, 13, label=3))
        # Sample 3 has the label 3 both times, and so has 13; all others have another one.
        same = np.abs(others - drawn[-1]).max((1, 2, 3)) < 1e-5
        assert np.flatnonzero(same).tolist() == [3]
    assert drawn[0].shape == (13, 8, 8, 1)
    np.testing.assert_allclose(drawn[0], drawn[1], atol=1e-4)
    assert len(np.unique(drawn[0], axis=0)) == 13


def test_samples_come_from_the_averaged_weights(config):
    run = assemble(config, jax.devices()[:1])
    draw = make_sampler(run, 4, {'sampler': 'ddim', 'num_steps': 2})
    state, labels = initialize(run, 0), labels_for(run, 4)
    plain, averaged, trained = (
        draw(s, jax.random.key(0), 4, labels)
        for s in (state, stirred(state), state.replace(params=stirred(state).ema_params))
    )
    np.testing.assert_array_equal(plain, trained)
    assert np.abs(plain - averaged).max() > 1e-3


def test_labels_are_one_class_or_all_in_turn(config):
    run = assemble(config)
    assert labels_for(run, 12).tolist() == [*range(10), 0, 1]
    assert labels_for(run, 3, 7).tolist() == [7, 7, 7]
    for label in (-1, 10):
        with pytest.raises(InputError, match=r'--label: .* from 0 to 9'):
            labels_for(run, 3, label)
    without = run._replace(method=run.method._replace(num_classes=None))
    assert labels_for(without, 3) is None
    with pytest.raises(InputError, match='trained without labels'):
        labels_for(without, 3, 0)


def test_samples_that_were_asked_for_otherwise_have_other_names(tmp_path):
    config = importlib.import_module('configs.ddpm_8gaussians').get_config('smoke')
    config.train.update(sample_every=None, evaluate_every=None, score_every=None)
    config.train.update(num_steps=2, checkpoint_every=1, keep_checkpoints=None)
    train(config, tmp_path)
    asked = ({}, {'checkpoint': '1'}, {'checkpoint': '2'}, {'steps': 2}, {'steps': 3, 'seed': 1})
    written = [sample(config, tmp_path, num=4, **flags)[-1].name for flags in asked]
    assert written == [
        *('num4_seed0.npz', 'num4_seed0_checkpoint1.npz', 'num4_seed0_checkpoint2.npz'),
        *('num4_seed0_steps2.npz', 'num4_seed1_steps3.npz'),
    ]
