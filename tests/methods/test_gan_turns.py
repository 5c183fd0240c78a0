"""What the players of a GAN are asked besides their game: penalties, augmentations and lengths."""

import functools
import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from gen_jax.augmentations.augmentation import Rule
from gen_jax.losses import adversarial
from tests.methods.tiny_gan import IMAGES, X, losses_of, make, run, same, shift, styled

# Penalties


def test_penalties_at_once_are_part_of_the_loss_and_lazy_ones_a_turn_of_their_own():
    weights = {'r1': 0.3, 'r2': 0.2, 'gradient_penalty': 2.0}
    (state, _), _ = run(make(fields={'curved': True}))
    of = functools.partial(make, fields={'curved': True})
    plain, _, _ = losses_of(of(), 0, state)
    whole, _, metrics = losses_of(of(**weights), 0, state)
    asked = sum(weight * float(metrics[name]) for name, weight in weights.items())
    assert whole == pytest.approx(plain + asked, rel=1e-5) and asked > 0.1
    lazy = of(**weights, penalty_every=4)
    assert losses_of(lazy, 0, state)[0] == pytest.approx(plain)
    assert [(phase.every, phase.name) for phase in lazy.phases] == [
        (1, None),
        (4, 'penalty'),
        (1, None),
    ]
    loss, _, metrics = losses_of(lazy, 1, state)
    total = sum(weight * float(metrics[name]) for name, weight in weights.items())
    assert loss == pytest.approx(4 * total, rel=1e-5)
    often = of(**weights, penalty_every=4, discriminator_steps=3)
    loss, _, metrics = losses_of(often, 3, state)
    total = sum(weight * float(metrics[name]) for name, weight in weights.items())
    assert loss == pytest.approx(3 * 4 * total, rel=1e-5)  # it stands for twelve turns


def test_penalties_fall_along_a_cosine():
    method = make(r1=1.0, penalty_final=0.1, penalty_steps=10)
    (state, _), _ = run(method)
    asked = []
    for step in (0, 5, 10, 20):
        late = state.replace(step=jnp.int32(step))
        asked.append(losses_of(method, 0, late)[0] - losses_of(make(), 0, late)[0])
    np.testing.assert_allclose(np.array(asked) / asked[0], [1, 0.55, 0.1, 0.1], rtol=1e-4)


def test_r1_is_of_real_examples_and_r2_of_made_ones():
    """D = w x + v x^2 with the slope w + 2 v x."""
    method = make(fields={'curved': True}, r1=1.0, r2=1.0)
    (state, _), _ = run(method)
    _, _, metrics = losses_of(method, 0, state)
    kernel = np.asarray(state.params['discriminator']['out']['kernel'])[:, 0]
    slope = kernel[:2] + 2 * kernel[2:] * X
    assert float(metrics['r1']) == pytest.approx((slope**2).sum(1).mean() / 2, rel=1e-5)
    assert float(metrics['r2']) != pytest.approx(float(metrics['r1']), rel=1e-2)


def test_a_lazy_penalty_leaves_the_generator_as_it_is_bit_for_bit():
    method = make(fields={'curved': True}, r1=1.0, penalty_every=2)
    only = method._replace(phases=method.phases[1:2], averaged=())
    (before, first, second), metrics = run(only, 2)
    assert same(before.params, first.params) and np.isnan(metrics[0]['discriminator/penalty_r1'])
    assert same(first.params['generator'], second.params['generator'])
    assert not same(first.params['discriminator'], second.params['discriminator'])
    assert metrics[1]['discriminator/penalty_r1'] > 0


# States


def test_a_networks_state_moves_in_its_own_turns_alone():
    method = make(fields={'counts': True}, discriminator_steps=2, r1=1.0)
    states, _ = run(method, 2)
    asked = [float(s.model_state['discriminator']['batch_stats']['asked']) for s in states]
    assert asked == [0, 4, 8]  # twice in each of two turns; neither penalties nor the generator
    mean = states[1].model_state['generator']['batch_stats']['mean']
    assert np.abs(np.asarray(mean)).max() > 0


# Augmentations


