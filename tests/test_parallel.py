"""Meshes, and where leaves and batches go."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gen_jax import parallel
from gen_jax.errors import InputError
from gen_jax.run import assemble, compile_step, initialize


def test_the_axis_of_size_minus_one_takes_the_rest():
    assert dict(parallel.lay_out(fsdp=2, tensor=2).mesh.shape) == {
        'data': 2,
        'fsdp': 2,
        'tensor': 2,
    }
    assert dict(parallel.lay_out(data=2, fsdp=-1).mesh.shape) == {'data': 2, 'fsdp': 4, 'tensor': 1}


@pytest.mark.parametrize(
    'options',
    [{'data': 3}, {'data': 16}, {'data': 0}, {'data': -1, 'fsdp': -1}, {'data': -2, 'fsdp': -4}],
)
def test_axes_that_do_not_fit_the_devices_are_refused(options):
    with pytest.raises(InputError, match='8, the number of devices'):
        parallel.lay_out(**options)


def test_pmap_refuses_to_split_parameters():
    with pytest.raises(InputError, match='pmap replicates'):
        parallel.lay_out('pmap', fsdp=2)
    with pytest.raises(InputError, match="neither 'jit' nor 'pmap'"):
        parallel.lay_out('xmap')


def test_a_batch_must_split_evenly():
    with pytest.raises(InputError, match=r'data.batch_size: 12 .* multiple of 8'):
        parallel.check_batch_size(parallel.lay_out(), 12, 'data.batch_size')


def test_large_leaves_are_split_and_small_ones_are_not():
    layout = parallel.lay_out(data=1, fsdp=4, tensor=2)
    leaves = {
        'kernel': jax.ShapeDtypeStruct((3, 3, 64, 128), jnp.float32),
        'odd': jax.ShapeDtypeStruct((1025, 3), jnp.float32),
        'bias': jax.ShapeDtypeStruct((128,), jnp.float32),
        'key': jax.eval_shape(lambda: jax.random.key(0)),
    }
    specs = jax.tree.map(lambda s: tuple(s.spec), parallel.state_shardings(layout, leaves))
    assert specs['kernel'] == (None, None, 'tensor', 'fsdp')
    assert set(specs['odd']) <= {None} and set(specs['bias']) <= {None}
    kernel = parallel.state_shardings(layout, leaves)['kernel']
    assert kernel.shard_shape((3, 3, 64, 128)) == (3, 3, 32, 32)


def losses(num_devices: int, steps: int = 4, **options) -> list[float]:
    """The first losses of the tiny DDPM on some of the eight devices."""
    config = importlib.import_module('configs.ddpm_digits').get_config('smoke')
    config.parallel.update(options)
    run = assemble(config, jax.devices()[:num_devices])
    state, step = initialize(run, 0), compile_step(run, config)
    rng, values = np.random.default_rng(0), []
    for _ in range(steps):
        batch = {
            'x': rng.uniform(-1, 1, (16, 8, 8, 1)).astype(np.float32),
            'label': rng.integers(0, 10, 16).astype(np.int32),
        }
        state, metrics = step(state, parallel.place_for_step(run.parallel, batch))
        values.append(float(metrics['model/loss']))
    return values


def test_jit_gives_the_same_losses_on_one_and_eight_devices():
    one = losses(1)
    np.testing.assert_allclose(losses(8), one, rtol=1e-5)
    np.testing.assert_allclose(losses(8, data=2, fsdp=2, tensor=2), one, rtol=1e-5)


def test_pmap_trains_on_eight_devices():
    values = losses(8, strategy='pmap')
    assert np.all(np.isfinite(values)) and len(set(values)) == 4
    # Noise depends on the number of devices, the scale of the loss does not.
    np.testing.assert_allclose(np.mean(values), np.mean(losses(1)), rtol=0.2)
