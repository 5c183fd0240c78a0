"""VAEs against closed forms: probabilistic PCA, integrals over a plane, sums over all images."""

import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from gen_jax.errors import InputError
from gen_jax.losses import observation
from gen_jax.methods.vae import vae
from gen_jax.networks.autoencoder import MLPAutoencoder
from gen_jax.networks.flows import IAF
from gen_jax.networks.priors import FlowPrior, Mixture, Vamp
from gen_jax.types import DataSpec

POINTS = DataSpec((5,))
PIXELS = DataSpec((2, 2, 1), levels=2, num_classes=2)
LATENTS, SIGMA = 2, 0.5


class Linear(nn.Module):
    """The autoencoder of probabilistic PCA: everything is affine."""

    shape: tuple
    code_channels: int
    latent_channels: int
    out_channels: int
    num_classes: int | None = None

    def setup(self):
        self.mean = nn.Dense(self.latent_channels)
        width = (self.code_channels - self.latent_channels,)
        self.rest = self.param('rest', nn.initializers.normal(0.1), width)
        self.out = nn.Dense(self.out_channels)

    def __call__(self, x, label=None, *, train):
        code = self.encode(x, train=train)
        return self.decode(code[..., : self.latent_channels], train=train)

    def encode(self, x, label=None, *, train):
        rest = jnp.broadcast_to(self.rest, (len(x), len(self.rest)))
        return jnp.concatenate([self.mean(x), rest], -1)

    def decode(self, z, label=None, *, train):
        return self.out(z)


def linear_vae(sigma=SIGMA, **options):
    law = observation.gaussian(POINTS, sigma=sigma)
    return vae({'autoencoder': Linear}, POINTS, law, latent_channels=LATENTS, **options)


def pixel_vae(spec=PIXELS, **options):
    make = functools.partial(MLPAutoencoder, widths=(8,))
    law = observation.bernoulli(spec)
    return vae({'autoencoder': make}, spec, law, **{'latent_channels': LATENTS, **options})


def points(num: int = 400) -> np.ndarray:
    """Examples of a law of three large directions and two small ones."""
    rng = np.random.default_rng(0)
    spread = rng.normal(size=(5, 5)) * np.array([1.5, 1.0, 0.4, 0.3, 0.2])
    return (rng.normal(size=(num, 5)) @ spread.T + rng.normal(size=5)).astype(np.float32)


def ppca(x: np.ndarray, sigma: float | None = None):
    """The maximum of the likelihood (Tipping & Bishop 1999): mean, W, sigma; of a given sigma W
    follows from the same equation."""
    values, vectors = np.linalg.eigh(np.cov(x.T, bias=True))
    values, vectors = values[::-1], vectors[:, ::-1]
    sigma = np.sqrt(values[LATENTS:].mean()) if sigma is None else sigma
    return x.mean(0), vectors[:, :LATENTS] * np.sqrt(values[:LATENTS] - sigma**2), sigma


def log_evidence(x, mean, w, sigma) -> np.ndarray:
    cov = w @ w.T + sigma**2 * np.eye(len(mean))
    return stats.multivariate_normal(mean, cov).logpdf(x)


def exact_params(mean, w, sigma) -> dict:
    """Of the VAE whose posterior is the true one; w has orthogonal columns, so it is diagonal."""
    m = w.T @ w + sigma**2 * np.eye(LATENTS)
    to_mean = np.linalg.solve(m, w.T)
    variance = sigma**2 / np.diag(m)
    own = {
        'mean': {'kernel': to_mean.T, 'bias': -to_mean @ mean},
        'rest': np.log(variance),
        'out': {'kernel': w.T, 'bias': mean},
    }
    return {'autoencoder': {'network': jax.tree.map(jnp.float32, own)}}


def perturbed(tree, scale: float, seed: int = 1):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: leaf + jnp.float32(scale * rng.normal(size=leaf.shape)), tree)


