"""A run's first steps, pinned: one config for each method."""

import importlib

import numpy as np
import pytest

from gen_jax import parallel
from gen_jax.data.dataset import training_batches
from gen_jax.run import assemble, compile_step, initialize, load_data

# The losses of the first two steps of `:smoke`, seed 0.
PINNED = {
    'ddpm_digits': (0.767775, 0.887972),
    'ddpm_cifar': (0.994023, 0.998709),
    'vdvae_digits': (3.224513, 3.274752),
    'vqgan_cifar': (3.076622, 15.346652),
    'fsq_digits': (3.335355, 3.07248),
}
MESSAGE = (
    'The first steps of {name} are others than before. If that was not meant, it is a bug: in the '
    'data, the keys, the initialization, the network, the loss or the optimizer. If it was, runs '
    'from before cannot be repeated: say so in the commit, and pin {losses}.'
)


@pytest.mark.parametrize('name', PINNED)
def test_the_first_losses_are_those_of_yesterday(name):
    config = importlib.import_module(f'configs.{name}').get_config('smoke')
    run = assemble(config)
    state, step = initialize(run, config.seed), compile_step(run, config)
    batches = training_batches(load_data(config).train, batch_size=8, seed=config.seed)
    player, losses = run.method.phases[0].player, []
    for _ in PINNED[name]:
        batch = parallel.place_for_step(run.parallel, next(batches))
        state, metrics = step(state, batch)
        losses.append(round(float(metrics[f'{player}/loss']), 6))
    batches.close()
    assert np.allclose(losses, PINNED[name], rtol=1e-4), MESSAGE.format(name=name, losses=losses)
