"""The semi-supervised autoencoder: its sums over classes by hand, its phases as one gradient."""

import importlib
import math
from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gen_jax import parallel
from gen_jax.errors import InputError
from gen_jax.losses import observation
from gen_jax.methods.classifier import shifted
from gen_jax.methods.semi_supervised_vae import semi_supervised_vae
from gen_jax.networks.autoencoder import MLPAutoencoder
from gen_jax.networks.dense_classifier import DenseClassifier
from gen_jax.run import assemble, batches_after, compile_step, initialize, load_data
from gen_jax.types import DataSpec

SPEC = DataSpec((3, 3, 1), levels=17, num_classes=3)
LABELS = np.array([2, -1, -1, 0, -1], np.int32)
WEIGHT = 7.0


def autoencoder(**given):
    return MLPAutoencoder(widths=(6,), **given)


def network(**given):
    return DenseClassifier(widths=(6,), **given)


@pytest.fixture(scope='module')
def case():
    return make()


def make(max_shift=0, labels=LABELS):
    """A method, parameters that are not those of the start, and a batch."""
    law = observation.gaussian(SPEC, sigma=0.5)
    networks = {'autoencoder': autoencoder, 'classifier': network}
    method = semi_supervised_vae(
        networks,
        SPEC,
        law,
        latent_channels=2,
        classification_weight=WEIGHT,
        max_shift=max_shift,
    )
    rng = np.random.default_rng(0)
    x = rng.integers(17, size=(len(labels), 3, 3, 1)) / 8 - 1
    batch = {'x': jnp.asarray(x, jnp.float32), 'label': jnp.asarray(labels)}
    params, model_state = method.init(jax.random.key(0), batch)
    params = jax.tree.map(lambda leaf: leaf + 0.3 * rng.normal(size=leaf.shape), params)
    return SimpleNamespace(
        method=method, params=params, state=SimpleNamespace(model_state=model_state), batch=batch
    )


@jax.jit
def log_q_of(params, x):
    _, logits = network(num_classes=3).apply({'params': params['classifier']}, x, train=False)
    return jax.nn.log_softmax(logits)


@jax.jit
def terms(params, x, y, eps):
    """Of one x and one class: distortion, divergence in closed form, and log q(z) - log p(z)."""
    fields = {'shape': (3, 3, 1), 'code_channels': 4, 'latent_channels': 2, 'out_channels': 1}
    net, own = autoencoder(**fields, num_classes=3), {'params': params['autoencoder']['network']}
    label = jnp.array(y)[None]
    code = net.apply(own, x[None], label, train=False, method='encode')[0]
    mean, log_variance = code[:2], code[2:]
    z = mean + jnp.exp(log_variance / 2) * eps
    mu = net.apply(own, z[None], label, train=False, method='decode')[0]
    distortion = jnp.sum((x - mu) ** 2 / 0.5 + math.log(0.5) + 0.5 * math.log(2 * math.pi))
    rate = 0.5 * jnp.sum(mean**2 + jnp.exp(log_variance) - 1 - log_variance)
    drawn = 0.5 * jnp.sum(z**2 - eps**2 - log_variance)
    return distortion, rate, drawn


def joint(params, batch, key, max_shift=0):
    """Equation (3), row by row and class by class, in nats per dimension."""
    keys = jax.random.split(key, 4)
    eps = jax.random.normal(keys[0], (len(batch['x']), 2))
    log_q = log_q_of(params, shifted(batch['x'], keys[2], max_shift))
    of_row = jax.vmap(terms, (None, None, 0, None))
    of_rows = jax.vmap(of_row, (None, 0, None, 0))
    distortion, rate, _ = of_rows(params, batch['x'], jnp.arange(3), eps)
    total, bound = 0.0, distortion + rate + math.log(3)
    for row, y in enumerate(np.asarray(batch['label'])):
        if y >= 0:
            total += bound[row, y] - WEIGHT * log_q[row, y]
        else:
            total += jnp.sum(jnp.exp(log_q[row]) * (bound[row] + log_q[row]))
    return total / len(batch['x']) / 9


def turn(case, number):
    """Loss, model state and metrics of a phase, and its player's gradient."""
    phase = case.method.phases[number]

    def loss(own):
        params = {**case.params, phase.player: own}
        return phase.loss(params, case.state, case.batch, jax.random.key(1))

    return jax.jit(jax.value_and_grad(loss, has_aux=True))(case.params[phase.player])


