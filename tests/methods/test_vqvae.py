"""Vector-quantized autoencoders against plain sums, and as first stages against all images."""

import functools
import itertools
import math
from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gen_jax.errors import InputError
from gen_jax.evaluate import summarize
from gen_jax.losses import observation
from gen_jax.losses.adversarial import hinge
from gen_jax.methods.autoregressive import autoregressive
from gen_jax.methods.diffusion import diffusion
from gen_jax.methods.latent import latent
from gen_jax.methods.vae import vae
from gen_jax.methods.vqvae import vqvae
from gen_jax.networks.autoencoder import MLPAutoencoder
from gen_jax.networks.discriminator import PatchDiscriminator
from gen_jax.networks.mlp import MLP
from gen_jax.networks.transformer import Transformer
from gen_jax.processes import gaussian
from gen_jax.quantizers.codebook import vq
from gen_jax.quantizers.scalar import fsq
from gen_jax.state import init_state
from gen_jax.step import train_step
from gen_jax.types import DataSpec

SPEC = DataSpec((4, 4, 1), levels=5, num_classes=3)


class Patches(nn.Module):
    """An autoencoder that compiles in no time: each square of pixels is one vector of the code."""

    shape: tuple[int, ...]
    code_channels: int
    latent_channels: int
    out_channels: int
    num_classes: int | None = None
    size: int = 2

    last_layer = 'to_pixels'

    def setup(self):
        self.hidden_in, self.hidden_out = nn.Dense(8), nn.Dense(8)
        self.to_code = nn.Dense(self.code_channels)
        self.to_pixels = nn.Dense(self.size**2 * self.out_channels)

    def __call__(self, x, label=None, *, train):
        return self.decode(self.encode(x, label, train=train), label, train=train)

    def encode(self, x, label=None, *, train):
        side = self.shape[0] // self.size
        squares = x.reshape(len(x), side, self.size, side, self.size).swapaxes(2, 3)
        squares = squares.reshape(len(x), side, side, -1)
        return self.to_code(nn.tanh(self.hidden_in(squares)))

    def decode(self, z, label=None, *, train):
        side = self.shape[0] // self.size
        squares = self.to_pixels(nn.tanh(self.hidden_out(z)))
        squares = squares.reshape(len(z), side, side, self.size, self.size, self.out_channels)
        return squares.swapaxes(2, 3).reshape(len(z), *self.shape[:2], self.out_channels)


CRITIC = functools.partial(PatchDiscriminator, channels=4, num_levels=1, num_groups=2)
LAW = observation.gaussian(SPEC, sigma=0.5)
QUANTIZERS = {'vq': vq(6, 3), 'residual': vq(6, 3, depth=2), 'fsq': fsq((4, 3))}
every_quantizer = pytest.mark.parametrize('name', QUANTIZERS)


def images(num: int = 8, seed: int = 0) -> dict:
    rng = np.random.default_rng(seed)
    levels = rng.integers(0, 5, (num, *SPEC.shape))
    return {
        'x': (levels / 2 - 1).astype(np.float32),
        'label': rng.integers(0, 3, num).astype(np.int32),
    }


def run_of(quantizer, *, critic: bool = False, **options) -> SimpleNamespace:
    """A method, what trains it, and its state after three steps: the codebook has been filled."""
    networks = {'autoencoder': Patches}
    if critic:
        networks['discriminator'] = CRITIC
        options = {'adversarial': hinge(), **options}
    method = vqvae(networks, SPEC, LAW, quantizer, **options)
    optimizers = {player: optax.adam(1e-2) for player in method.trained}
    state = nn.unbox(init_state(method, optimizers, 0, images()))
    turn = functools.partial(train_step, optimizers=optimizers, ema_decay=0.5)
    step = jax.jit(functools.partial(turn, method=method))
    for seed in range(3):
        state, metrics = step(state, images(seed=seed))
    return SimpleNamespace(method=method, state=state, step=step, turn=turn, metrics=metrics)


@functools.cache
def trained(name: str) -> SimpleNamespace:
    return run_of(QUANTIZERS[name])


def applied(run, *arguments, method: str):
    params = run.state.params['autoencoder']['network']
    network = run.method.phases[0].loss.args[0].network
    return network.apply({'params': params}, *arguments, train=False, method=method)


