"""Meshes, and where leaves and batches go."""

import importlib
import math
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gen_jax import parallel
from gen_jax.errors import InputError
from gen_jax.manifest import leaves_of
from gen_jax.networks.mlp import MLP
from gen_jax.run import abstract_batch, assemble, compile_step, initialize


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


@pytest.mark.parametrize(
    ('shape', 'names', 'wanted'),
    [
        ((64, 128), ('channels', 'hidden'), ('fsdp', 'tensor')),
        ((128, 64), ('hidden', 'channels'), ('tensor', 'fsdp')),
        ((3, 3, 64, 128), (None, None, 'channels', 'hidden'), (None, None, 'fsdp', 'tensor')),
        ((8, 64, 64), ('layers', 'hidden', 'channels'), (None, 'tensor', 'fsdp')),
        ((128, 16, 16), ('layers', 'channels', 'hidden'), ('fsdp', None, 'tensor')),
        ((64, 126), ('channels', 'hidden'), (None, 'fsdp')),  # 4 does not divide it
        ((64, 128), ('channels', 'channels'), (None, 'fsdp')),
        ((16, 16), ('channels', 'hidden'), (None, None)),  # small
        ((4096,), ('channels', 'hidden'), ('fsdp',)),  # what an optimizer kept of a matrix
    ],
)
def test_hidden_axes_alone_are_split_over_tensor(shape, names, wanted):
    layout = parallel.lay_out(fsdp=2, tensor=4)
    box = nn.LogicallyPartitioned(jax.ShapeDtypeStruct(shape, jnp.float32), names)
    found = parallel.state_shardings(layout, {'kernel': box})
    assert tuple(found['kernel'].spec) == wanted


def test_moments_and_averages_lie_where_their_parameters_do():
    config = importlib.import_module('configs.ddpm_digits').get_config('smoke')
    config.networks.model.channel_multipliers = (1, 2)  # with a kernel that is large enough
    config.parallel.update({'fsdp': 2, 'tensor': 2})
    state = assemble(config).template
    moments = optax.tree.get(state.opt_state['model'], 'mu')
    for tree in (moments, state.ema_params['model']):
        assert tree == state.params['model']  # shapes, types and places
    block = state.params['model']['up_1_block_0']
    for name, spec in (('conv_0', ('fsdp', 'tensor')), ('conv_1', ('tensor', 'fsdp'))):
        assert tuple(block[name]['kernel'].sharding.spec) == (None, None, *spec)
    assert tuple(state.params['model']['time_0']['kernel'].sharding.spec) == (None, None)  # small


@pytest.mark.parametrize(
    'optimizer',
    [
        optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3)),
        optax.adafactor(1e-3, min_dim_size_to_factor=8),
        optax.contrib.muon(1e-3),
    ],
    ids=['adamw', 'adafactor', 'muon'],
)
def test_the_state_of_any_optimizer_has_places(optimizer):
    layout, network = parallel.lay_out(data=1, tensor=8), MLP(width=64, num_blocks=2, scan=True)
    x, t = jnp.ones((4, 2)), jnp.ones(4)
    boxed = network.init(jax.random.key(0), x, t, train=False)
    moments = optimizer.init(boxed)
    shardings = parallel.state_shardings(layout, moments)
    moments = jax.device_put(nn.unbox(moments), shardings)
    params = nn.unbox(boxed)
    updates, after = jax.jit(optimizer.update)(params, moments, params)
    assert jax.tree.structure(after) == jax.tree.structure(moments) == jax.tree.structure(shardings)
    assert jax.tree.map(jnp.shape, updates) == jax.tree.map(jnp.shape, params)


@pytest.mark.parametrize('scan', [False, True])
def test_a_pair_of_named_matrices_needs_one_sum_and_no_gather(scan):
    """Each of three blocks, and the embedding of time, ends in one sum over the devices."""
    layout, network = parallel.lay_out(data=1, tensor=8), MLP(width=64, num_blocks=3, scan=scan)
    x, t = jnp.zeros((8, 2)), jnp.zeros(8)
    boxed = jax.eval_shape(lambda: network.init(jax.random.key(0), x, t, train=False))

    def messages(tree) -> dict[str, int]:
        """How many of each kind are in the forward pass with the parameters placed by `tree`."""
        places = parallel.state_shardings(layout, tree)
        forward = jax.jit(lambda v: network.apply(v, x, t, train=False), in_shardings=(places,))
        program = forward.lower(nn.unbox(boxed)).compile().as_text()
        return {
            kind: len(re.findall(rf' {kind}(?:-start)?\(', program))
            for kind in ('all-reduce', 'all-gather', 'all-to-all', 'collective-permute')
        }

    found = messages(boxed)
    assert found.pop('all-reduce') == (2 if scan else 4)  # the blocks of a scan are one
    assert set(found.values()) == {0}
    assert messages(nn.unbox(boxed))['all-gather'] > 0  # without names


