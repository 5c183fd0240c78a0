"""Optimizers against their formulas; Muon is in `test_optim_muon.py`."""

import importlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gen_jax.errors import InputError
from gen_jax.optim import evaluated_params, learning_rate_schedule, optimizer
from gen_jax.run import assemble


def rates(*steps, **options):
    options = {
        'peak': 2.0,
        'warmup_steps': 4,
        'stable_steps': 0,
        'decay_steps': None,
        'final_rate': 0.0,
        'field': 'optim.model',
    } | options
    schedule = learning_rate_schedule(**options)
    return [float(schedule(step)) for step in steps]


def test_warm_up_is_linear_and_reaches_the_peak():
    np.testing.assert_allclose(
        rates(0, 1, 3, 4, 1000, schedule='constant'), [0.5, 1.0, 2.0, 2.0, 2.0]
    )


def test_a_schedule_goes_by_steps_however_often_a_player_is_updated_in_one():
    found = optimizer(
        'sgd', learning_rate=1.0, schedule='linear', decay_steps=2, updates_per_step=2
    )
    state, moved = found.init(jnp.zeros(())), []
    for _ in range(5):
        update, state = found.update(jnp.ones(()), state)
        moved.append(-float(update))
    np.testing.assert_allclose(moved, [1, 0.75, 0.5, 0.25, 0])


def test_a_schedule_free_optimizer_evaluates_the_average_of_its_fast_iterates():
    """Equations of Defazio et al. 2024, with gradient steps: z <- z - rate g(y),
    x <- (1 - c) x + c z with c = 1 / n at a constant rate, y = (1 - b1) z + b1 x."""
    found = optimizer(
        *('schedule_free_sgd',), learning_rate=0.5, clip_norm=100.0, skip_above=1e6, b1=0.9
    )
    y = x = z = np.array([4.0, -2.0])
    params = jnp.asarray(y)
    state = found.init(params)
    for n in range(1, 6):
        updates, state = found.update(params, state, params)  # the gradient of |y|^2 / 2
        params = optax.apply_updates(params, updates)
        z = z - 0.5 * y
        x = (1 - 1 / n) * x + z / n
        y = 0.1 * z + 0.9 * x
        np.testing.assert_allclose(params, y, rtol=1e-5)
        np.testing.assert_allclose(evaluated_params(state, params), x, rtol=1e-5)
    plain = optimizer('adam', learning_rate=0.5)
    assert evaluated_params(plain.init(params), params) is params


def test_a_run_tells_its_optimizers_how_often_a_player_is_updated():
    config = importlib.import_module('configs.wgan_gp_digits').get_config('smoke')
    with config.unlocked():
        for player in ('generator', 'discriminator'):
            config.optim[player].decay_steps = 3
    optimizers = assemble(config).optimizers
    for player, updates in (('generator', 1), ('discriminator', 2)):
        state, moved = optimizers[player].init(jnp.zeros(())), []
        for _ in range(3 * updates + 1):
            update, state = optimizers[player].update(jnp.ones(()), state)
            moved.append(-float(update))
        assert moved[-1] == pytest.approx(0, abs=1e-9) and min(moved[:-1]) > 1e-5
    with config.unlocked():
        config.optim.generator.updates_per_step = 2
    with pytest.raises(InputError, match=r'^optim\.generator\.updates_per_step: .* leave it out'):
        assemble(config)


def test_decays_end_at_zero():
    linear = rates(4, 9, 14, 99, schedule='linear', decay_steps=10)
    np.testing.assert_allclose(linear, [2, 1, 0, 0], atol=1e-6)
    cosine = rates(4, 9, 14, 99, schedule='cosine', decay_steps=10)
    np.testing.assert_allclose(cosine, [2, 1, 0, 0], atol=1e-6)
    np.testing.assert_allclose(
        rates(4 + 2.5, schedule='cosine', decay_steps=10), 1 + np.cos(np.pi / 4), rtol=1e-6
    )


def test_a_plateau_lies_between_the_warm_up_and_the_decay():
    """Warm-up, stable, decay; the decay is that of optax."""
    steps = (0, 3, 4, 19, 20, 25, 29, 30, 99)
    found = rates(*steps, schedule='linear', stable_steps=16, decay_steps=10)
    decay = optax.linear_schedule(2.0, 0.0, 10, transition_begin=20)
    expected = [0.5, 2.0, 2.0, 2.0, *(float(decay(step)) for step in steps[4:])]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_decays_end_at_their_share_of_the_peak():
    steps = (4, 5, 9, 13, 14, 99)
    cosine = optax.cosine_decay_schedule(2.0, 10, alpha=0.1)
    np.testing.assert_allclose(
        rates(*steps, schedule='cosine', decay_steps=10, final_rate=0.1),
        [float(cosine(step - 4)) for step in steps],
        rtol=1e-6,
    )
    np.testing.assert_allclose(
        rates(*steps, schedule='linear', decay_steps=10, final_rate=0.25),
        [2.0, 1.85, 1.25, 0.65, 0.5, 0.5],
        rtol=1e-6,
    )