def evaluate(method, params, model_state, batch, key=0):
    return jax.jit(method.evaluate)(params, model_state, batch, jax.random.key(key))


# The loss


@every_quantizer
def test_the_loss_is_that_of_decoder_and_quantizer(name):
    run, quantizer, x = trained(name), QUANTIZERS[name], images(seed=5)['x']
    state, key = run.state, jax.random.key(3)
    loss, (model_state, metrics) = run.method.phases[0].loss(state.params, state, {'x': x}, key)

    own = state.model_state.get('autoencoder', {})
    z = applied(run, x, method='encode')
    first_key, *_ = jax.random.split(key, 3)
    done = quantizer.quantize(own, z, first_key, train=True)
    mean = np.float64(applied(run, quantizer.lookup(own, done.codes), method='decode'))
    nats = 0.5 * ((x - mean) / 0.5) ** 2 + math.log(0.5) + 0.5 * math.log(2 * math.pi)
    np.testing.assert_allclose(loss, nats.mean() + done.loss.mean(), rtol=1e-4)
    np.testing.assert_allclose(metrics['distortion'], 16 * nats.mean(), rtol=1e-4)
    for metric, value in done.metrics.items():
        np.testing.assert_allclose(metrics[f'code_{metric}'], value, rtol=1e-4)
    # The codebook is that of the quantizer, and follows what is trained.
    after = model_state.get('autoencoder', {})
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), after, done.state
    )
    assert set(model_state) == ({'autoencoder'} if own else set())
    for before, now in zip(*map(jax.tree.leaves, (own, after)), strict=True):
        assert not np.array_equal(before, now)


def test_the_gradient_passes_straight_through_to_the_encoder():
    """Of the bias behind the encoder, which is added to each vector: the sum of what the decoder
    asks of e, and of 2 commitment (z - e) / (their number)."""
    run, x = trained('vq'), images(seed=5)['x']
    state, loss = run.state, run.method.phases[0].loss

    def of_own(own):
        return loss({'autoencoder': own}, state, {'x': x}, jax.random.key(0))[0]

    found = jax.grad(of_own)(state.params['autoencoder'])['network']['to_code']['bias']
    z = applied(run, x, method='encode')
    own = state.model_state['autoencoder']
    done = QUANTIZERS['vq'].quantize(own, z, jax.random.key(0), train=False)
    of_e = jax.grad(lambda e: 2 * jnp.mean((x - applied(run, e, method='decode')) ** 2))(
        done.values
    )
    asked = of_e + 2 * 0.25 * (z - done.values) / z.size
    np.testing.assert_allclose(found, asked.sum((0, 1, 2)), rtol=1e-3, atol=1e-6)
    assert np.abs(of_e).max() > 0


# Codes


@every_quantizer
def test_tokens_are_the_codes_and_what_comes_back_is_the_reconstruction(name):
    run, quantizer, batch = trained(name), QUANTIZERS[name], images(seed=5)
    codec, x, state = run.method.codec, batch['x'], run.state
    assert codec.spec == DataSpec((4 * quantizer.depth,), 'int32', vocab_size=quantizer.num_codes)
    tokens, log_q = codec.draw(state.params, state.model_state, x, jax.random.key(0))
    np.testing.assert_array_equal(tokens, codec.encode(state.params, state.model_state, x))
    assert not np.any(log_q) and tokens.dtype == jnp.int32

    own = state.model_state.get('autoencoder', {})
    z = applied(run, x, method='encode')
    done = quantizer.quantize(own, z, jax.random.key(0), train=False)
    np.testing.assert_array_equal(tokens, done.codes.reshape(8, -1))
    shown = applied(run, done.values, method='decode')
    decode = functools.partial(codec.decode, state.params, state.model_state)
    np.testing.assert_allclose(decode(tokens), shown, rtol=1e-4, atol=1e-5)
    values = evaluate(run.method, state.params, state.model_state, batch)
    log_p = codec.log_prob(state.params, state.model_state, x, tokens)
    np.testing.assert_allclose(-log_p, values['distortion'], rtol=1e-4)

    vectors = codec.vectors
    assert vectors.spec == DataSpec((2, 2, quantizer.channels), bounded=False)
    drawn, nothing = vectors.draw(state.params, state.model_state, x, jax.random.key(0))
    assert nothing is None
    np.testing.assert_allclose(drawn, z, rtol=1e-4, atol=1e-6)
    rounded = vectors.decode(state.params, state.model_state, drawn)
    np.testing.assert_allclose(rounded, shown, rtol=1e-4, atol=1e-5)


