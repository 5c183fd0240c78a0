"""Bounds against the likelihood by quadrature, and what the method offers of its network."""

import functools
import math
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gen_jax.errors import InputError
from gen_jax.losses.observation import bernoulli, gaussian, logistic_mixture
from gen_jax.methods.hierarchical_vae import hierarchical_vae
from gen_jax.networks import vdvae
from gen_jax.networks.autoencoder import ConvAutoencoder
from gen_jax.networks.vdvae import VDVAE
from gen_jax.types import DataSpec

PIXEL = DataSpec((1, 1, 1), levels=2, num_classes=2)
IMAGE = DataSpec((4, 4, 1), levels=5, num_classes=3)


def make(spec=IMAGE, observation=None, levels=((4, 1, 1), (1, 1, 2)), scale=0.4, **options):
    """A method, its network, and parameters of which none are zero."""
    networks = []

    def factory(**given):
        networks.append(VDVAE(channels=4, bottleneck=1, levels=levels, **given))
        return networks[-1]

    observation = logistic_mixture(spec, 2) if observation is None else observation
    options = {'latent_channels': 2} | options
    method = hierarchical_vae({'autoencoder': factory}, spec, observation, **options)
    batch = {'x': jnp.zeros((1, *spec.shape)), 'label': jnp.zeros(1, jnp.int32)}
    shapes = jax.eval_shape(method.init, jax.random.key(0), batch)[0]
    generator = np.random.default_rng(2)
    draw = functools.partial(generator.normal, scale=scale)
    return method, networks[0], jax.tree.map(lambda leaf: np.float32(draw(size=leaf.shape)), shapes)


@pytest.fixture(scope='module')
def images():
    """A method of images, conditional, with a batch."""
    method, network, params = make(class_conditional=True)
    levels = jax.random.randint(jax.random.key(3), (5, 4, 4, 1), 0, 5)
    batch = {'x': levels / 2 - 1.0, 'label': jnp.arange(5) % 3}
    return method, network, params, batch


@functools.cache
def compiled(evaluate, **options):
    return jax.jit(functools.partial(evaluate, **options))


def evaluate(method, params, batch, key=0, **options):
    found = compiled(method.evaluate, **options)(params, {}, batch, jax.random.key(key))
    return jax.tree.map(np.float64, found)


# Bounds


@pytest.fixture(scope='module')
def pixel():
    """One pixel of two levels under two latent numbers: a method, parameters, a batch of both
    levels, and their log p(x), by quadrature over the noise that makes the latents."""
    levels = ((1, 1, 2),)
    method, network, params = make(PIXEL, bernoulli(PIXEL), levels, 0.5, latent_channels=1)
    for block in ('down_0', 'down_1'):
        # Posteriors near the priors, and wider: then no weight is huge, and means can be trusted.
        own = params['autoencoder']['network'][block]
        prior, posterior = (own[part]['conv_3'] for part in ('prior', 'posterior'))
        posterior['kernel'] *= 0.1
        posterior['bias'] = prior['bias'][:2] + np.float32([0.3, 0.5])
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    weights = weights / weights.sum()
    grid = np.stack(np.meshgrid(nodes, nodes, indexing='ij')).reshape(2, -1)

    with pytest.MonkeyPatch.context() as patch:
        noise = lambda key, number, shape: jnp.float32(grid[number]).reshape(shape)  # noqa: E731
        patch.setattr(vdvae, '_noise', noise)
        own = {'params': params['autoencoder']['network']}
        logits = network.apply(own, jax.random.key(0), grid.shape[1], method='generate')
    chances = np.float64(jax.nn.sigmoid(logits)).reshape(80, 80)
    white = weights @ chances @ weights
    assert 0.05 < white < 0.95 and np.std(chances) > 0.1  # the latents decide something
    batch = {'x': jnp.array([-1.0, 1.0]).reshape(2, 1, 1, 1)}
    return method, params, batch, np.log([1 - white, white])


def test_weights_are_unbiased_so_many_draws_give_the_likelihood(pixel):
    method, params, batch, log_p = pixel
    found = evaluate(method, params, batch, num_samples=40_000, chunk=40_000)
    np.testing.assert_allclose(found['nats'], -log_p, atol=0.02)
    np.testing.assert_allclose(found['bits_per_dim'], -log_p / math.log(2), atol=0.03)