def test_without_plateau_and_share_the_rates_are_to_the_bit_those_of_the_formula_alone():
    """Old runs can be repeated."""
    n = jnp.arange(300)
    for schedule in ('cosine', 'linear'):
        rate = learning_rate_schedule(2e-4, schedule, 7, 0, 250, 0.0, 'optim')
        progress = jnp.clip((n - 7) / 250, 0.0, 1.0)
        left = 1 - progress if schedule == 'linear' else 0.5 * (1 + jnp.cos(jnp.pi * progress))
        expected = 2e-4 * jnp.minimum(1.0, (n + 1) / 7) * left
        np.testing.assert_array_equal(rate(n), expected)


PARAMS = {
    'tokens': {'embedding': np.full((5, 4), 2.0, np.float32)},
    'positions': {'embedding': np.full((3, 4), 2.0, np.float32)},
    'blocks': {  # stacked: a bias has two axes
        'dense': {
            'kernel': np.full((2, 4, 4), 2.0, np.float32),
            'bias': np.full((2, 4), 2.0, np.float32),
        },
        'embedding': {'bias': np.full((2, 4), 2.0, np.float32)},  # a module of that name
        'norm': {'scale': np.full((2, 4), 2.0, np.float32)},
    },
}


@pytest.mark.parametrize('name', ['lion', 'adafactor'])  # which name the mask otherwise
def test_only_matrices_decay_where_that_is_asked_for(name):
    decay = 'weight_decay_rate' if name == 'adafactor' else 'weight_decay'

    def moved(**options) -> dict[str, bool]:
        update = optimizer(name, learning_rate=0.1, **{decay: 0.5}, **options)
        zero = jax.tree.map(np.zeros_like, PARAMS)
        step, _ = jax.jit(update.update)(zero, update.init(PARAMS), PARAMS)
        return {
            '/'.join(key.key for key in path): bool(np.all(np.asarray(leaf) != 0))
            for path, leaf in jax.tree.leaves_with_path(step)
        }

    assert all(moved().values())
    matrices = {'tokens/embedding', 'positions/embedding', 'blocks/dense/kernel'}
    found = moved(decayed='matrices')
    assert {path for path, decays in found.items() if decays} == matrices


def test_boxes_with_the_names_of_axes_make_no_difference_to_what_decays():
    box = nn.LogicallyPartitioned(jnp.full((4, 4), 2.0), ('channels', 'hidden'))
    boxed = {'dense': {'kernel': box, 'bias': jnp.ones(4)}}
    update = optimizer('adamw', learning_rate=0.1, weight_decay=0.5, decayed='matrices')
    state, params = nn.unbox(update.init(boxed)), nn.unbox(boxed)
    assert jax.tree.structure(state) == jax.tree.structure(update.init(params))
    step, _ = update.update(jax.tree.map(jnp.zeros_like, params), state, params)
    np.testing.assert_allclose(step['dense']['kernel'], jnp.full((4, 4), -0.1), rtol=1e-6)
    np.testing.assert_array_equal(step['dense']['bias'], jnp.zeros(4))


def test_gradients_are_clipped_to_the_norm_before_the_update():
    update = optimizer('sgd', learning_rate=1.0, clip_norm=0.5)
    gradient = {'w': jnp.array([3.0, 4.0])}
    step, _ = update.update(gradient, update.init(gradient))
    np.testing.assert_allclose(step['w'], [-0.3, -0.4], rtol=1e-6)


NORMAL = {'w': jnp.array([3.0, -4.0]), 'b': jnp.array(0.5)}  # of norm 5.02
LARGE = jax.tree.map(lambda g: 2 * g, NORMAL)
SKIPPING = {'learning_rate': 0.1, 'weight_decay': 0.5, 'schedule': 'linear', 'decay_steps': 9}


def bits(tree) -> list[bytes]:
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