class State:
    """What a loss reads of a state."""

    def __init__(self, step=0, model_state=None):
        self.step, self.model_state = jnp.int32(step), model_state or {}


def evaluate(method, params, x, seed=0, **options):
    run = jax.jit(functools.partial(method.evaluate, **options))
    return run(params, {}, {'x': jnp.asarray(x)}, jax.random.key(seed))


# Probabilistic PCA


def test_with_the_true_posterior_the_bound_is_the_likelihood():
    x, method = points(64), linear_vae()
    mean, w, sigma = ppca(points(), SIGMA)
    exact = -log_evidence(x, mean, w, sigma)
    params = exact_params(mean, w, sigma)
    # Every weight is then p(x) itself.
    found = evaluate(method, params, x, num_samples=2, chunk=2)
    np.testing.assert_allclose(found['nats'], exact, rtol=1e-4)
    np.testing.assert_allclose(found['nats_per_dim'], exact / 5, rtol=1e-4)
    elbo = evaluate(method, params, x, num_samples=5000, chunk=100)['loss'] * 5
    np.testing.assert_allclose(elbo, exact, atol=0.15)
    np.testing.assert_allclose(elbo.mean(), exact.mean(), atol=0.01)


def test_elsewhere_the_bound_is_above_and_falls_with_more_draws_to_the_likelihood():
    x, method = points(64), linear_vae()
    mean, w, sigma = ppca(points(), SIGMA)
    exact = -log_evidence(x, mean, w, sigma)
    params = exact_params(mean, w, sigma)
    network = dict(params['autoencoder']['network'])
    for part in ('mean', 'rest'):  # the encoder alone, so that the likelihood stays
        network[part] = perturbed(network[part], 0.2)
    params = {'autoencoder': {'network': network}}
    means = []
    for num in (1, 5, 50, 20_000):
        found = evaluate(method, params, x, num_samples=num, chunk=min(num, 50))
        means.append(float(found['nats'].mean()))
        assert found['loss'].mean() * 5 > exact.mean()
    assert means[0] > means[1] > means[2] > exact.mean() + 0.01
    np.testing.assert_allclose(means[3], exact.mean(), atol=0.02)


@pytest.mark.parametrize('sigma', [SIGMA, None])
def test_training_finds_the_maximum_of_probabilistic_pca(sigma):
    x = points()
    best = log_evidence(x, *ppca(x, sigma)).mean()
    method = linear_vae(sigma)
    batch = {'x': jnp.asarray(x)}
    params, _ = method.init(jax.random.key(0), batch)
    optimizer = optax.adam(optax.cosine_decay_schedule(0.03, 1500))
    (phase,) = method.phases

    @jax.jit
    def train(params):
        def step(carry, number):
            params, opt_state = carry

            def loss(params):
                return phase.loss(params, State(), batch, jax.random.key(number))[0]

            updates, opt_state = optimizer.update(jax.grad(loss)(params), opt_state)
            return (optax.apply_updates(params, updates), opt_state), None

        return jax.lax.scan(step, (params, optimizer.init(params)), jnp.arange(1500))[0][0]

    params = train(params)
    found = evaluate(method, params, x, num_samples=500, chunk=100)
    reached = -float(found['loss'].mean()) * 5
    assert best - 0.02 < reached < best + 0.01  # the latter is what 500 draws leave of chance
    own = params['autoencoder']['network']['out']
    subspace = np.linalg.qr(np.asarray(own['kernel']).T)[0]
    expected = np.linalg.qr(ppca(x, sigma)[1])[0]
    angles = np.linalg.svd(subspace.T @ expected)[1]
    np.testing.assert_allclose(angles, 1, atol=1e-2)
    if sigma is None:
        learned = float(jnp.exp(params['autoencoder']['observation'][0]))
        np.testing.assert_allclose(learned, ppca(x)[2], rtol=0.02)


