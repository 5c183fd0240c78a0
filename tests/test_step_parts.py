"""The step on a batch that is taken in parts: the whole batch's gradient, and noise of its own."""

import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gen_jax import parallel
from gen_jax.methods.method import Method, Phase
from gen_jax.run import assemble, compile_step, initialize
from gen_jax.state import TrainState, init_state
from gen_jax.step import in_parts, train_step

BATCH = {'x': np.random.default_rng(0).normal(3.5, 1, 128).astype(np.float32)}


def game(noise: float = 0.0) -> Method:
    """Two players that pull at each other's number; `seen` and `twice` are a model state."""

    def init(key, batch):
        state = {'seen': jnp.float32(7), 'twice': jnp.zeros(2)}
        return {'a': {'w': jnp.float32(1)}, 'b': {'w': jnp.float32(2)}}, state

    def loss_a(params, state, batch, key):
        drawn = noise * jax.random.normal(key, batch['x'].shape)
        value = jnp.mean((params['a']['w'] - params['b']['w'] - batch['x'] + drawn) ** 2)
        seen = {'seen': jnp.mean(batch['x']), 'twice': state.model_state['twice'] + 1}
        return value, (seen, {'loss': value, 'mean': jnp.mean(batch['x']), 'drawn': drawn.mean()})

    def loss_b(params, state, batch, key):
        value = jnp.mean(params['a']['w'] * params['b']['w'] * batch['x'])
        return value, (state.model_state, {'loss': value})

    return Method(
        init=init,
        phases=(Phase('a', loss_a), Phase('b', loss_b)),
        sample=None,
        evaluate=lambda params, model_state, batch, key: {},
        estimators={},
        averaged=('a',),
    )


def one_step(method: Method, layout=None, batch=BATCH, **options) -> tuple[TrainState, dict]:
    """The first step of 'sgd', on the devices of `layout` or without a compiler."""
    optimizers = {player: optax.sgd(0.1) for player in method.trained}
    state = init_state(method, optimizers, 0, batch)
    step = functools.partial(
        train_step, method=method, optimizers=optimizers, ema_decay=0.9, **options
    )
    if layout is None:
        return step(state, batch)
    shardings = parallel.state_shardings(layout, jax.eval_shape(lambda: state))
    state = jax.device_put(state, shardings)
    compiled = parallel.compile_step(layout, step, shardings)
    return compiled(state, parallel.place_for_step(layout, batch))


def assert_close(a: TrainState, b: TrainState, **tolerances) -> None:
    for x, y in zip(*(jax.tree.leaves(s.replace(key=0)) for s in (a, b)), strict=True):
        np.testing.assert_allclose(x, y, **tolerances)


def test_every_row_is_in_one_part():
    rows = np.arange(24).reshape(12, 2)
    parts = np.asarray(in_parts(rows, 3))
    assert parts.shape == (3, 4, 2)
    np.testing.assert_array_equal(parts[1], rows[1::3])
    assert sorted(parts.reshape(-1, 2).tolist()) == rows.tolist()


@pytest.mark.parametrize('num_parts', [2, 4, 16])
@pytest.mark.parametrize('devices', [None, 1, 8, 'pmap'])
def test_parts_make_the_step_of_the_whole_batch(devices, num_parts):
    """Parts that saw the same rows, or were summed, would not."""
    layout = None
    if devices == 'pmap':
        layout = parallel.lay_out('pmap')
    elif devices is not None:
        layout = parallel.lay_out(devices=jax.devices()[:devices])
    whole, expected = one_step(game())
    state, metrics = one_step(game(), layout, num_parts=num_parts)
    assert_close(state, whole, rtol=1e-5)
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-5)
    mean = BATCH['x'].mean(dtype=np.float64)
    np.testing.assert_allclose(metrics['a/mean'], mean, rtol=1e-5)
    np.testing.assert_allclose(state.model_state['seen'], mean, rtol=1e-5)
    np.testing.assert_array_equal(state.model_state['twice'], [1, 1])  # once, not in each part


def test_each_part_draws_noise_of_its_own():
    _, metrics = one_step(game(noise=1.0), num_parts=4)
    key = init_state(game(), {p: optax.sgd(0.1) for p in 'ab'}, 0, BATCH).key
    key = jax.random.fold_in(jax.random.fold_in(key, 0), 0)
    drawn = [jax.random.normal(jax.random.fold_in(key, part), (32,)) for part in range(4)]
    np.testing.assert_allclose(metrics['a/drawn'], np.mean(drawn), rtol=1e-5)
    rows = [BATCH['x'][part::4] for part in range(4)]
    expected = np.mean([(1 - 2 - x + e) ** 2 for x, e in zip(rows, drawn, strict=True)])
    np.testing.assert_allclose(metrics['a/loss'], expected, rtol=1e-5)


def test_one_bad_row_skips_the_whole_step():
    batch = {'x': BATCH['x'].copy()}
    batch['x'][77] = np.nan
    state, metrics = one_step(game(), batch=batch, num_parts=4)
    assert int(metrics['skipped']) == 1
    assert float(state.params['a']['w']) == 1 and float(state.model_state['seen']) == 7


def test_parts_and_a_scale_go_together():
    whole, expected = one_step(game())
    state, metrics = one_step(game(), num_parts=4, scale_loss=True)
    assert_close(state.replace(guard=whole.guard), whole, rtol=1e-5)
    np.testing.assert_allclose(metrics['a/grad_norm'], expected['a/grad_norm'], rtol=1e-5)
    np.testing.assert_allclose(metrics['a/loss'], expected['a/loss'], rtol=1e-5)


def classifier_steps(num_parts: int, num_devices: int) -> tuple[list[dict], TrainState]:
    """Two steps of a real network, without noise."""
    config = importlib.import_module('configs.feature_net_digits').get_config('smoke')
    config.data.batch_size = 128
    config.method.max_shift = 0
    config.networks.model.dropout = 0.0
    config.train.accumulate = num_parts
    # Adam would make one size of every gradient, and of their rounding errors too.
    with config.unlocked():
        config.optim.model = {'name': 'sgd', 'learning_rate': 0.1}
    run = assemble(config, jax.devices()[:num_devices])
    state, step = initialize(run, 0), compile_step(run, config)
    rng, rows = np.random.default_rng(0), []
    for _ in range(2):
        x = rng.uniform(-1, 1, (128, *run.spec.shape)).astype(np.float32)
        batch = {'x': x, 'label': rng.integers(0, 10, 128).astype(np.int32)}
        state, metrics = step(state, parallel.place_for_step(run.parallel, batch))
        rows.append(jax.device_get(metrics))
    return rows, jax.device_get(state.replace(key=0))


@pytest.fixture(scope='module')
def whole_classifier():
    return classifier_steps(1, 1)


@pytest.mark.parametrize('num_devices', [1, 8])
def test_a_network_learns_the_same_from_parts(num_devices, whole_classifier):
    expected, whole = whole_classifier
    rows, state = classifier_steps(4, num_devices)
    for row, wanted in zip(rows, expected, strict=True):
        for name in ('grad_norm', 'loss', 'accuracy'):
            np.testing.assert_allclose(row[f'model/{name}'], wanted[f'model/{name}'], rtol=1e-5)
    assert_close(state, whole, rtol=1e-4, atol=1e-6)