def test_tokens_go_place_by_place_through_the_depth():
    run = trained('residual')
    tokens = np.random.default_rng(0).integers(0, 6, (3, 8)).astype(np.int32)
    e = QUANTIZERS['residual'].lookup(
        run.state.model_state['autoencoder'], tokens.reshape(3, 2, 2, 2)
    )
    shown = run.method.codec.decode(run.state.params, run.state.model_state, tokens)
    np.testing.assert_allclose(shown, applied(run, e, method='decode'), rtol=1e-4, atol=1e-5)


@every_quantizer
def test_evaluation_is_of_the_reconstruction_and_of_all_codes(name):
    run, batch = trained(name), images(num=6, seed=9)
    state, depth = run.state, QUANTIZERS[name].depth
    columns = evaluate(run.method, state.params, state.model_state, batch)
    results = summarize(jax.tree.map(np.float64, columns), run.method.estimators)
    codec = run.method.codec
    tokens = np.asarray(codec.encode(state.params, state.model_state, batch['x']))
    shown = np.float64(codec.decode(state.params, state.model_state, tokens))
    error = (((batch['x'] - shown) / 2) ** 2).mean((1, 2, 3))
    assert results['mse']['value'] == pytest.approx(error.mean(), rel=1e-4)
    assert results['psnr']['value'] == pytest.approx(np.mean(-10 * np.log10(error)), rel=1e-4)
    counts = [np.unique(own, return_counts=True)[1] for own in tokens.reshape(-1, depth).T]
    used = np.mean([len(count) for count in counts]) / QUANTIZERS[name].num_codes
    assert results['code_usage']['value'] == pytest.approx(used)
    entropies = [-(c / c.sum() * np.log(c / c.sum())).sum() for c in counts]
    assert results['code_perplexity']['value'] == pytest.approx(np.mean(np.exp(entropies)))
    assert all(result['stderr'] is None for n, result in results.items() if n.startswith('code_'))
    assert not {'nats', 'bits_per_dim', 'nats_per_dim'} & results.keys()


def test_vectors_without_places_have_one_code():
    spec = DataSpec((2,))
    network = functools.partial(MLPAutoencoder, widths=(8,))
    method = vqvae({'autoencoder': network}, spec, observation.gaussian(spec), vq(5, 3, depth=2))
    x = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)
    params, state = method.init(jax.random.key(0), {'x': x})
    assert method.codec.spec.shape == (2,) and params['autoencoder']['observation'].shape == (1,)
    columns = method.evaluate(params, state, {'x': x}, jax.random.key(0))
    assert columns.keys() == method.estimators.keys() and 'psnr' not in columns
    assert method.codec.decode(params, state, method.codec.encode(params, state, x)).shape == (6, 2)


# With a discriminator


@functools.cache
def watched() -> SimpleNamespace:
    return run_of(QUANTIZERS['vq'], critic=True)


def equal(a, b) -> bool:
    return all(map(np.array_equal, *map(jax.tree.leaves, (a, b))))


def test_each_phase_changes_its_player_and_nothing_of_the_other():
    run, batch = watched(), images(seed=7)
    for turn, (own, other) in enumerate((('autoencoder', 'discriminator'),) * 2):
        own, other = (own, other) if turn == 0 else (other, own)
        method = run.method._replace(phases=(run.method.phases[turn],))
        after, _ = jax.jit(functools.partial(run.turn, method=method))(run.state, batch)
        assert equal(after.params[other], run.state.params[other])
        assert equal(after.opt_state[other], run.state.opt_state[other])
        assert not equal(after.params[own], run.state.params[own])
        assert equal(after.model_state, run.state.model_state) == (own == 'discriminator')


def losses_at(step: int, batch, **options) -> tuple[float, dict]:
    networks = {'autoencoder': Patches, 'discriminator': CRITIC}
    method = vqvae(networks, SPEC, LAW, QUANTIZERS['vq'], adversarial=hinge(), **options)
    state = watched().state.replace(step=jnp.int32(step))
    loss, (_, metrics) = method.phases[0].loss(state.params, state, batch, jax.random.key(1))
    return float(loss), metrics