def losses(
    num_devices: int, steps: int = 4, *, name='ddpm_digits', network=None, **options
) -> list[float]:
    """The first losses of a tiny DDPM on some of the eight devices."""
    config = importlib.import_module(f'configs.{name}').get_config('smoke')
    config.networks.model.update(network or {})
    config.parallel.update(options)
    run = assemble(config, jax.devices()[:num_devices])
    state, step = initialize(run, 0), compile_step(run, config)
    rng, values = np.random.default_rng(0), []
    for _ in range(steps):
        batch = {
            'x': rng.uniform(-1, 1, (16, *run.spec.shape)).astype(np.float32),
            'label': rng.integers(0, 10, 16).astype(np.int32),
        }
        batch = {field: batch[field] for field in abstract_batch(run.spec, 16)}
        state, metrics = step(state, parallel.place_for_step(run.parallel, batch))
        values.append(float(metrics['model/loss']))
    return values


@pytest.fixture(scope='module')
def alone() -> list[float]:
    """The losses on one device."""
    return losses(1)


def test_jit_gives_the_same_losses_on_one_and_eight_devices(alone):
    np.testing.assert_allclose(losses(8), alone, rtol=1e-5)
    np.testing.assert_allclose(losses(8, data=2, fsdp=2, tensor=2), alone, rtol=1e-5)


def test_named_and_stacked_parameters_give_the_losses_of_one_device():
    network = {'width': 64, 'num_blocks': 2, 'scan': True, 'remat': True}
    of_points = {'name': 'ddpm_8gaussians', 'network': network}
    one = losses(1, **of_points)
    eight = losses(8, **of_points, data=2, fsdp=2, tensor=2)
    np.testing.assert_allclose(eight, one, rtol=1e-5)


def test_under_pmap_each_device_has_rows_for_every_turn():
    config = importlib.import_module('configs.gan_8gaussians').get_config('smoke')
    config.data.batch_size, config.method.discriminator_steps = 8, 2
    assemble(config, jax.devices()[:8])
    config.parallel.strategy = 'pmap'
    with pytest.raises(InputError, match=r'2 parts .* on each of 8 devices; use a multiple of 16'):
        assemble(config, jax.devices()[:8])
    config.data.batch_size = 16
    assemble(config, jax.devices()[:8])


def test_pmap_trains_on_eight_devices(alone):
    values = losses(8, strategy='pmap')
    assert np.all(np.isfinite(values)) and len(set(values)) == 4
    # Noise depends on the number of devices, the scale of the loss does not.
    np.testing.assert_allclose(np.mean(values), np.mean(alone), rtol=0.2)


@pytest.mark.parametrize('strategy', ['jit', 'pmap'])
def test_a_codebook_is_the_same_on_all_devices(strategy):
    """New codes restart on each device with what it sees; then they follow averages over all."""
    config = importlib.import_module('configs.vqvae_cifar').get_config('smoke')
    config.parallel.strategy = strategy
    config.networks.autoencoder.channel_multipliers = (1,)
    books = []
    for num_devices in (1, 2):
        run = assemble(config, jax.devices()[:num_devices])
        state, step = initialize(run, 0), compile_step(run, config)
        rng = np.random.default_rng(0)
        for _ in range(2):
            batch = {
                'x': rng.uniform(-1, 1, (4, *run.spec.shape)).astype(np.float32),
                'label': np.zeros(4, np.int32),
            }
            state, _ = step(state, parallel.place_for_step(run.parallel, batch))
        book = state.model_state['autoencoder']
        for leaf in jax.tree.leaves(book):
            copies = [np.asarray(shard.data) for shard in leaf.addressable_shards]
            assert len(copies) == num_devices and np.isfinite(copies[0]).all()
            assert all(np.array_equal(copy, copies[0]) for copy in copies)
        books.append(jax.tree.map(np.asarray, book))
    counts = [np.sum(book['count']) for book in books]
    assert counts[0] > 0
    if strategy == 'jit':  # under pmap each device draws its own restarts
        jax.tree.map(lambda *leaves: np.testing.assert_allclose(*leaves, rtol=1e-3), *books)


@pytest.mark.parametrize(
    'layout', [{'data': 1, 'fsdp': 8}, {'data': 2, 'fsdp': 2, 'tensor': 2}], ids=str
)
def test_a_device_holds_its_share_of_the_state_and_no_more(layout):
    """What the compiler says that the step takes is what the shardings say; that is an eighth, or a
    quarter, of the state, but for its small leaves."""
    config = importlib.import_module('configs.ddpm_8gaussians').get_config('smoke')
    config.networks.model.width = 256
    config.parallel.update(layout)
    run = assemble(config)
    batch = abstract_batch(run.spec, 16)
    compiled = compile_step(run, config).lower(run.template, batch).compile()

    whole = share = rows = 0
    for leaf in leaves_of(run.template).values():
        part = leaf.shape if leaf.sharding is None else leaf.sharding.shard_shape(leaf.shape)
        whole += leaf.size * leaf.dtype.itemsize
        share += math.prod(part) * leaf.dtype.itemsize
    for leaf in batch.values():
        rows += leaf.size * leaf.dtype.itemsize // run.parallel.batch_devices
    assert compiled.memory_analysis().argument_size_in_bytes == share + rows
    ways = math.prod(layout.get(axis, 1) for axis in ('fsdp', 'tensor'))
    assert share < 1.15 * whole / ways