@pytest.mark.parametrize('clip_norm', [None, 1.0])
def test_gradients_that_are_too_large_are_skipped_and_counted_and_others_make_no_difference(
    clip_norm,
):
    """To the bit: parameters, moments, and the count that the schedule goes by."""
    plain = optimizer('adamw', clip_norm=clip_norm, **SKIPPING)
    skipping = optimizer('adamw', clip_norm=clip_norm, skip_above=6.0, **SKIPPING)

    def stepper(update):
        @jax.jit
        def step(params, state, gradient):
            updates, state = update.update(gradient, state, params)
            return optax.apply_updates(params, updates), state

        return step

    plain_step, step = stepper(plain), stepper(skipping)
    params = expected = {'w': jnp.array([1.0, 2.0]), 'b': jnp.array(-3.0)}
    state, expected_state = skipping.init(params), plain.init(params)
    huge = jax.tree.map(lambda g: 1e30 * g, NORMAL)
    infinite = NORMAL | {'b': jnp.array(jnp.inf)}
    for gradient in (NORMAL, LARGE, NORMAL, huge, infinite, NORMAL):
        before = bits((params, state.inner)), int(state.num_too_large)
        params, state = step(params, state, gradient)
        if gradient is NORMAL:
            expected, expected_state = plain_step(expected, expected_state, gradient)
            assert int(state.num_too_large) == before[1]
            assert bits((params, state.inner)) != before[0]
        else:
            assert int(state.num_too_large) == before[1] + 1
            assert bits((params, state.inner)) == before[0]
        assert bits((params, state.inner)) == bits((expected, expected_state))


def test_a_gradient_at_the_limit_is_used_and_one_that_is_no_number_is_left_to_the_step():
    update = optimizer('sgd', learning_rate=1.0, skip_above=5.0)
    gradient = {'w': jnp.array([3.0, -4.0])}
    updates, state = update.update(gradient, update.init(gradient))
    np.testing.assert_array_equal(updates['w'], [-3, 4])
    assert state.num_too_large == 0
    updates, state = update.update({'w': jnp.array([3.0, jnp.nan])}, state)
    assert np.isnan(updates['w'][1]) and state.num_too_large == 0


def test_options_reach_optax():
    ours, theirs = optimizer('adam', learning_rate=0.1, b1=0.5), optax.adam(0.1, b1=0.5)
    gradient, params = {'w': jnp.array([1.0, -2.0])}, {'w': jnp.zeros(2)}
    a, _ = ours.update(gradient, ours.init(params), params)
    b, _ = theirs.update(gradient, theirs.init(params), params)
    np.testing.assert_array_equal(a['w'], b['w'])


DECAY = {'schedule': 'linear', 'decay_steps': 5}


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'name': 'adamm'}, "optim.name: optax has no optimizer 'adamm'"),
        ({'name': 'clip_by_global_norm'}, 'optim.name'),
        ({'beta1': 0.9}, "optim.beta1: adam takes no 'beta1'; it takes b1"),
        ({'learning_rate': 0.0}, 'optim.learning_rate'),
        ({'b1': -0.1}, 'optim.b1: -0.1 must be from 0 to below 1'),
        ({'b2': 1.0}, 'optim.b2: 1.0 must be from 0 to below 1'),
        ({'clip_norm': 0.0}, 'optim.clip_norm'),
        ({'skip_above': 0.0}, 'optim.skip_above: 0.0 must be above 0'),
        ({'skip_above': 1.0, 'clip_norm': 2.0}, 'optim.skip_above: 1.0 must be above'),
        ({'schedule': 'cosine'}, 'optim.decay_steps'),
        ({'schedule': 'constant', 'decay_steps': 5}, 'optim.decay_steps'),
        ({'schedule': 'step'}, 'choose from constant, cosine, linear'),
        ({'stable_steps': 5}, "optim.stable_steps: 5 with schedule 'constant'"),
        ({'final_rate': 0.1}, "optim.final_rate: 0.1 with schedule 'constant'"),
        ({**DECAY, 'stable_steps': -1}, 'optim.stable_steps'),
        ({**DECAY, 'final_rate': 1.0}, 'optim.final_rate: 1.0 must be'),
        ({**DECAY, 'final_rate': -0.1}, 'optim.final_rate: -0.1 must be'),
        ({'decayed': 'kernels'}, "optim.decayed: no 'kernels'; choose from all, matrices"),
        ({'decayed': 'matrices'}, 'optim.decayed: adam decays all parameters or none'),
        ({'name': 'adamw', 'mask': True}, "optim.mask: adamw takes no 'mask'"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(InputError) as error:
        optimizer(**({'name': 'adam', 'learning_rate': 0.1} | options))
    assert message in str(error.value)