def test_a_flow_of_the_posterior_changes_the_bound_and_not_what_it_bounds():
    x, method = points(32), linear_vae(posterior=IAF(num_layers=2, width=8))
    mean, w, sigma = ppca(points(), SIGMA)
    network = dict(exact_params(mean, w, sigma)['autoencoder']['network'])
    network['rest'] = jnp.concatenate([network['rest'] + 1.0, jnp.array([0.3, -0.2])])
    params, _ = method.init(jax.random.key(0), {'x': jnp.asarray(x)})
    flow = perturbed(nn.unbox(params['autoencoder']['posterior']), 0.05)
    params = {'autoencoder': {'network': network, 'posterior': flow}}
    exact = -log_evidence(x, mean, w, sigma)
    one = evaluate(method, params, x)['nats'].mean()
    many = evaluate(method, params, x, num_samples=20_000)['nats'].mean()
    assert one > exact.mean() + 0.05
    np.testing.assert_allclose(many, exact.mean(), atol=0.03)


# Gradients


def gradients(gradient: str, params, x, num_keys: int, **options):
    """One for each key, of the encoder and of the decoder: `[num_keys, ...]`."""
    method = linear_vae(**{'gradient': gradient, 'num_samples': 4} | options)
    (phase,) = method.phases

    def of_key(key):
        def loss(params):
            return phase.loss(params, State(), {'x': jnp.asarray(x)}, key)[0]

        return jax.grad(loss)(params)

    keys = jax.random.split(jax.random.key(5), num_keys)
    found = jax.jit(lambda keys: jax.lax.map(of_key, keys))(keys)['autoencoder']['network']
    encoder = (found['mean']['kernel'], found['mean']['bias'], found['rest'])
    rows = [np.asarray(leaf).reshape(num_keys, -1) for leaf in encoder]
    decoder = [np.asarray(leaf).reshape(num_keys, -1) for leaf in jax.tree.leaves(found['out'])]
    return np.concatenate(rows, 1), np.concatenate(decoder, 1)


@pytest.mark.parametrize('beta', [1.0, 0.5])
def test_the_doubly_reparametrized_gradient_has_the_mean_of_the_plain_one_and_less_noise(beta):
    x = points(4)
    mean, w, sigma = ppca(points(), SIGMA)
    params = perturbed(exact_params(mean, w, sigma), 0.05)
    plain, plain_decoder = gradients('iwae', params, x, 20_000, beta=beta)
    double, double_decoder = gradients('dreg', params, x, 20_000, beta=beta)
    np.testing.assert_allclose(double_decoder, plain_decoder, rtol=1e-3, atol=1e-4)
    error = np.sqrt((plain.var(0) + double.var(0)) / len(plain))
    assert np.all(np.abs(plain.mean(0) - double.mean(0)) < 5 * error)
    assert np.all(np.abs(double.mean(0)).max() > 3 * error.max())  # there is something to compare
    if beta == 1:
        assert double.var(0).sum() < 0.5 * plain.var(0).sum()


def test_at_the_true_posterior_it_is_zero_for_every_draw():
    mean, w, sigma = ppca(points(), SIGMA)
    params = exact_params(mean, w, sigma)
    plain, _ = gradients('iwae', params, points(4), 4)
    double, _ = gradients('dreg', params, points(4), 4)
    assert np.abs(plain).max() > 0.01
    assert np.abs(double).max() < 1e-4


@pytest.mark.parametrize('gradient', ['iwae', 'dreg'])
def test_the_gradient_of_chosen_draws_has_the_mean_of_that_of_all(gradient):
    x = points(4)
    params = perturbed(exact_params(*ppca(points(), SIGMA)), 0.05)
    every = np.concatenate(gradients(gradient, params, x, 20_000, beta=0.5), 1)
    few = gradients(gradient, params, x, 20_000, beta=0.5, gradient_draws=2)
    differences = np.concatenate(few, 1) - every  # of the same noise
    error = differences.std(0) / np.sqrt(len(every))
    assert np.all(error > 0)
    assert np.all(np.abs(differences.mean(0)) < 5 * error)
    assert np.abs(every.mean(0)).max() > 20 * error.max()  # there is something to compare


