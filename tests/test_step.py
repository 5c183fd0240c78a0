"""The step, on a toy method whose every number can be worked out by hand.

What it does about numbers that are not finite is in `test_step_guard.py`, batches in parts in
`test_step_parts.py`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gen_jax import parallel
from gen_jax.errors import InputError
from gen_jax.methods.method import Method, Phase
from gen_jax.state import init_state, sampling_params
from gen_jax.step import train_step


def game(every: int = 1, noise: float = 0.0) -> Method:
    """Two players, `a` and `b`, that pull at each other's number; `c` is frozen."""

    def init(key, batch):
        return {'a': {'w': jnp.float32(1)}, 'b': {'w': jnp.float32(2)}, 'c': jnp.float32(5)}, {
            'seen': jnp.float32(0)
        }

    def loss_a(params, state, batch, key):
        drawn = noise * jax.random.normal(key, batch['x'].shape)
        value = jnp.mean((params['a']['w'] - params['b']['w'] - batch['x'] + drawn) ** 2)
        seen = state.model_state['seen'] + jnp.mean(batch['x'])
        return value, ({'seen': seen}, {'loss': value})

    def loss_b(params, state, batch, key):
        value = jnp.mean(params['a']['w'] * params['b']['w'] * batch['x'])
        return value, (state.model_state, {'loss': value})

    return Method(
        init=init,
        phases=(Phase('a', loss_a), Phase('b', loss_b, every)),
        sample=lambda params, model_state, key, num: jnp.zeros((num, 1)),
        evaluate=lambda params, model_state, batch, key: {},
        estimators={},
        averaged=('a',),
    )


SGD = {'a': optax.sgd(0.1), 'b': optax.sgd(0.1)}
BATCH = {'x': np.arange(8, dtype=np.float32)}


def step_of(method: Method, **options):
    return functools.partial(train_step, method=method, optimizers=SGD, ema_decay=0.9, **options)


def test_averages_are_of_what_a_schedule_free_optimizer_evaluates():
    free = {'a': optax.contrib.schedule_free_sgd(0.1), 'b': optax.sgd(0.1)}
    state = init_state(game(), free, 0, BATCH)
    step = functools.partial(train_step, method=game(), optimizers=free, ema_decay=0.0)
    for _ in range(3):
        state, _ = step(state, BATCH)
    wanted = optax.contrib.schedule_free_eval_params(state.opt_state['a'], state.params['a'])
    np.testing.assert_allclose(state.ema_params['a']['w'], wanted['w'], rtol=1e-6)
    assert abs(state.ema_params['a']['w'] - state.params['a']['w']) > 1e-3


def test_phases_run_in_order_and_each_moves_its_own_player():
    state = init_state(game(), SGD, 0, BATCH)
    state, metrics = step_of(game())(state, BATCH)
    a = 1 - 0.1 * 2 * (1 - 2 - 3.5)  # d/da mean (a - b - x)^2
    b = 2 - 0.1 * a * 3.5  # sees the new a
    np.testing.assert_allclose(state.params['a']['w'], a, rtol=1e-6)
    np.testing.assert_allclose(state.params['b']['w'], b, rtol=1e-6)
    np.testing.assert_allclose(metrics['a/grad_norm'], 9.0, rtol=1e-6)
    np.testing.assert_allclose(metrics['b/loss'], a * 2 * 3.5, rtol=1e-6)
    assert state.model_state['seen'] == 3.5
    assert state.step == 1


def test_a_frozen_player_stays_and_has_no_optimizer_state():
    state = init_state(game(), SGD, 0, BATCH)
    after, _ = step_of(game())(state, BATCH)
    assert after.params['c'] == 5
    assert set(after.opt_state) == {'a', 'b'}


def test_the_average_follows_its_players_and_no_others():
    state = init_state(game(), SGD, 0, BATCH)
    after, _ = step_of(game())(state, BATCH)
    expected = 0.9 * 1 + 0.1 * after.params['a']['w']
    np.testing.assert_allclose(after.ema_params['a']['w'], expected, rtol=1e-6)
    assert set(after.ema_params) == {'a'}
    assert sampling_params(after)['a'] is after.ema_params['a']
    assert sampling_params(after)['b'] is after.params['b']