@pytest.mark.parametrize(
    ('labels', 'max_shift'),
    [(LABELS, 0), (LABELS, 1), (np.full(3, -1, np.int32), 0), (np.array([1, 0], np.int32), 0)],
)
def test_the_phases_are_one_gradient_of_the_joint_objective(labels, max_shift):
    case = make(max_shift, labels)
    gradient_of = jax.grad(lambda p: joint(p, case.batch, jax.random.key(1), max_shift))
    expected = jax.jit(gradient_of)(case.params)
    for number, player in enumerate(('autoencoder', 'classifier')):
        (loss, (_, metrics)), gradient = turn(case, number)
        assert np.isfinite(loss) and all(np.isfinite(value) for value in metrics.values())
        for found, right in zip(
            jax.tree.leaves(gradient), jax.tree.leaves(expected[player]), strict=True
        ):
            np.testing.assert_allclose(found, right, rtol=2e-4, atol=2e-6)


def test_the_losses_are_sums_over_classes_by_hand(case):
    key = jax.random.key(1)
    (of_autoencoder, (_, metrics)), _ = turn(case, 0)
    (of_classifier, (_, more)), _ = turn(case, 1)
    eps = jax.random.normal(jax.random.split(key, 4)[0], (5, 2))
    log_q = np.asarray(log_q_of(case.params, case.batch['x']), np.float64)
    x = case.batch['x']
    parts = np.array([[terms(case.params, x[i], k, eps[i]) for k in range(3)] for i in range(5)])
    bound = parts[..., 0] + parts[..., 1] + np.log(3)
    known = LABELS >= 0
    weights = np.where(known[:, None], np.eye(3)[LABELS], np.exp(log_q))
    np.testing.assert_allclose(of_autoencoder, (weights * bound).sum(1).mean() / 9, rtol=1e-5)
    np.testing.assert_allclose(metrics['rate'], (weights * parts[..., 1]).sum(1).mean(), rtol=1e-5)
    unlabeled = (np.exp(log_q) * (bound + log_q)).sum(1)
    labeled = -log_q[np.arange(5), LABELS]
    nats = np.where(known, WEIGHT * labeled, unlabeled).mean()
    np.testing.assert_allclose(of_classifier, nats / 9, rtol=1e-5)
    np.testing.assert_allclose(more['cross_entropy'], labeled[known].mean(), rtol=1e-5)
    right = (log_q.argmax(1) == LABELS)[known].mean()
    np.testing.assert_allclose(more['accuracy'], right, rtol=1e-6)
    np.testing.assert_allclose(more['entropy'], -(np.exp(log_q) * log_q).sum(1).mean(), rtol=1e-5)


def test_evaluation_sums_classes_out_of_every_draw(case):
    key, label = jax.random.key(3), np.array([2, 1, 0, 0, 1])
    batch = {**case.batch, 'label': jnp.asarray(label)}
    values = case.method.evaluate(case.params, {}, batch, key, num_samples=4)
    weights, bounds = np.zeros((4, 5, 3)), np.zeros((4, 5, 3))
    for draw in range(4):
        eps = jax.random.normal(jax.random.fold_in(key, draw), (5, 2))
        for row in range(5):
            for k in range(3):
                d, rate, drawn = terms(case.params, batch['x'][row], k, eps[row])
                weights[draw, row, k] = np.exp(-float(d + drawn)) / 3
                bounds[draw, row, k] = d + rate + np.log(3)
    log_q = np.asarray(log_q_of(case.params, batch['x']), np.float64)
    p_of_x = weights.mean(0)
    np.testing.assert_allclose(values['nats'], -np.log(p_of_x.sum(1)), rtol=1e-4)
    with_label = -np.log(p_of_x[np.arange(5), label])
    np.testing.assert_allclose(values['nats_with_label'], with_label, rtol=1e-4)
    assert (values['nats'] < values['nats_with_label']).all()
    unlabeled = (np.exp(log_q) * (bounds.mean(0) + log_q)).sum(1)
    np.testing.assert_allclose(values['loss'], unlabeled / 9, rtol=1e-4)
    np.testing.assert_array_equal(values['accuracy'], log_q.argmax(1) == label)
    surprise = -log_q[np.arange(5), label]
    np.testing.assert_allclose(values['classification_nats'], surprise, rtol=1e-4, atol=1e-6)
    assert set(values) <= set(case.method.estimators)


