"""The hierarchy against closed forms, Monte Carlo, and itself: one pass, drawing and decoding."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gen_jax.errors import InputError
from gen_jax.networks.vdvae import VDVAE, Normal, average_pool, divergence

LEVELS = ((7, 1, 1), (4, 1, 1), (1, 1, 2))
KEY = jax.random.key(5)
X = jax.random.normal(jax.random.key(1), (3, 7, 7, 2))
LABEL = jnp.array([2, 0, 1])


def network(**fields) -> VDVAE:
    options = {'shape': (7, 7, 2), 'latent_channels': 3, 'out_channels': 4, 'channels': 8}
    return VDVAE(**options | {'levels': LEVELS, 'num_classes': 3} | fields)


@functools.cache
def shapes():
    return jax.eval_shape(functools.partial(network().init, train=False), KEY, X, LABEL)


@pytest.fixture(scope='module')
def variables():
    """None of them zero, which would hide what lies behind them."""
    generator = np.random.default_rng(3)
    return jax.tree.map(
        lambda leaf: 0.2 * generator.normal(size=leaf.shape).astype(leaf.dtype), shapes()
    )


@functools.cache
def program(method: str, **options):
    return jax.jit(functools.partial(network().apply, method=method, **options))


def infer(variables, x=X, label=LABEL, key=KEY):
    return program('__call__', train=False)(variables, x, label, key)


def generate(variables, key=KEY, label=LABEL, temperature=1.0):
    return program('generate', num=3, temperature=temperature)(variables, key, label=label)


# What a pass says


def test_shapes_follow_the_levels_from_the_coarsest_on():
    assert network().resolutions == (1, 1, 4, 7)
    found = jax.eval_shape(functools.partial(network().apply, train=False), shapes(), X, LABEL)
    assert found.parameters.shape == (3, 7, 7, 4)
    assert tuple(z.shape[1:] for z in found.latents) == network().latent_shapes
    assert [z.shape for z in found.latents] == [(3, r, r, 3) for r in (1, 1, 4, 7)]
    assert found.rates.shape == (4, 3, 3)
    assert found.log_q.shape == found.log_ratio.shape == (4, 3)


def test_the_default_network_is_that_of_the_paper():
    net = VDVAE(shape=(32, 32, 3), latent_channels=16, out_channels=100)
    init = functools.partial(net.init, train=False)
    found = jax.eval_shape(init, KEY, jnp.zeros((1, 32, 32, 3)))
    assert round(sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(found)) / 1e6) == 39
    assert len(net.resolutions) == 43


def test_divergences_are_those_of_gaussians():
    """Against samples, and exactly nothing between equals."""
    q, p = Normal(jnp.float32(0.3), jnp.float32(-0.5)), Normal(jnp.float32(-1.0), jnp.float32(0.4))
    z = q.mean + jnp.exp(q.log_deviation) * jax.random.normal(KEY, (200_000,))

    def log_density(law):
        return jax.scipy.stats.norm.logpdf(z, law.mean, jnp.exp(law.log_deviation))

    ratio = log_density(q) - log_density(p)
    error = float(ratio.std()) / len(z) ** 0.5
    assert abs(float(divergence(q, p)) - float(ratio.mean())) < 4 * error < 0.01
    assert divergence(q, q) == 0


@pytest.fixture(scope='module')
def draws(variables):
    """Of 4,000 draws the log-ratios and the rates of all blocks, and the first z."""

    @jax.jit
    def draw(keys):
        apply = functools.partial(network().apply, variables, train=False)
        seen = apply(X, LABEL, method='look')

        def one(key):
            found = apply(seen, LABEL, key, method='infer')
            return found.log_ratio, found.rates.sum(2), found.latents[0]

        return jax.vmap(one)(keys)

    return jax.tree.map(np.float64, draw(jax.random.split(KEY, 4000)))


def test_rates_are_the_means_of_the_log_ratios(draws):
    """Of every block, over draws of it and of all before it."""
    ratio, rate, _ = draws
    assert np.all(rate > 0)
    error = np.std(ratio - rate, 0) / len(ratio) ** 0.5
    assert np.all(np.abs((ratio - rate).mean(0)) < 4.5 * error)
    assert np.all(error < 0.1 * rate.mean(0))


def test_log_q_is_the_density_of_what_was_drawn(variables, draws):
    """Of the first block, whose law depends on nothing drawn: its mean is that without a key, its
    deviation that of many draws."""
    mean, found = infer(variables, key=None).latents[0], infer(variables)
    deviation = np.std(draws[2] - mean, 0)
    expected = jax.scipy.stats.norm.logpdf(found.latents[0], mean, deviation)
    np.testing.assert_allclose(found.log_q[0], expected.sum((1, 2, 3)), atol=0.2)


def test_at_the_start_posteriors_are_priors_and_the_divergence_is_zero():
    start = jax.jit(functools.partial(network().init, train=False))(KEY, X, LABEL)
    found = infer(start)
    assert not np.any(found.rates)
    np.testing.assert_allclose(found.log_ratio, 0, atol=1e-5)
    # So what is drawn from one is drawn from the other.
    np.testing.assert_allclose(generate(start), found.parameters, rtol=1e-5, atol=1e-6)


def test_the_last_kernel_of_a_branch_starts_smaller_the_more_blocks_there_are():
    levels = ((7, 8, 3), (1, 1, 1))
    net = network(levels=levels, channels=64)
    init = functools.partial(net.init, train=False)
    start = jax.jit(init)(KEY, X, LABEL)['params']
    plain = math.sqrt(2 / (16 + 64))
    for branch, num in ((start['up_0_0'], 9), (start['down_1']['residual'], 4)):
        kernel = np.asarray(branch['conv_3']['kernel'])
        np.testing.assert_allclose(kernel.std(), plain / num**0.5, rtol=0.1)
        kernel = np.asarray(branch['conv_0']['kernel'])
        np.testing.assert_allclose(kernel.std(), plain, rtol=0.1)


# Drawing and decoding


def test_latents_decode_to_what_the_pass_said_of_them(variables):
    found = infer(variables)
    decoded = program('decode')(variables, found.latents, LABEL)
    np.testing.assert_allclose(decoded, found.parameters, rtol=1e-5, atol=1e-5)
    other = program('decode')(variables, infer(variables, key=None).latents, LABEL)
    assert np.abs(other - decoded).max() > 0.01


def test_every_latent_matters_to_what_is_decoded(variables):
    latents = infer(variables).latents
    decode = program('decode')
    for number in range(len(latents)):
        moved = tuple(z + (n == number) for n, z in enumerate(latents))
        assert np.abs(decode(variables, moved, LABEL) - decode(variables, latents, LABEL)).max() > 0


def test_a_temperature_multiplies_deviations_and_zero_is_the_mean(variables):
    def with_priors(shift):
        """Where the log-deviation of every prior is `shift` more, whatever h says."""

        def change(path, leaf):
            names = [key.key for key in path]
            if names[-3:-1] != ['prior', 'conv_3']:
                return leaf
            if names[-1] == 'kernel':
                return leaf.at[..., 3:6].set(0)
            return leaf.at[3:6].add(shift)

        return jax.tree_util.tree_map_with_path(change, jax.tree.map(jnp.asarray, variables))

    # exp(shift) = 1/2, of every level
    colder = generate(with_priors(math.log(0.5)), temperature=1.0)
    np.testing.assert_allclose(generate(with_priors(0), temperature=0.5), colder, atol=1e-4)
    assert np.abs(generate(with_priors(0)) - colder).max() > 0.01
    one, other = (generate(variables, jax.random.key(n), temperature=0.0) for n in (1, 2))
    np.testing.assert_array_equal(one, other)
    assert np.abs(generate(variables, jax.random.key(1)) - one).max() > 0.01


def test_labels_matter_on_both_ways(variables):
    other = (LABEL + 1) % 3
    assert np.all(np.abs(generate(variables) - generate(variables, label=other)).max((1, 2, 3)) > 0)
    look = program('look', train=False)
    for a, b in zip(look(variables, X, LABEL), look(variables, X, other), strict=True):
        assert np.all(np.abs(a - b).max((1, 2, 3)) > 0)
    plain = network(num_classes=None)
    start = jax.eval_shape(functools.partial(plain.init, train=False), KEY, X)
    assert not any('label' in name for name in start['params'])


def test_dropout_is_for_training_alone(variables):
    @functools.partial(jax.jit, static_argnames='train')
    def apply(key, train):
        dropping = network(dropout=0.5)
        rngs = {'dropout': key}
        return dropping.apply(variables, X, LABEL, train=train, rngs=rngs).parameters

    one, other = (apply(jax.random.key(n), train=True) for n in (0, 1))
    assert np.abs(one - other).max() > 0.01
    expected = infer(variables, key=None).parameters
    np.testing.assert_allclose(apply(KEY, train=False), expected, rtol=1e-4, atol=1e-4)


# Resolutions


@pytest.mark.parametrize(('resolution', 'size'), [(8, 4), (7, 4), (14, 7), (7, 1), (7, 3), (5, 5)])
def test_pooling_takes_means_of_the_pixels_that_there_are(resolution, size):
    x = np.asarray(jax.random.normal(KEY, (2, resolution, resolution, 3)))
    side = -(-resolution // size)
    rows = [slice(i * side, (i + 1) * side) for i in range(size)]
    expected = [[x[:, a, b].mean((1, 2)) for b in rows] for a in rows]
    found = average_pool(jnp.asarray(x), size)
    np.testing.assert_allclose(found, np.array(expected).transpose(2, 0, 1, 3), atol=1e-6)


def test_biases_are_learned_up_to_a_resolution():
    init = functools.partial(network(bias_up_to=4).init, train=False)
    names = jax.eval_shape(init, KEY, X, LABEL)['params']
    assert {name for name in names if name.startswith('bias')} == {'bias_4', 'bias_1'}


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        ({'shape': (7, 8, 2)}, 'name: VDVAE is for square images'),
        ({'shape': (7,)}, 'name: VDVAE is for square images'),
        ({'levels': ()}, 'levels: () must be'),
        ({'levels': ((7, 1),)}, 'whole numbers from 1'),
        ({'levels': ((7, 0, 1),)}, 'whole numbers from 1'),
        ({'levels': ((8, 1, 1),)}, 'levels: the first resolution must be that of the data, 7'),
        ({'levels': ((7, 1, 1), (5, 1, 1))}, 'levels: 5 is not 7 divided'),
        ({'levels': ((7, 1, 1), (7, 1, 1))}, 'levels: 7 is not 7 divided'),
        ({'channels': 9}, 'channels, bottleneck: 9 must be a multiple of 4'),
        ({'dropout': 1.0}, 'dropout: 1.0'),
    ],
)
def test_bad_fields_are_named(fields, message):
    with pytest.raises(InputError) as error:
        network(**fields)
    assert message in str(error.value)