def test_a_lazy_phase_runs_only_on_its_steps():
    state = init_state(game(every=3), SGD, 0, BATCH)
    step = jax.jit(step_of(game(every=3)))
    moved, values = [], []
    for _ in range(6):
        before = state.params['b']['w']
        state, metrics = step(state, BATCH)
        moved.append(bool(state.params['b']['w'] != before))
        values.append(bool(jnp.isfinite(metrics['b/loss'])))
    assert moved == values == [False, False, True, False, False, True]


def test_metrics_of_a_named_phase_do_not_hide_those_of_its_player():
    """A lazy turn would else overwrite its player's own metrics, with NaN in most steps."""
    method = game()
    first, second = method.phases
    method = method._replace(phases=(first, second._replace(player='a', every=2, name='lazy')))
    optimizers = {'a': SGD['a']}
    state = init_state(method, optimizers, 0, BATCH)
    _, metrics = train_step(state, BATCH, method=method, optimizers=optimizers, ema_decay=0.9)
    assert metrics['a/loss'] > 0 and np.isnan(metrics['a/lazy_loss'])
    np.testing.assert_allclose(metrics['a/grad_norm'], 9.0, rtol=1e-6)


def test_the_base_key_never_changes_and_noise_is_a_function_of_the_step():
    method = game(noise=1.0)
    state = init_state(method, SGD, 0, BATCH)
    first, metrics = step_of(method)(state, BATCH)
    _, again = step_of(method)(state, BATCH)
    _, later = step_of(method)(state.replace(step=jnp.int32(1)), BATCH)
    assert jax.random.key_data(first.key).tolist() == jax.random.key_data(state.key).tolist()
    assert metrics['a/loss'] == again['a/loss'] != later['a/loss']


@pytest.mark.parametrize('strategy', ['jit', 'pmap'])
def test_eight_devices_agree_with_one_on_losses_and_gradients(strategy):
    """Without noise, both strategies compute the very same step; a gradient summed over devices
    instead of averaged would be eight times too long."""
    method = game()
    one_state, one = step_of(method)(init_state(method, SGD, 0, BATCH), BATCH)
    layout = parallel.lay_out(strategy)
    assert layout.batch_devices == 8
    state = init_state(method, SGD, 0, BATCH)
    shardings = parallel.state_shardings(layout, jax.eval_shape(lambda: state))
    state = jax.device_put(state, shardings)
    step = parallel.compile_step(layout, step_of(method), shardings)
    state, metrics = step(state, parallel.place_for_step(layout, BATCH))
    for name in one:
        np.testing.assert_allclose(metrics[name], one[name], rtol=1e-5)
    for player in 'ab':
        np.testing.assert_allclose(
            state.params[player]['w'], one_state.params[player]['w'], rtol=1e-5
        )


def test_pmap_draws_different_noise_on_each_device():
    """The mean over devices is that of eight draws, each from its own folded key."""
    method = game(noise=1.0)
    layout = parallel.lay_out('pmap')
    state = init_state(method, SGD, 0, BATCH)
    step = parallel.compile_step(layout, step_of(method), None)
    same_rows = {'x': np.full(8, 3.5, np.float32)}
    _, metrics = step(state, parallel.place_for_step(layout, same_rows))
    state = init_state(method, SGD, 0, BATCH)
    key = jax.random.fold_in(jax.random.fold_in(state.key, 0), 0)
    expected = np.mean(
        [(1 - 2 - 3.5 + jax.random.normal(jax.random.fold_in(key, i), (1,))) ** 2 for i in range(8)]
    )
    np.testing.assert_allclose(metrics['a/loss'], expected, rtol=1e-5)


def test_optimizers_must_be_those_of_the_trained_players():
    with pytest.raises(InputError, match=r"optim: .*\['a', 'b'\]"):
        init_state(game(), {'a': optax.sgd(0.1)}, 0, BATCH)
