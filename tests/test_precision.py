"""Half precision: the same training, to within what rounding explains."""

import functools
import importlib

import jax
import numpy as np
import pytest

from gen_jax.data.dataset import training_batches
from gen_jax.parallel import place_for_step
from gen_jax.run import assemble, compile_step, initialize, load_data

STEPS = 100


@functools.cache
def trained(precision: str):
    """The final state of a hundred steps on one device, their losses, and the last metrics."""
    config = importlib.import_module('configs.ddpm_8gaussians').get_config('smoke')
    config.precision = precision
    config.data.batch_size = 512
    config.networks.model.update(width=64, num_blocks=2)
    config.optim.model.warmup_steps = 10
    run = assemble(config, jax.devices()[:1])
    state, step, losses = initialize(run, 0), compile_step(run, config), []
    batches = training_batches(load_data(config).train, batch_size=512, seed=0)
    for _ in range(STEPS):
        state, metrics = step(state, place_for_step(run.parallel, next(batches)))
        losses.append(float(metrics['model/loss']))
    batches.close()
    return state, np.array(losses), metrics


@pytest.mark.parametrize('precision', ['bfloat16', 'float16'])
def test_a_hundred_steps_are_those_of_float32_within_two_percent(precision):
    (_, single, _), (state, half, metrics) = trained('float32'), trained(precision)
    assert single[-10:].mean() < 0.8 * single[:10].mean()  # something was learned
    # Each step asks for the same noise, so the losses compare one by one.
    np.testing.assert_allclose(half, single, rtol=0.02)
    assert not np.array_equal(half, single)
    assert metrics['skipped'] == 0
    assert {leaf.dtype.name for leaf in jax.tree.leaves(state.params)} == {'float32'}
    if precision == 'float16':
        assert metrics['loss_scale'] == 2.0**15
