"""Optimizers against their formulas."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gen_jax.errors import InputError
from gen_jax.optim import learning_rate_schedule, optimizer


def rates(*steps, **options):
    options = {
        'peak': 2.0,
        'warmup_steps': 4,
        'decay_steps': None,
        'field': 'optim.model',
    } | options
    schedule = learning_rate_schedule(**options)
    return [float(schedule(step)) for step in steps]


def test_warm_up_is_linear_and_reaches_the_peak():
    np.testing.assert_allclose(
        rates(0, 1, 3, 4, 1000, schedule='constant'), [0.5, 1.0, 2.0, 2.0, 2.0]
    )


def test_decays_end_at_zero():
    linear = rates(4, 9, 14, 99, schedule='linear', decay_steps=10)
    np.testing.assert_allclose(linear, [2, 1, 0, 0], atol=1e-6)
    cosine = rates(4, 9, 14, 99, schedule='cosine', decay_steps=10)
    np.testing.assert_allclose(cosine, [2, 1, 0, 0], atol=1e-6)
    np.testing.assert_allclose(
        rates(4 + 2.5, schedule='cosine', decay_steps=10), 1 + np.cos(np.pi / 4), rtol=1e-6
    )


def test_gradients_are_clipped_to_the_norm_before_the_update():
    update = optimizer('sgd', learning_rate=1.0, clip_norm=0.5)
    gradient = {'w': jnp.array([3.0, 4.0])}
    step, _ = update.update(gradient, update.init(gradient))
    np.testing.assert_allclose(step['w'], [-0.3, -0.4], rtol=1e-6)


def test_options_reach_optax():
    ours, theirs = optimizer('adam', learning_rate=0.1, b1=0.5), optax.adam(0.1, b1=0.5)
    gradient, params = {'w': jnp.array([1.0, -2.0])}, {'w': jnp.zeros(2)}
    a, _ = ours.update(gradient, ours.init(params), params)
    b, _ = theirs.update(gradient, theirs.init(params), params)
    np.testing.assert_array_equal(a['w'], b['w'])


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'name': 'adamm'}, "optim.name: optax has no optimizer 'adamm'"),
        ({'name': 'clip_by_global_norm'}, 'optim.name'),
        ({'beta1': 0.9}, "optim.beta1: adam takes no 'beta1'; it takes b1"),
        ({'learning_rate': 0.0}, 'optim.learning_rate'),
        ({'clip_norm': 0.0}, 'optim.clip_norm'),
        ({'schedule': 'cosine'}, 'optim.decay_steps'),
        ({'schedule': 'constant', 'decay_steps': 5}, 'optim.decay_steps'),
        ({'schedule': 'step'}, 'choose from constant, cosine, linear'),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(InputError) as error:
        optimizer(**({'name': 'adam', 'learning_rate': 0.1} | options))
    assert message in str(error.value)