def test_the_bounds_lie_above_the_exact_likelihood(case):
    """-log p(x) by a fine grid over the two numbers of z, where q is not far from the prior."""
    own = case.params['autoencoder']['network']
    calm = {**own, 'to_code': jax.tree.map(lambda leaf: 0.1 * leaf, own['to_code'])}
    params = {**case.params, 'autoencoder': {'network': calm}}
    axis = jnp.linspace(-6, 6, 241)
    grid = jnp.stack(jnp.meshgrid(axis, axis), -1).reshape(-1, 2)
    log_prob, x = jax.jit(case.method.codec.log_prob), case.batch['x']
    volume = float(axis[1] - axis[0]) ** 2
    log_prior = -0.5 * (grid**2).sum(1) - math.log(2 * math.pi)
    exact = []
    for row in x:
        total = 0.0
        for k in range(3):
            label = jnp.full(len(grid), k)
            many = jnp.broadcast_to(row, (len(grid), *row.shape))
            log_p = log_prob(params, {}, many, grid, cond=label)
            total += np.exp(np.float64(log_p + log_prior)).sum() * volume / 3
        exact.append(-np.log(total))
    batch = {**case.batch, 'label': jnp.zeros(5, jnp.int32)}
    values = case.method.evaluate(params, {}, batch, jax.random.key(0), num_samples=2000)
    np.testing.assert_allclose(values['nats'], exact, atol=0.15)
    assert (9 * values['loss'] > np.array(exact) - 0.15).all()


def test_samples_are_of_the_class_that_is_asked_for(case):
    sample = case.method.sample
    label = jnp.array([0, 1, 2])
    first = sample(case.params, {}, jax.random.key(0), 3, cond=label)
    other = sample(case.params, {}, jax.random.key(0), 3, cond=label[::-1])
    assert first.shape == (3, 3, 3, 1)
    np.testing.assert_array_equal(first[1], other[1])
    assert (np.abs(first - other)[[0, 2]] > 1e-3).any(axis=(1, 2, 3)).all()
    with pytest.raises(InputError, match='label: this model needs labels of its 3 classes'):
        sample(case.params, {}, jax.random.key(0), 3)


@pytest.mark.parametrize(
    ('spec', 'options', 'message'),
    [
        (SPEC._replace(num_classes=None), {}, 'this data has none'),
        (SPEC, {'latent_channels': 0}, r'method\.latent_channels: 0'),
        (SPEC, {'classification_weight': -1.0}, r'method\.classification_weight: -1'),
        (SPEC, {'max_shift': 3}, r'method\.max_shift: 3'),
        (SPEC._replace(shape=(9,)), {'max_shift': 1}, r'method\.max_shift: only images'),
    ],
)
def test_what_makes_no_method_is_refused(spec, options, message):
    networks = {'autoencoder': autoencoder, 'classifier': network}
    with pytest.raises(InputError, match=message):
        semi_supervised_vae(networks, spec, observation.gaussian(spec, sigma=1.0), **options)


def test_other_players_are_refused():
    with pytest.raises(InputError, match=r"plays with \['autoencoder', 'classifier'\]"):
        semi_supervised_vae({'model': nn.Dense}, SPEC, observation.gaussian(SPEC, sigma=1.0))


@pytest.mark.parametrize('strategy', ['jit', 'pmap'])
def test_the_first_step_is_that_of_yesterday_on_devices_with_one_row_each(strategy):
    """Under pmap the keys of the devices are others, and a row has a label or it has none."""
    config = importlib.import_module('configs.ssvae_digits').get_config('smoke')
    config.parallel.strategy = strategy
    run = assemble(config)
    batches = batches_after(0, load_data(config), config)
    batch = parallel.place_for_step(run.parallel, next(batches))
    batches.close()
    state, metrics = compile_step(run, config)(initialize(run, config.seed), batch)
    losses = [float(metrics[f'{player}/loss']) for player in ('autoencoder', 'classifier')]
    assert int(state.guard.skipped) == 0 and all(map(np.isfinite, metrics.values()))
    if strategy == 'jit':
        # Where this was meant to change, say so in the commit: old runs cannot be repeated.
        np.testing.assert_allclose(losses, [1.808078, 1.625538], rtol=1e-4)


def test_the_classifier_alone_is_the_same_network_with_the_same_labels():
    ours, alone = (
        importlib.import_module(f'configs.{name}').get_config()
        for name in ('ssvae_digits', 'classifier_digits')
    )
    assert alone.networks.model == ours.networks.classifier
    assert alone.method.max_shift == ours.method.max_shift
    assert alone.data.labeled_only and not ours.data.labeled_only
    for field in ('source', 'name', 'labels_per_class', 'labels_seed'):
        assert alone.data[field] == ours.data[field]