def test_the_bound_is_one_and_more_draws_bring_it_nearer(pixel):
    method, params, batch, log_p = pixel
    many = {name: jnp.repeat(rows, 4000, 0) for name, rows in batch.items()}
    gaps = []
    for num_samples in (1, 4, 40):
        nats = evaluate(method, params, many, num_samples=num_samples)['nats'].reshape(2, -1)
        gaps.append(nats.mean(1) + log_p)
        error = nats.std(1) / nats.shape[1] ** 0.5
        assert np.all(gaps[-1] > 3 * error)
    assert np.all(np.diff(np.array(gaps), axis=0) < 0)
    assert np.all(gaps[0] > 3 * gaps[-1])


def test_the_closed_form_is_the_mean_of_the_sampled_bound(pixel):
    """One draw's distortion and rate, against log-weights of the same law."""
    method, params, batch, _ = pixel
    many = {name: jnp.repeat(rows, 20_000, 0) for name, rows in batch.items()}
    found = evaluate(method, params, many)
    np.testing.assert_allclose(found['nats'], found['rate'] + found['distortion'], rtol=1e-6)
    codec = method.codec
    z, log_q = codec.draw(params, {}, many['x'], jax.random.key(1))
    assert z.shape == (40_000, 2)
    log_likelihood = codec.log_prob(params, {}, many['x'], z)
    # log p(z), from the rate: E log q - E log p is its mean, and p needs no x.
    weights = np.float64(log_likelihood).reshape(2, -1).mean(1)
    np.testing.assert_allclose(found['distortion'].reshape(2, -1).mean(1), -weights, atol=0.03)
    assert np.all(np.isfinite(log_q))


# Training


def loss_of(method, params, batch, step):
    """The loss at `step`, and its metrics."""
    state = SimpleNamespace(step=step, model_state={})
    value, (_, metrics) = method.phases[0].loss(params, state, batch, jax.random.key(1))
    return value, metrics


def test_the_loss_is_the_bound_and_its_rate_warms_up(images):
    _, _, params, batch = images
    warm, plain = (make(class_conditional=True, warmup_steps=n)[0] for n in (10, 0))
    warm, plain = (jax.jit(functools.partial(loss_of, method)) for method in (warm, plain))
    for loss, step, weight in ((plain, 0, 1), (warm, 0, 0.1), (warm, 4, 0.5), (warm, 99, 1)):
        value, metrics = loss(params, batch, step)
        nats = metrics['distortion'] + weight * metrics['rate']
        np.testing.assert_allclose(value, nats / 16, rtol=1e-6)
        assert metrics['loss'] == value and metrics['rate'] > 0


def test_a_learned_deviation_of_the_observation_is_trained_with_the_network():
    spec = DataSpec((4, 4, 1))
    method, _, params = make(spec, gaussian(spec), levels=((4, 1, 1),))
    assert params['autoencoder']['observation'].shape == (1,)
    batch = {'x': jax.random.normal(jax.random.key(1), (5, 4, 4, 1))}
    gradient = jax.jit(jax.grad(lambda params: loss_of(method, params, batch, 0)[0]))(params)
    assert np.all(gradient['autoencoder']['observation'] != 0)
    assert set(evaluate(method, params, batch)) >= {'nats', 'nats_per_dim'}


# Evaluation


def test_columns_add_up_and_each_has_an_estimator(images):
    method, network, params, batch = images
    found = evaluate(method, params, batch)
    assert set(found) == set(method.estimators)
    np.testing.assert_allclose(found['rate_4x4'] + found['rate_1x1'], found['rate'], rtol=1e-5)
    assert np.all(found['rate_4x4'] > 0) and np.all(found['rate_1x1'] > 0)
    np.testing.assert_allclose(found['loss'] * 16, found['rate'] + found['distortion'], rtol=1e-5)
    own = {'params': params['autoencoder']['network']}
    key = jax.random.fold_in(jax.random.key(0), 0)
    rates = network.apply(own, batch['x'], batch['label'], key, train=False).rates
    np.testing.assert_array_equal(found['active_channels'], np.sum(rates > 0.01, (0, 2)))
    assert np.all(found['active_channels'] <= 3 * 2)


