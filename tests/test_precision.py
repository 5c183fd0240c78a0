"""Half precision: the same training, to within what rounding explains."""

import functools
import importlib

import jax
import numpy as np
import pytest

from gen_jax.data.dataset import training_batches
from gen_jax.parallel import place_for_step
from gen_jax.run import assemble, compile_step, initialize, load_data
from gen_jax.train import train
from gen_jax.writers import read_rows

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


def test_a_run_goes_on_in_another_precision_with_other_memory(tmp_path):
    def run(workdir, num_steps, **changes):
        config = importlib.import_module('configs.ddpm_8gaussians').get_config('smoke')
        config.update_from_flattened_dict(changes)
        config.train.update(evaluate_every=None, sample_every=None, score_every=None)
        config.train.update(num_steps=num_steps, log_every=1)
        config.data.batch_size = 16
        train(config, workdir)
        return np.array([row['model/loss'] for row in read_rows(workdir / 'metrics.jsonl')])

    whole = run(tmp_path / 'whole', 9)
    run(tmp_path / 'changed', 3)
    run(tmp_path / 'changed', 6, **{'precision': 'float16', 'networks.model.remat': True})
    losses = run(tmp_path / 'changed', 9, **{'train.accumulate': 2})
    np.testing.assert_array_equal(losses[:3], whole[:3])
    np.testing.assert_allclose(losses[3:6], whole[3:6], rtol=0.02)
    assert not np.array_equal(losses[3:6], whole[3:6])
    assert np.isfinite(losses).all() and len(losses) == 9  # parts draw noise of their own