def test_the_bound_of_chosen_draws_is_that_of_all():
    x = points(16)
    params = perturbed(exact_params(*ppca(points(), SIGMA)), 0.1)
    options = {'gradient': 'iwae', 'num_samples': 8}
    (every, parts), (few, parts_of_few) = (
        loss_and_parts(params, x, **options, gradient_draws=num) for num in (None, 1)
    )
    np.testing.assert_allclose(few, every, rtol=1e-6)
    assert parts_of_few == pytest.approx(parts, rel=1e-6)


# Priors and labels, on images that can all be listed


def every_image() -> np.ndarray:
    images = list(itertools.product([-1.0, 1.0], repeat=4))
    return np.asarray(images, np.float32).reshape(-1, 2, 2, 1)


PRIORS = {
    'normal': None,
    'mixture': Mixture(num_components=3),
    'vamp': Vamp(shape=PIXELS.shape, num_components=3),
    'flow': FlowPrior(flow='realnvp', num_layers=2, width=8),
}


@pytest.mark.parametrize('name', PRIORS)
def test_all_images_together_have_mass_one_whatever_the_prior(name):
    method, x = pixel_vae(prior=PRIORS[name]), every_image()
    params, _ = method.init(jax.random.key(0), {'x': jnp.asarray(x)})
    params = perturbed(nn.unbox(params), 0.2)
    found = evaluate(method, params, x, num_samples=20_000)
    np.testing.assert_allclose(np.exp(-found['nats']).sum(), 1, atol=0.02)
    np.testing.assert_allclose(found['bits_per_dim'], found['nats'] / 4 / np.log(2), rtol=1e-5)
    assert np.exp(-evaluate(method, params, x)['nats'].mean()) < 1 / 16
    # What is drawn follows it.
    draw = jax.jit(functools.partial(method.sample, num=20_000, output='sample'))
    drawn = np.asarray(draw(params, {}, jax.random.key(1)))
    number = ((drawn > 0).reshape(-1, 4) @ [8, 4, 2, 1]).astype(int)
    mass = np.exp(-np.asarray(found['nats'], np.float64))
    counts = np.bincount(number, minlength=16)
    assert stats.chisquare(counts, mass / mass.sum() * len(drawn)).pvalue > 1e-3


def test_labels_are_told_to_both_halves():
    method, x = pixel_vae(class_conditional=True), every_image()
    params, _ = method.init(jax.random.key(0), {'x': x, 'label': jnp.zeros(16, jnp.int32)})
    params = perturbed(params, 0.1)
    masses = []
    for label in (0, 1):
        batch = {'x': jnp.asarray(x), 'label': jnp.full(16, label)}
        run = functools.partial(method.evaluate, num_samples=20_000)
        found = jax.jit(run)(params, {}, batch, jax.random.key(0))
        masses.append(np.exp(-np.asarray(found['nats'])))
        np.testing.assert_allclose(masses[-1].sum(), 1, atol=0.02)
    assert np.abs(masses[0] - masses[1]).max() > 0.003
    with pytest.raises(InputError, match='needs labels of its 2 classes'):
        method.sample(params, {}, jax.random.key(0), 2)


