"""GANs with networks so small that what the players do can be worked out by hand."""

import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.spatial.distance import cdist

from gen_jax.augmentations.augmentation import Augmentation
from gen_jax.errors import InputError
from gen_jax.losses import adversarial
from gen_jax.methods.gan import gan
from gen_jax.methods.gan_turns import nearest
from gen_jax.state import init_state
from gen_jax.step import train_step
from gen_jax.types import DataSpec

SPEC = DataSpec((2,), num_classes=3)
GAME = adversarial.non_saturating()
X = np.random.default_rng(0).normal(size=(12, 2)).astype(np.float32)
BATCH = {'x': X, 'label': np.arange(12, dtype=np.int32) % 3}


class Generator(nn.Module):
    """z and a shift for each class, through a matrix, with a running mean of what it made."""

    shape: tuple[int, ...]
    latent_channels: int
    num_classes: int | None = None

    @nn.compact
    def __call__(self, z, label=None, *, train):
        if self.num_classes is not None:
            z = z + nn.Embed(self.num_classes, self.latent_channels, name='label')(label)
        x = nn.Dense(self.shape[0], name='out')(z)
        seen = self.variable('batch_stats', 'mean', jnp.zeros, self.shape)
        if train and not self.is_initializing() and self.is_mutable_collection('batch_stats'):
            seen.value = x.mean(0)
        return x


class Styled(nn.Module):
    """An image of one row, whose layers show themselves: pixel i is the sum of layer i's w."""

    shape: tuple[int, ...]
    latent_channels: int
    num_classes: int | None = None
    num_styles: int = 2

    def setup(self):
        self.map = nn.Dense(4)
        self.gain = self.param('gain', nn.initializers.ones_init(), (2,))
        self.w_mean = self.variable('batch_stats', 'w_mean', jnp.zeros, 4)

    def styles(self, z, label=None, *, train):
        w = self.map(z)
        return jnp.stack([w, w], 1)

    def synthesize(self, w, *, train):
        return (self.gain * w.sum(-1)).reshape(-1, 1, 2, 1)

    def __call__(self, z, label=None, *, train):
        return self.synthesize(self.styles(z, label, train=train), train=train)


class Discriminator(nn.Module):
    """One product, and how often it was asked in training."""

    num_classes: int | None = None
    counts: bool = False
    curved: bool = False

    @nn.compact
    def __call__(self, x, label=None, *, train):
        flat = x.reshape(len(x), -1)
        if self.curved:
            flat = jnp.concatenate([flat, flat**2], -1)
        if self.counts:
            seen = self.variable('batch_stats', 'asked', jnp.zeros, ())
            if train and not self.is_initializing() and self.is_mutable_collection('batch_stats'):
                seen.value = seen.value + 1
        return nn.Dense(1, name='out')(flat)[:, 0]


def networks(generator=Generator, **fields):
    return {
        'generator': generator,
        'discriminator': functools.partial(Discriminator, **fields),
    }


def make(game=GAME, augmentation=None, *, fields=None, generator=Generator, spec=SPEC, **options):
    given = networks(generator, **(fields or {}))
    return gan(given, spec, game, augmentation, latent_channels=2, **options)


def run(method, num_steps: int = 1, batch=BATCH, rate: float = 0.1):
    """States and metrics of some steps of plain gradient descent."""
    optimizers = {player: optax.sgd(rate) for player in method.trained}
    step = jax.jit(
        functools.partial(train_step, method=method, optimizers=optimizers, ema_decay=0.5)
    )
    states, metrics = [init_state(method, optimizers, 0, batch)], []
    for _ in range(num_steps):
        state, found = step(states[-1], batch)
        states.append(state)
        metrics.append(found)
    return states, metrics


def losses_of(method, phase: int, state, key=None, batch=BATCH):
    """Loss, state and metrics of one turn."""
    key = jax.random.key(1) if key is None else key
    loss, (model_state, metrics) = method.phases[phase].loss(state.params, state, batch, key)
    return float(loss), model_state, metrics


def same(a, b) -> bool:
    return all(
        np.asarray(x).tobytes() == np.asarray(y).tobytes()
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
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


def shift(adapts: bool) -> Augmentation:
    """All examples moved by the strength."""
    rule = {'target': 0.5, 'steps': 10} if adapts else {}
    return Augmentation(lambda x, key, strength: x + strength, **rule)


def test_the_discriminator_sees_augmented_examples_of_both_kinds():
    (state, _), _ = run(make())
    plain, moved = (losses_of(make(augmentation=a), 0, state)[2] for a in (None, shift(False)))
    by = float(np.sum(state.params['discriminator']['out']['kernel']))
    for name in ('logit_of_real', 'logit_of_made'):
        assert float(moved[name] - plain[name]) == pytest.approx(by, abs=1e-5), name


def test_an_augmentation_adapts_to_what_the_discriminator_is_sure_of():
    method = make(augmentation=shift(True))
    far = {'x': X + np.float32(50)}
    states, metrics = run(method, 20, far, rate=1e-3)
    strengths = [float(s.model_state['augmentation']['strength']) for s in states]
    sure = [float(s.model_state['augmentation']['sign']) > 0.5 for s in states]
    for (before, after), is_sure in zip(itertools.pairwise(strengths), sure[1:], strict=True):
        wanted = np.clip(before + (0.1 if is_sure else -0.1), 0, 1)
        assert after == pytest.approx(wanted, abs=1e-6)
    assert metrics[-1]['discriminator/augmentation'] == strengths[-1]
    assert any(sure)


def test_consistency_is_of_augmented_examples_and_the_game_of_plain_ones():
    method = make(augmentation=shift(False), consistency=3.0)
    (state, _), _ = run(method)
    plain, _, _ = losses_of(make(), 0, state)
    loss, _, metrics = losses_of(method, 0, state)
    by = float(np.sum(state.params['discriminator']['out']['kernel']))
    assert float(metrics['consistency']) == pytest.approx(2 * by**2, rel=1e-4)
    assert loss == pytest.approx(plain + 3 * 2 * by**2, rel=1e-4)


# Styles


IMAGE = DataSpec((1, 2, 1))
IMAGES = {'x': np.zeros((8, 1, 2, 1), np.float32)}


def styled(**options):
    return make(generator=Styled, spec=IMAGE, **options)


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
        ({'penalty_steps': 5}, r'^method\.penalty_final, method\.penalty_steps: 1\.0 and 5; 1 and'),
        ({'consistency': 1.0}, r'^method\.consistency: 1\.0; .*diff_augment'),
        (
            {'consistency': 1.0, 'augmentation': shift(True)},
            r'^method\.consistency: 1\.0; .* do not adapt',
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
