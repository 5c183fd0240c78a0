"""The step, where a loss or a gradient is not finite, and where losses are scaled for float16."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gen_jax import parallel
from gen_jax.methods.method import Method, Phase
from gen_jax.optim import optimizer
from gen_jax.state import FIRST_LOSS_SCALE, TrainState, init_state
from gen_jax.step import LARGEST_LOSS_SCALE, STEPS_TO_DOUBLE, train_step

OPTIMIZERS = {'a': optax.adam(0.1), 'b': optax.adam(0.1)}
GOOD = {'x': np.arange(8, dtype=np.float32), 'y': np.ones(8, np.float32)}


def spoiled(field: str, value: float = np.nan) -> dict:
    """A batch with one bad number."""
    batch = {name: rows.copy() for name, rows in GOOD.items()}
    batch[field][5] = value
    return batch


def game(every: int = 1) -> Method:
    """Player `a` learns from x, player `b` from y, and each sees the other."""

    def init(key, batch):
        return {'a': jnp.ones(3), 'b': jnp.float32(2)}, {'seen': jnp.float32(0)}

    def loss_a(params, state, batch, key):
        value = jnp.mean((params['a'].sum() - params['b'] - batch['x']) ** 2)
        return value, ({'seen': state.model_state['seen'] + jnp.mean(batch['x'])}, {'loss': value})

    def loss_b(params, state, batch, key):
        value = jnp.mean((params['b'] * params['a'].sum() - batch['y']) ** 2)
        return value, (state.model_state, {'loss': value})

    return method_of(init, Phase('a', loss_a), Phase('b', loss_b, every))


def lone(loss, first: float = 1.0) -> Method:
    """One player `a`, one number w, and `loss(w, x)`."""

    def loss_of(params, state, batch, key):
        value = loss(params['a'], jnp.mean(batch['x']))
        return value, (state.model_state, {'loss': value})

    return method_of(lambda key, batch: ({'a': jnp.float32(first)}, {}), Phase('a', loss_of))


def method_of(init, *phases: Phase) -> Method:
    return Method(
        init=init,
        phases=phases,
        sample=None,
        evaluate=lambda params, model_state, batch, key: {},
        estimators={},
        averaged=('a',),
    )


def start(method: Method, optimizers=OPTIMIZERS, **options) -> tuple[TrainState, functools.partial]:
    """A first state with two power averages, and the step."""
    optimizers = {player: optimizers[player] for player in method.trained}
    step = functools.partial(
        train_step,
        method=method,
        optimizers=optimizers,
        ema_decay=0.9,
        ema_lengths=(0.05, 0.1),
        **options,
    )
    return init_state(method, optimizers, 0, GOOD, num_profiles=2), step


def bits(tree) -> list[bytes]:
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def learned(state: TrainState) -> list[bytes]:
    """All that a skipped step leaves as it was."""
    parts = (state.params, state.opt_state, state.model_state, state.ema_params, state.power_ema)
    return bits(parts)


def counts(state: TrainState) -> tuple[int, int, int]:
    return tuple(int(n) for n in (state.guard.skipped, state.guard.in_a_row, state.guard.since))


def both_bad(value: float) -> dict:
    return spoiled('x', value) | {'y': spoiled('y', value)['y']}


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
def test_a_bad_batch_changes_nothing_but_the_count_and_the_next_good_one_goes_on(value):
    state, step = start(game())
    step, bad = jax.jit(step), both_bad(value)
    state, _ = step(state, GOOD)
    assert counts(state) == (0, 0, 0)
    before = learned(state)
    for n in (1, 2, 3):
        state, metrics = step(state, bad)
        assert int(state.step) == 1 + n
        assert learned(state) == before
        assert counts(state) == (n, n, 2)
        assert (metrics['skipped'], metrics['skipped_in_a_row']) == (n, n)
        assert not np.isfinite(metrics['a/loss']) and not np.isfinite(metrics['b/grad_norm'])
    expected, _ = step(state.replace(guard=start(game())[0].guard), GOOD)
    state, metrics = step(state, GOOD)
    assert learned(state) == learned(expected) != before
    assert counts(state) == (3, 0, 2)
    state, _ = step(state, bad)
    assert counts(state) == (4, 1, 6)


@pytest.mark.parametrize(
    ('loss', 'first'),
    [
        (lambda w, x: jnp.sqrt(w) * x, 0.0),  # infinitely steep
        (lambda w, x: w * x + jax.lax.stop_gradient(jnp.log(w - 1)), 1.0),
    ],
    ids=['gradient', 'loss'],
)
def test_either_of_loss_and_gradient_is_enough(loss, first):
    w = jnp.float32(first)
    finite = np.isfinite([loss(w, 3.5), jax.grad(loss)(w, 3.5)])
    assert finite.sum() == 1
    state, step = start(lone(loss, first))
    after, _ = step(state, GOOD)
    assert learned(after) == learned(state)
    assert counts(after) == (1, 1, 1)


def test_a_player_that_is_skipped_does_not_stop_the_other():
    state, step = start(game())
    step = jax.jit(step)
    state, _ = step(state, GOOD)
    after, _ = step(state, spoiled('x'))
    assert bits((after.params['a'], after.opt_state['a'])) == bits(
        (state.params['a'], state.opt_state['a'])
    )
    own = jax.grad(lambda b: (b * state.params['a'].sum() - 1) ** 2)(state.params['b'])
    updates, _ = OPTIMIZERS['b'].update(own, state.opt_state['b'], state.params['b'])
    np.testing.assert_allclose(after.params['b'], state.params['b'] + updates, rtol=1e-5)
    assert bits(after.model_state) == bits(state.model_state)
    assert counts(after) == (1, 1, 2)

    after, _ = step(state, spoiled('y'))
    whole, _ = step(state, GOOD)
    assert bits((after.params['b'], after.opt_state['b'])) == bits(
        (state.params['b'], state.opt_state['b'])
    )
    for part in ('params', 'opt_state'):
        assert bits(getattr(after, part)['a']) == bits(getattr(whole, part)['a'])
    assert bits(after.model_state) == bits(whole.model_state) != bits(state.model_state)
    assert bits((after.ema_params, after.power_ema)) == bits((state.ema_params, state.power_ema))
    assert counts(after) == (1, 1, 2)


def test_a_phase_that_is_left_out_is_not_skipped():
    state, step = start(game(every=2))
    step = jax.jit(step)
    state, metrics = step(state, spoiled('y'))
    assert counts(state) == (0, 0, 0) and np.isnan(metrics['b/loss'])
    state, _ = step(state, spoiled('y'))
    assert counts(state) == (1, 1, 2)


def test_a_bad_number_on_one_of_eight_devices_is_skipped_on_all():
    state, step = start(game())
    before = learned(state)
    layout = parallel.lay_out('pmap')
    step = parallel.compile_step(layout, step, None)
    state, metrics = step(state, parallel.place_for_step(layout, both_bad(np.nan)))
    assert learned(state) == before and counts(state) == (1, 1, 1)
    for leaf in jax.tree.leaves((state.params, state.guard)):
        copies = {np.asarray(shard.data).tobytes() for shard in leaf.addressable_shards}
        assert len(leaf.addressable_shards) == 8 and len(copies) == 1
    state, metrics = step(state, parallel.place_for_step(layout, GOOD))
    assert learned(state) != before and counts(state) == (1, 0, 1)
    assert np.isfinite(metrics['a/loss'])


def test_a_bad_loss_on_one_device_is_skipped_on_all_though_every_gradient_is_finite():
    def loss(w, x):
        return w * x + jax.lax.stop_gradient(jnp.log(x))

    state, step = start(lone(loss))
    before, layout = learned(state), parallel.lay_out('pmap')
    step = parallel.compile_step(layout, step, None)
    batch = {'x': np.ones(8, np.float32)}
    batch['x'][5] = -1
    state, metrics = step(state, parallel.place_for_step(layout, batch))
    assert np.isfinite(metrics['a/grad_norm']) and np.isnan(metrics['a/loss'])
    assert learned(state) == before and counts(state) == (1, 1, 1)
    copies = [np.asarray(shard.data) for shard in state.params['a'].addressable_shards]
    assert len(copies) == 8 and set(map(float, copies)) == {1.0}


def test_a_gradient_that_the_optimizer_skips_is_counted_beside_its_norm():
    """It is finite: the guard, and so the row that ends a run, knows nothing of it."""
    skipping = {'a': optimizer('adam', learning_rate=0.1, skip_above=40.0), 'b': OPTIMIZERS['b']}
    state, step = start(game(), skipping)
    step = jax.jit(step)
    state, metrics = step(state, GOOD)
    assert metrics['a/too_large'] == 0 and 'b/too_large' not in metrics
    for n in (1, 2):
        before = state
        state, metrics = step(state, spoiled('x', 1e9))
        assert metrics['a/too_large'] == n and metrics['a/grad_norm'] > 1e6
        assert bits(state.params['a']) == bits(before.params['a'])
        assert bits(state.opt_state['a'].inner) == bits(before.opt_state['a'].inner)
        assert bits(state.params['b']) != bits(before.params['b'])
        assert counts(state) == (0, 0, 0) and metrics['skipped'] == 0
    before = state
    state, metrics = step(state, spoiled('x', np.inf))  # the guard's, and not counted twice
    assert metrics['a/too_large'] == 2 and counts(state)[0] == 1
    state, metrics = step(state, GOOD)
    assert metrics['a/too_large'] == 2 and bits(state.params['a']) != bits(before.params['a'])


def test_a_scaled_loss_gives_the_same_step():
    plain, step = start(game())
    scaled, scaled_step = start(game(), scale_loss=True)
    for _ in range(3):
        plain, metrics = step(plain, GOOD)
        scaled, scaled_metrics = scaled_step(scaled, GOOD)
        assert scaled_metrics.pop('loss_scale') == FIRST_LOSS_SCALE
        for name, value in metrics.items():
            np.testing.assert_allclose(scaled_metrics[name], value, rtol=1e-6)
    for a, b in zip(
        *(jax.tree.leaves(s.replace(key=0, guard=0)) for s in (plain, scaled)), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_scaling_saves_what_float16_would_round_to_zero():
    def loss(w, x):
        return w.astype(jnp.float16).astype(jnp.float32) * 2.0**-30

    for scale_loss, gradient in ((False, 0), (True, 2.0**-30)):
        state, step = start(lone(loss), {'a': optax.sgd(1.0)}, scale_loss=scale_loss)
        _, metrics = step(state, GOOD)
        assert metrics['a/grad_norm'] == gradient


def test_a_scale_that_overflows_is_halved_until_it_does_not():
    def loss(w, x):  # 9 times the scale has to be below 65,520
        return (w.astype(jnp.float16) * jnp.float16(9)).astype(jnp.float32)

    state, step = start(lone(loss), {'a': optax.sgd(0.125)}, scale_loss=True)
    step, scales = jax.jit(step), []
    for _ in range(5):
        state, metrics = step(state, GOOD)
        scales.append(float(metrics['loss_scale']))
        assert counts(state)[1] == 0
    assert scales == [2.0**14, 2.0**13, 2.0**12, 2.0**12, 2.0**12]
    assert state.params['a'] == 1 - 2 * 0.125 * 9
    assert counts(state)[0] == 3


def test_bad_steps_count_in_the_row_only_when_the_scale_is_one():
    state, step = start(game(), scale_loss=True)
    step, before = jax.jit(step), learned(state)
    for n in range(1, 19):
        state, metrics = step(state, both_bad(np.nan))
        assert metrics['loss_scale'] == max(FIRST_LOSS_SCALE / 2**n, 1)
        assert counts(state) == (n, max(n - 15, 0), 16 if n > 15 else 0)
    assert learned(state) == before
    state, _ = step(state, GOOD)
    assert learned(state) != before and counts(state) == (18, 0, 16)


def test_many_good_steps_double_the_scale_up_to_the_largest():
    state, step = start(game(), scale_loss=True)
    step = jax.jit(step)

    def after(batch, calm: int, scale: float = FIRST_LOSS_SCALE) -> tuple[int, float]:
        guard = state.guard.replace(finite_in_a_row=jnp.int32(calm), loss_scale=jnp.float32(scale))
        guard = step(state.replace(guard=guard), batch)[0].guard
        return int(guard.finite_in_a_row), float(guard.loss_scale)

    last = STEPS_TO_DOUBLE - 1
    assert after(GOOD, 0) == (1, FIRST_LOSS_SCALE)
    assert after(GOOD, last - 1) == (last, FIRST_LOSS_SCALE)
    assert after(GOOD, last) == (0, 2 * FIRST_LOSS_SCALE)
    assert after(GOOD, last, LARGEST_LOSS_SCALE / 2) == (0, LARGEST_LOSS_SCALE)
    assert after(GOOD, last, LARGEST_LOSS_SCALE) == (0, LARGEST_LOSS_SCALE)
    assert after(both_bad(np.nan), last) == (0, FIRST_LOSS_SCALE / 2)
    assert after(both_bad(np.nan), 7, 1) == (0, 1)