def test_the_codec_is_the_model():
    method, x = linear_vae(), points(6)
    mean, w, sigma = ppca(points(), SIGMA)
    params, codec = exact_params(mean, w, sigma), method.codec
    assert codec.spec.shape == (LATENTS,) and not codec.spec.bounded and not codec.is_mass
    z = codec.encode(params, {}, x)
    expected = np.linalg.solve(w.T @ w + sigma**2 * np.eye(2), w.T) @ (x - mean).T
    np.testing.assert_allclose(z, expected.T, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(codec.decode(params, {}, z), z @ w.T + mean, rtol=1e-3, atol=1e-4)
    z, log_q = codec.draw(params, {}, x, jax.random.key(0))
    # log p(x | z) + log p(z) - log q(z | x) is log p(x) for every z.
    log_p = codec.log_prob(params, {}, x, z) + stats.norm.logpdf(z).sum(1) - log_q
    np.testing.assert_allclose(log_p, log_evidence(x, mean, w, sigma), rtol=1e-4)


# The objectives


def loss_and_parts(params, x, step=0, **options):
    (phase,) = linear_vae(**options).phases
    loss, (_, metrics) = phase.loss(params, State(step), {'x': jnp.asarray(x)}, jax.random.key(2))
    return float(loss) * 5, {name: float(value) for name, value in metrics.items()}


def test_the_rate_is_weighted_as_the_papers_say():
    x = points(16)
    params = perturbed(exact_params(*ppca(points(), SIGMA)), 0.1)
    plain, parts = loss_and_parts(params, x)
    rate, distortion = parts['rate'], parts['distortion']
    np.testing.assert_allclose(plain, distortion + rate, rtol=1e-5)

    def weighted(**options):
        return loss_and_parts(params, x, **options)[0] - distortion

    np.testing.assert_allclose(weighted(beta=4.0), 4 * rate, rtol=1e-4)
    np.testing.assert_allclose(weighted(warmup_steps=10, step=4), rate / 2, rtol=1e-4)
    np.testing.assert_allclose(weighted(warmup_steps=10, step=400), rate, rtol=1e-4)
    capacity = {'beta': 3.0, 'capacity': 2 * rate, 'warmup_steps': 10}
    np.testing.assert_allclose(weighted(**capacity, step=1), 3 * 0.6 * rate, rtol=1e-4)
    np.testing.assert_allclose(weighted(**capacity, step=99), 3 * rate, rtol=1e-4)
    own = params['autoencoder']['network']
    mean = np.asarray(x @ own['mean']['kernel'] + own['mean']['bias'])
    variance = np.exp(np.asarray(own['rest']))
    of_each = 0.5 * (mean**2 + variance - 1 - np.log(variance)).mean(0)
    np.testing.assert_allclose(of_each.sum(), rate, rtol=1e-4)
    least = float(of_each.mean())  # between the two
    assert of_each.min() < least < of_each.max()
    expected = least + of_each.max()
    np.testing.assert_allclose(weighted(free_bits=least), expected, rtol=1e-4)


@pytest.mark.parametrize(
    ('options', 'reason'),
    [
        ({'gradient': 'reinforce'}, "no 'reinforce'; choose from elbo, iwae, dreg"),
        ({'beta': -1.0}, r'^method\.beta: -1.0 must be at least 0'),
        ({'num_samples': 0}, r'^method\.num_samples: 0'),
        ({'gradient_draws': 2}, r"^method\.gradient_draws: 'elbo' weighs no draws"),
        (
            {'gradient': 'iwae', 'num_samples': 4, 'gradient_draws': 4},
            r'^method\.gradient_draws: 4 must be at least 1 and below the 4 of method\.num_samples',
        ),
        (
            {'gradient': 'iwae', 'num_samples': 4, 'gradient_draws': 0},
            r'^method\.gradient_draws: 0 must be at least 1',
        ),
        ({'latent_channels': 0}, r'^method\.latent_channels: 0'),
        ({'free_bits': 0.1, 'prior': Mixture(num_components=2)}, r'^method\.free_bits: they need'),
        ({'capacity': 5.0, 'gradient': 'iwae'}, r"only 'elbo' has"),
        ({'gradient': 'dreg', 'posterior': IAF(num_layers=1, width=4)}, r"use 'iwae'"),
        ({'class_conditional': True, 'prior': PRIORS['vamp']}, 'pseudo-inputs have no label'),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, reason):
    with pytest.raises(InputError, match=reason):
        pixel_vae(**options)


def test_draws_that_do_not_divide_into_chunks_are_refused():
    with pytest.raises(InputError, match='num_samples: 120 draws cannot be taken 50 at a time'):
        linear_vae().evaluate({}, {}, {'x': points(2)}, jax.random.key(0), num_samples=120)