def test_the_discriminator_has_no_say_before_its_step():
    batch = images(seed=7)
    options = {'adversarial_weight': 0.3, 'adversarial_start': 5, 'adaptive_weight': False}
    before, metrics = losses_at(4, batch, **options)
    alone = vqvae({'autoencoder': Patches}, SPEC, LAW, QUANTIZERS['vq'], **options).phases[0].loss
    state = watched().state
    plain, _ = alone(state.params, state, batch, jax.random.key(1))
    assert before == pytest.approx(float(plain), rel=1e-6) and metrics['adversarial_weight'] == 0
    after, metrics = losses_at(5, batch, **options)
    said = CRITIC().apply(
        {'params': state.params['discriminator']}, reconstruction(watched(), batch['x']), train=True
    )
    np.testing.assert_allclose(metrics['adversarial'], -np.mean(said), rtol=1e-4)
    assert after == pytest.approx(before - 0.3 * float(np.mean(said)), rel=1e-5)


def reconstruction(run, x):
    codec, state = run.method.codec, run.state
    return codec.decode(
        state.params, state.model_state, codec.encode(state.params, state.model_state, x)
    )


def test_the_adaptive_weight_balances_gradients_at_the_last_layer():
    """Each by itself, differentiated with respect to all parameters."""
    run, batch = watched(), images(seed=7)
    weight = losses_at(0, batch, adversarial_weight=2.0)[1]['adversarial_weight']
    state, x, own = run.state, batch['x'], run.state.params['autoencoder']
    e = (
        run.method.phases[0]
        .loss.args[0]
        .vectors(state.model_state, run.method.codec.encode(state.params, state.model_state, x))
    )

    def mean(network):
        return Patches((4, 4, 1), code_channels=3, latent_channels=3, out_channels=1).apply(
            {'params': network}, e, train=True, method='decode'
        )

    def nats(network):
        return 2 * jnp.mean((x - mean(network)) ** 2)

    def said(network):
        critic = {'params': state.params['discriminator']}
        return jnp.mean(CRITIC().apply(critic, mean(network), train=True))

    size = [optax.tree.norm(jax.grad(part)(own['network'])['to_pixels']) for part in (nats, said)]
    assert float(weight) == pytest.approx(2 * float(size[0] / size[1]), rel=1e-3)


def test_the_discriminator_learns_to_tell_examples_from_reconstructions():
    run = watched()
    batch = images(num=32, seed=7)
    method = run.method._replace(phases=run.method.phases[1:])
    step, state = jax.jit(functools.partial(run.turn, method=method)), run.state
    for _ in range(40):
        state, metrics = step(state, batch)
    assert (
        metrics['discriminator/logit_of_real'] > 0.5 > -0.5 > metrics['discriminator/logit_of_made']
    )
    assert metrics['discriminator/loss'] < 1


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'adversarial': None}, r'^method\.adversarial: None; a discriminator needs one'),
        ({'adversarial_weight': 0.0}, r'^method\.adversarial_weight: 0\.0 must be above 0'),
        ({'adversarial_start': -1}, r'^method\.adversarial_start: -1 must be at least 0'),
        (
            {'observation': observation.categorical(SPEC)},
            r'^method\.observation\.name: .* gradient',
        ),
    ],
)
def test_options_that_do_not_go_with_a_discriminator_are_named(options, message):
    networks = {'autoencoder': Patches, 'discriminator': CRITIC}
    given = {'observation': LAW, 'quantizer': vq(6, 3), 'adversarial': hinge(), **options}
    with pytest.raises(InputError, match=message):
        vqvae(networks, SPEC, **given)


def test_other_players_and_networks_that_do_not_encode_are_named():
    with pytest.raises(InputError, match=r'^networks: has sections for'):
        vqvae({'autoencoder': Patches, 'critic': CRITIC}, SPEC, LAW, vq(6, 3))
    plain = {'autoencoder': lambda **fields: MLP()}
    with pytest.raises(InputError, match=r'^networks\.autoencoder\.name: .* does not encode'):
        vqvae(plain, SPEC, LAW, vq(6, 3))


# As a first stage

TINY = DataSpec((2, 2, 1), levels=3, num_classes=2)


