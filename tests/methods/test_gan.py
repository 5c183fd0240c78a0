"""The game of two tiny players, what is drawn from them, and what is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.spatial.distance import cdist

from gen_jax.augmentations.augmentation import Rule
from gen_jax.errors import InputError
from gen_jax.losses import adversarial
from gen_jax.methods.gan import gan
from gen_jax.methods.gan_turns import nearest, told_apart
from gen_jax.state import init_state
from gen_jax.step import train_step
from gen_jax.types import DataSpec
from tests.methods.tiny_gan import (
    BATCH,
    GAME,
    IMAGES,
    SPEC,
    Generator,
    losses_of,
    make,
    run,
    same,
    shift,
    styled,
)

# The game


def test_the_best_discriminator_of_known_densities_is_their_log_ratio():
    """Real points are of N((1, 0), 1), made ones of N(0, 1), so that log p / q is linear, as D is.
    The generator stands still."""
    points = np.random.default_rng(1).normal(size=(1024, 2)) + np.array([1, 0])
    batch = {'x': points.astype(np.float32)}
    method = make()
    method = method._replace(phases=method.phases[:1], averaged=())
    optimizers = {'discriminator': optax.adam(0.02)}
    state = init_state(method, optimizers, 0, batch)
    out = {'kernel': jnp.eye(2), 'bias': jnp.zeros(2)}
    state = state.replace(params={**state.params, 'generator': {'out': out}})
    step = jax.jit(functools.partial(train_step, method=method, optimizers=optimizers, ema_decay=0))
    # Of the points as they fell: log N(x; m, 1) / N(x; 0, 1) = m x - m^2 / 2.
    mean = batch['x'].mean(0)
    wanted, found = [*mean, -(mean @ mean) / 2], []
    for _ in range(300):
        state, _ = step(state, batch)
        answer = state.params['discriminator']['out']
        found.append([*answer['kernel'][:, 0], answer['bias'][0]])
    np.testing.assert_allclose(np.mean(found[150:], 0), wanted, atol=0.08)


def test_every_turn_is_on_latents_of_its_own():
    states, _ = run(make(discriminator_steps=2))
    means = []
    for phase in range(3):
        key = jax.random.fold_in(jax.random.key(0), phase)
        _, _, metrics = losses_of(make(discriminator_steps=2), phase, states[1], key)
        means.append(float(metrics.get('logit_of_made', metrics['loss'])))
    assert len(set(means)) == 3


def test_the_discriminators_turns_share_the_batch_among_them():
    """Logits of real examples are linear: their means over the parts are that of the batch."""
    method = make(discriminator_steps=3)
    (state, _), _ = run(method)
    parts = [float(losses_of(method, turn, state)[2]['logit_of_real']) for turn in range(3)]
    (whole,) = (float(losses_of(make(), 0, state)[2]['logit_of_real']),)
    assert np.mean(parts) == pytest.approx(whole, abs=1e-6) and len(set(parts)) == 3


def test_turns_are_counted_so_that_rates_fall_over_steps():
    method = make(discriminator_steps=5, r1=1.0, penalty_every=4)
    assert method.updates_per_step('discriminator') == 5.25
    assert method.updates_per_step('generator') == 1


@pytest.mark.parametrize('name', ['hinge', 'wasserstein', 'least_squares', 'relativistic'])
def test_every_game_is_played(name):
    method = make(getattr(adversarial, name)())
    states, metrics = run(method, 3)
    assert all(np.isfinite(value) for row in metrics for value in row.values())
    for player in ('generator', 'discriminator'):
        assert not same(states[0].params[player], states[1].params[player])


def test_labels_reach_both_players():
    method = make(class_conditional=True)
    states, _ = run(method)
    assert method.num_classes == 3 and 'label' in states[1].params['generator']
    x = [
        method.sample(
            states[1].params, states[1].model_state, jax.random.key(0), 2, cond=jnp.full(2, label)
        )
        for label in (0, 1)
    ]
    assert not np.allclose(*x)
    with pytest.raises(InputError, match='needs labels of its 3 classes'):
        method.sample(states[1].params, {}, jax.random.key(0), 2)


# Styles


def test_mixed_styles_are_of_two_latents():
    """With gains of 1 both pixels are equal but where the second layer is another latent's."""
    for share, wanted in ((0.0, 0), (1.0, 1)):
        method = styled(style_mixing=share)
        (state, _), _ = run(method, 1, IMAGES)
        players = method.phases[0].loss.args[0]
        x, _ = players.make(
            state.params, state.model_state, jax.random.key(0), 500, None, train=True
        )
        other = np.mean(np.abs(np.asarray(x[:, 0, 0] - x[:, 0, 1])) > 1e-6)
        assert other == wanted
        x, _ = players.make(
            state.params, state.model_state, jax.random.key(0), 9, None, train=False
        )
        np.testing.assert_allclose(x[:, 0, 0], x[:, 0, 1], rtol=1e-5)


