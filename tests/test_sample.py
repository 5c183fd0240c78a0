"""Sampling: the same samples on any number of devices, and labels that go with them."""

import importlib

import jax
import numpy as np
import pytest

from gen_jax.errors import InputError
from gen_jax.run import assemble, initialize
from gen_jax.sample import labels_for, make_sampler


@pytest.fixture(scope='module')
def config():
    return importlib.import_module('configs.ddpm_digits').get_config('smoke')


def test_samples_are_the_same_on_one_and_eight_devices(config):
    """With a batch that eight does not divide, and a last one that is not full."""
    drawn = []
    for num_devices in (1, 8):
        run = assemble(config, jax.devices()[:num_devices])
        draw = make_sampler(run, 5, {'sampler': 'ancestral', 'num_steps': 4})
        state = initialize(run, 0)
        drawn.append(draw(state, jax.random.key(1), 13, labels_for(run, 13)))
    assert drawn[0].shape == (13, 8, 8, 1)
    np.testing.assert_allclose(drawn[0], drawn[1], atol=1e-5)
    assert len(np.unique(drawn[0], axis=0)) == 13


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