def two_stages(inner, second, network, *, spec=TINY, **options) -> SimpleNamespace:
    """A model of what a first stage with random weights makes of images of four pixels."""
    law, quantizer = observation.logistic(spec), fsq((3,))
    first = functools.partial(vqvae, observation=law, quantizer=quantizer, adversarial=hinge())
    method = latent({'autoencoder': network, 'model': second}, spec, inner, first, **options)
    params, model_state = jax.jit(method.init)(
        jax.random.key(4), {'x': jnp.zeros((2, *spec.shape))}
    )
    params = nn.unbox(params)
    rng = np.random.default_rng(0)  # other codes should mean other images
    params = jax.tree.map(lambda leaf: leaf + rng.normal(size=leaf.shape), params)
    return SimpleNamespace(method=method, params=params, model_state=model_state)


def test_codes_and_decoder_together_bound_the_likelihood_of_every_image():
    """All 3^4 images and all 3^4 rows of codes, each by itself, given each of the labels."""
    gpt = functools.partial(Transformer, width=8, num_layers=1, num_heads=2, init_std=0.3)
    inner = functools.partial(autoregressive, class_conditional=True)
    model = two_stages(inner, gpt, functools.partial(Patches, size=1))
    method, codec, params = model.method, model.method.codec, model.params
    assert codec.spec == DataSpec((4,), 'int32', vocab_size=3) and method.num_classes == 2
    rows = np.array(list(itertools.product(range(3), repeat=4)))
    x = (rows - 1).astype(np.float32).reshape(-1, 2, 2, 1)
    given_codes = jax.jit(lambda row: codec.log_prob(params, {}, x, jnp.broadcast_to(row, (81, 4))))
    log_p = np.stack([given_codes(row) for row in rows.astype(np.int32)]).astype(np.float64)
    place = codec.encode(params, {}, x) @ 3 ** np.arange(3, -1, -1)
    assert len(np.unique(place)) > 4
    of_codes = autoregressive(
        {'model': gpt}, codec.spec._replace(num_classes=2), class_conditional=True
    )
    for label in range(2):
        labels = np.full(81, label, np.int32)
        rate = evaluate(of_codes, params, {}, {'x': rows.astype(np.int32), 'label': labels})['loss']
        log_prior = -4 * np.float64(rate)
        assert np.exp(log_prior).sum() == pytest.approx(1, abs=1e-4)
        exact = -np.log(np.exp(log_prior[:, None] + log_p).sum(0))
        assert np.exp(-exact).sum() == pytest.approx(1, abs=1e-3)
        values = evaluate(method, params, {}, {'x': x, 'label': labels})
        bound = -log_prior[place] - log_p[place, np.arange(81)]
        np.testing.assert_allclose(values['nats'], bound, rtol=1e-4)
        np.testing.assert_allclose(values['bits_per_dim'], bound / 4 / np.log(2), rtol=1e-4)
        np.testing.assert_allclose(values['rate'], -log_prior[place], rtol=1e-4)
        assert np.all(bound > exact)


def test_vectors_are_modeled_as_numbers_and_give_no_bound():
    inner = functools.partial(diffusion, process=gaussian.straight(), prediction='velocity')
    spec = TINY._replace(num_classes=None)
    flow = functools.partial(MLP, width=8, num_blocks=1)
    network = functools.partial(MLPAutoencoder, widths=(8,))
    model = two_stages(inner, flow, network, spec=spec, vectors=True)
    method = model.method
    assert method.codec.spec == DataSpec((1,), bounded=False)
    x = np.random.default_rng(0).integers(0, 3, (4, 2, 2, 1)).astype(np.float32) - 1
    values = evaluate(method, model.params, model.model_state, {'x': x})
    assert values and values.keys() <= method.estimators.keys()
    assert not {'nats', 'bits_per_dim', 'rate', 'distortion'} & method.estimators.keys()
    drawn = method.sample(
        model.params, model.model_state, jax.random.key(0), 5, sampler='ddim', num_steps=2
    )
    assert drawn.shape == (5, 2, 2, 1) and np.isfinite(drawn).all()


def test_an_autoencoder_without_codes_has_no_vectors_to_model():
    inner = functools.partial(autoregressive)
    first = functools.partial(vae, observation=observation.logistic(TINY))
    with pytest.raises(InputError, match=r'^method\.vectors: .* makes no codes'):
        latent({'autoencoder': Patches, 'model': MLP}, TINY, inner, first, vectors=True)