def test_channels_are_inactive_where_posteriors_are_priors(images):
    method, _, _, batch = images
    start = jax.jit(method.init)(jax.random.key(0), batch)[0]
    found = evaluate(method, start, batch)
    assert not np.any(found['active_channels']) and not np.any(found['rate'])


def test_the_size_of_chunks_changes_nothing(images):
    method, _, params, batch = images
    one, other = (evaluate(method, params, batch, num_samples=4, chunk=n) for n in (2, 4))
    for name, column in one.items():
        np.testing.assert_allclose(column, other[name], rtol=1e-5, err_msg=name)
    with pytest.raises(InputError, match='num_samples: 5 draws cannot be taken 2 at a time'):
        evaluate(method, params, batch, num_samples=5, chunk=2)


# Drawing and latents


def test_what_is_encoded_decodes_to_what_the_pass_said(images):
    method, network, params, batch = images
    codec, x, label = method.codec, batch['x'], batch['label']
    own = {'params': params['autoencoder']['network']}
    key = jax.random.key(7)
    assert codec.spec.shape == (2 + 2 + 4 * 4 * 2,) and codec.num_classes == 3
    for found, noise in (
        (codec.encode(params, {}, x, cond=label), None),
        (codec.draw(params, {}, x, key, cond=label)[0], key),
    ):
        assert found.shape == (5, *codec.spec.shape)
        expected = network.apply(own, x, label, noise, train=False)
        law = logistic_mixture(IMAGE, 2)
        np.testing.assert_allclose(
            codec.log_prob(params, {}, x, found, cond=label),
            law.log_prob(x, expected.parameters),
            rtol=1e-4,
        )
        shown = codec.decode(params, {}, found, cond=label)
        np.testing.assert_allclose(shown, law.mean(expected.parameters), atol=1e-3)
    log_q = codec.draw(params, {}, x, key, cond=label)[1]
    np.testing.assert_allclose(log_q, expected.log_q.sum(0), rtol=1e-5)


def test_samples_of_temperature_zero_are_one_image_for_each_label(images):
    method, _, params, _ = images

    @functools.partial(jax.jit, static_argnames=('temperature', 'output'))
    def draw(key, label, **options):
        return method.sample(params, {}, key, 3, cond=label, **options)

    keys, label = [jax.random.key(n) for n in (0, 1)], jnp.array([0, 0, 1])
    cold = [draw(key, label, temperature=0.0) for key in keys]
    np.testing.assert_array_equal(*cold)
    np.testing.assert_array_equal(cold[0][0], cold[0][1])
    assert np.abs(cold[0][0] - cold[0][2]).max() > 0
    warm = [draw(key, label) for key in keys]
    assert np.abs(warm[0] - warm[1]).max() > 0
    shown = draw(keys[0], label, output='sample', temperature=0.0)
    assert np.abs(shown - cold[0]).max() > 0
    np.testing.assert_allclose(shown * 2, np.round(shown * 2), atol=1e-5)  # levels


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'output': 'median'}, "output: no 'median'; choose from mean, sample"),
        ({'temperature': -1.0}, 'temperature: -1.0 must be at least 0'),
        ({'cond': None}, 'label: this model needs labels of its 3 classes'),
    ],
)
def test_bad_options_of_sampling_are_named(images, options, message):
    method, _, params, _ = images
    with pytest.raises(InputError) as error:
        method.sample(params, {}, jax.random.key(0), 2, **{'cond': jnp.zeros(2, int)} | options)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'latent_channels': 0}, 'method.latent_channels: 0'),
        ({'warmup_steps': -1}, 'method.warmup_steps: -1'),
        ({'class_conditional': True}, 'method.class_conditional: this data has no labels'),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(InputError) as error:
        make(IMAGE._replace(num_classes=None), **options)
    assert str(error.value).startswith(message)


def test_a_network_without_a_hierarchy_is_refused():
    factory = functools.partial(ConvAutoencoder, code_channels=4)
    with pytest.raises(InputError, match=r'^networks\.autoencoder\.name: this network has no'):
        hierarchical_vae({'autoencoder': factory}, IMAGE, logistic_mixture(IMAGE, 2))