def test_the_discriminator_sees_augmented_examples_of_both_kinds():
    (state, _), _ = run(make())
    plain, moved = (losses_of(make(augmentation=a), 0, state)[2] for a in (None, shift()))
    by = float(np.sum(state.params['discriminator']['out']['kernel']))
    for name in ('logit_of_real', 'logit_of_made'):
        assert float(moved[name] - plain[name]) == pytest.approx(by, abs=1e-5), name


def test_an_augmentation_adapts_to_what_the_discriminator_is_sure_of():
    method = make(augmentation=shift(Rule(0.5, 10)))
    far = {'x': X + np.float32(50)}
    states, metrics = run(method, 20, far, rate=1e-3)
    strengths = [float(s.model_state['augmentation']['strength']) for s in states]
    sure = [float(s.model_state['augmentation']['sign']) > 0.5 for s in states]
    for (before, after), is_sure in zip(itertools.pairwise(strengths), sure[1:], strict=True):
        wanted = np.clip(before + (0.1 if is_sure else -0.1), 0, 1)
        assert after == pytest.approx(wanted, abs=1e-6)
    assert metrics[-1]['discriminator/augmentation'] == strengths[-1]
    assert any(sure)


def test_an_augmentation_moves_once_in_a_step_whatever_its_turns():
    states, _ = run(make(augmentation=shift(Rule(-1.5, 10)), discriminator_steps=3), 2)
    assert [float(s.model_state['augmentation']['strength']) for s in states] == pytest.approx(
        [0, 0.1, 0.2]
    )


def test_a_scheduled_strength_goes_along_half_a_cosine():
    rule = Rule(None, 4, p_max=0.6)
    states, metrics = run(make(adversarial.relativistic(), shift(rule)), 7)
    strengths = [row['discriminator/augmentation'] for row in metrics]
    share = np.minimum(np.arange(7) / 4, 1)
    np.testing.assert_allclose(strengths, 0.3 * (1 - np.cos(np.pi * share)), atol=1e-6)
    assert list(states[1].model_state['augmentation']) == ['strength']


def test_with_consistency_lazy_penalties_are_of_examples_as_they_are_too():
    asked = []
    for every in (1, 2):
        options = {'consistency': 1.0, 'r1': 1.0, 'penalty_every': every}
        method = make(augmentation=shift(), fields={'curved': True}, **options)
        (state, _), _ = run(method)
        phase = [phase.name for phase in method.phases].index('penalty' if every > 1 else None)
        asked.append(float(losses_of(method, phase, state)[2]['r1']))
    assert asked[0] == pytest.approx(asked[1], rel=1e-5)


def test_consistency_is_of_augmented_examples_and_the_game_of_plain_ones():
    method = make(augmentation=shift(), consistency=3.0)
    (state, _), _ = run(method)
    plain, _, _ = losses_of(make(), 0, state)
    loss, _, metrics = losses_of(method, 0, state)
    by = float(np.sum(state.params['discriminator']['out']['kernel']))
    assert float(metrics['consistency']) == pytest.approx(2 * by**2, rel=1e-4)
    assert loss == pytest.approx(plain + 3 * 2 * by**2, rel=1e-4)


# Path lengths


def test_path_lengths_are_held_to_their_mean():
    """J' y of pixel i along layer i: sqrt((4 g1^2 y1^2 + 4 g2^2 y2^2) / 2)."""
    method = styled(path_length=2.0, path_length_every=2)
    assert [(phase.player, phase.every, phase.name) for phase in method.phases][-1] == (
        *('generator', 2, 'path'),
    )
    states, metrics = run(method, 2, IMAGES)
    assert np.isnan(metrics[0]['generator/path_length'])
    lengths = float(metrics[1]['generator/path_length'])
    assert float(states[2].model_state['path_length']) == pytest.approx(0.01 * lengths, rel=1e-4)
    # E sqrt(2 (y1^2 + y2^2)) with y of variance 1/2 is that of sqrt(2) times Rayleigh(1/sqrt 2).
    assert lengths == pytest.approx(np.sqrt(np.pi / 2), rel=0.5)