def test_truncation_brings_styles_to_the_mean_and_latents_into_a_box():
    method = styled()
    (state, _), _ = run(method, 1, IMAGES)
    mean = {'generator': {'batch_stats': {'w_mean': jnp.arange(4.0)}}}
    x = method.sample(state.params, mean, jax.random.key(0), 5, truncation=1e-6)
    np.testing.assert_allclose(x, 6, atol=1e-4)
    plain = make()
    (state, _), _ = run(plain)
    out = {'kernel': jnp.eye(2), 'bias': jnp.zeros(2)}
    params = {**state.params, 'generator': {'out': out}}
    x = plain.sample(params, state.model_state, jax.random.key(0), 2000, truncation=0.5)
    assert 0.49 < np.abs(x).max() <= 0.5
    with pytest.raises(InputError, match=r'^truncation: 0 must be above 0'):
        plain.sample(params, state.model_state, jax.random.key(0), 2, truncation=0)


@pytest.mark.parametrize('method', [make(), styled()], ids=['plain', 'styled'])
def test_the_latent_space_makes_what_sampling_makes(method):
    batch = BATCH if method.latents.is_normal else IMAGES
    (_, state), _ = run(method, 1, batch)
    given = (state.params, state.model_state)
    w = method.latents.draw(*given, jax.random.key(3), 7)
    assert w.shape[:2] == (7, method.latents.num_layers)
    assert method.latents.mean(*given).shape == w.shape[1:]
    z = jax.random.normal(jax.random.key(3), (7, 2))
    generate = method.phases[0].loss.args[0].generate
    x, _ = generate(*given, z, None, train=False)
    np.testing.assert_allclose(method.latents.decode(*given, w), x, rtol=1e-6)


# Diversity


def test_nearest_against_scipy():
    x = np.random.default_rng(2).normal(size=(20, 3, 2)).astype(np.float32) + 100
    distances = cdist(x.reshape(20, -1), x.reshape(20, -1))
    np.fill_diagonal(distances, np.inf)
    np.testing.assert_allclose(nearest(jnp.asarray(x)), distances.min(1), rtol=1e-3)


def test_diversity_is_that_of_real_examples_or_nothing():
    method = make()
    rows = np.random.default_rng(3).normal(size=(512, 2)).astype(np.float32)
    (state, _), _ = run(method)
    for kernel, wanted in ((np.eye(2), 1.0), (np.zeros((2, 2)), 0.0)):
        out = {'kernel': jnp.asarray(kernel, jnp.float32), 'bias': jnp.ones(2)}
        told = state.replace(params={**state.params, 'generator': {'out': out}})
        _, _, metrics = losses_of(method, 1, told, batch={'x': rows})
        assert float(metrics['diversity']) == pytest.approx(wanted, abs=0.15)
    (symptom,) = method.symptoms
    assert symptom.metric == 'generator/diversity' and 0 < symptom.least < 0.5


def test_told_apart_counts_equal_logits_half():
    real, made = jnp.array([1.0, 0.0]), jnp.array([0.0, 0.0, 2.0])
    assert float(told_apart(real, made)) == pytest.approx((2 / 3 + 1 / 3) / 2)


# What is refused


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'r1': -1.0}, r'^method\.r1: -1\.0 must be at least 0'),
        ({'r1': float('nan')}, r'^method\.r1: nan must be at least 0'),
        ({'discriminator_steps': 0}, r'^method\.discriminator_steps: 0 must be at least 1'),
        ({'style_mixing': 2.0}, r'^method\.style_mixing: 2\.0 must be a share'),
        ({'style_mixing': 0.5}, r'^method\.style_mixing: 0\.5, and the generator has no styles'),
        ({'path_length': 1.0}, r'^method\.path_length: 1\.0, and the generator has no styles'),
        ({'penalty_every': 4}, r'^method\.penalty_every: 4 without a penalty; set r1'),
        (
            {'penalty_steps': 5, 'penalty_final': 0.1},
            r'^method\.penalty_final, method\.penalty_steps: 0\.1 and 5; 1 and',
        ),
        *(
            (
                {'game': game(), 'augmentation': shift(Rule(0.6, 10))},
                r'^method\.augmentation\.target: 0\.6 is of the sign of logits',
            )
            for game in (adversarial.wasserstein, adversarial.relativistic)
        ),
        ({'penalty_steps': 5}, r'^method\.penalty_final, method\.penalty_steps: 1\.0 and 5; 1 and'),
        ({'consistency': 1.0}, r'^method\.consistency: 1\.0; .*diff_augment'),
        (
            {'consistency': 1.0, 'augmentation': shift(Rule(0.5, 10))},
            r'^method\.consistency: 1\.0; .* of one strength',
        ),
        (
            {'class_conditional': True, 'spec': DataSpec((2,))},
            r'^method\.class_conditional: this data has no labels',
        ),
        ({'spec': DataSpec((5,), 'int32', vocab_size=7)}, r'^method\.name: .* for numbers'),
    ],
)
def test_what_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        make(**options)


def test_other_players_are_refused():
    with pytest.raises(InputError, match=r"^networks: has sections for \['model'\]"):
        gan({'model': Generator}, SPEC, GAME)
