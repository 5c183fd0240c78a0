"""Two stages as one model: what is frozen, what is normalized, and the bound against integrals."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from gen_jax.errors import InputError
from gen_jax.losses import observation
from gen_jax.methods.diffusion import diffusion
from gen_jax.methods.latent import latent
from gen_jax.methods.vae import vae
from gen_jax.networks.mlp import MLP
from gen_jax.processes import gaussian
from gen_jax.types import DataSpec
from tests.methods.test_vae import Linear, State, exact_params, log_evidence, points, ppca

SPEC = DataSpec((5,), num_classes=3)


def first(networks, spec):
    return vae(networks, spec, observation.gaussian(spec, sigma=0.5), latent_channels=2)


def second(networks, spec, **options):
    process = gaussian.straight()
    return diffusion(networks, spec, process, prediction='velocity', **options)


NETWORKS = {'autoencoder': Linear, 'model': functools.partial(MLP, width=16, num_blocks=1)}


def make(inner=second, autoencoder=first, networks=NETWORKS, spec=SPEC, **options):
    return latent(networks, spec, inner, autoencoder, **options)


@pytest.fixture(scope='module')
def begun():
    """A method with its batch, and parameters of which the first stage is probabilistic PCA."""
    x = points()
    method = make(statistics_steps=2)
    batch = {'x': jnp.asarray(x), 'label': jnp.zeros(len(x), jnp.int32)}
    params, model_state = nn.unbox(method.init(jax.random.key(0), batch))
    params |= exact_params(*ppca(x, 0.5))
    return method, batch, params, model_state


def test_the_first_stage_is_frozen_and_the_second_learns(begun):
    method, batch, params, model_state = begun
    assert method.trained == ('model',) and method.averaged == ('model',)
    (phase,) = method.phases

    def loss(params):
        return phase.loss(params, State_(0, model_state), batch, jax.random.key(0))[0]

    gradient = jax.grad(loss)(params)
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(gradient['autoencoder']))
    assert any(np.any(leaf != 0) for leaf in jax.tree.leaves(gradient['model']))


class State_(State):
    """One whose model state can be another."""

    def replace(self, model_state):
        return State_(self.step, model_state)


def test_latents_are_normalized_by_the_first_batches_and_by_no_later_ones(begun):
    method, batch, params, model_state = begun
    (phase,) = method.phases
    step = jax.jit(
        lambda number, state, batch: phase.loss(
            params, State_(number, state), batch, jax.random.key(number)
        )[1][0]
    )
    encode = functools.partial(method.codec.draw, params, model_state)
    halves = [jax.tree.map(lambda leaf, i=i: leaf[i::2], batch) for i in (0, 1)]
    for number, part in enumerate(halves):
        model_state = step(number, model_state, part)
    z = np.concatenate(
        [
            encode(part['x'], jax.random.split(jax.random.key(number))[0])[0]
            for number, part in enumerate(halves)
        ]
    )
    np.testing.assert_allclose(model_state['latent']['mean'], z.mean(0), atol=1e-5)
    np.testing.assert_allclose(model_state['latent']['square'], (z**2).mean(0), rtol=1e-5)
    later = step(2, model_state, halves[0])
    jax.tree.map(np.testing.assert_array_equal, later, model_state)


def test_a_perfect_second_stage_makes_the_bound_that_of_the_first(begun):
    """The prior of PCA is N(0, I): a velocity that is exact for what (2) makes of it leaves the
    bound of the first stage, of which the gap is zero, plus what 1,000 steps cost."""
    _, batch, params, model_state = begun
    shift, scale = jnp.array([0.3, -0.2]), jnp.array([1.5, 0.7])
    model_state = {**model_state, 'latent': {'mean': shift, 'square': scale**2 + shift**2}}

    class Exact(nn.Module):
        """E[eps - u | u_t] for u = (z - shift) / scale, z ~ N(0, I)."""

        out_channels: int
        num_classes: int | None = None

        @nn.compact
        def __call__(self, u_t, t, label=None, *, train):
            t = t[:, None]
            mean, variance = -shift / scale, 1 / scale**2
            total = (1 - t) ** 2 * variance + t**2
            away = (u_t - (1 - t) * mean) / total
            u = mean + (1 - t) * variance * away
            return t * away - u + 0 * self.param('nothing', nn.initializers.ones_init(), ())

    exact = make(networks={**NETWORKS, 'model': Exact})
    params = {**params, 'model': {'nothing': jnp.ones(())}}
    run = jax.jit(functools.partial(exact.evaluate, bound_terms=None))
    found = run(params, model_state, batch, jax.random.key(0))
    expected = -log_evidence(batch['x'], *ppca(points(), 0.5))
    error = np.asarray(found['nats']) - expected
    assert 0 < error.mean() < 0.1
    np.testing.assert_allclose(found['nats'], found['rate'] + found['distortion'], rtol=1e-5)
    assert exact.estimators.keys() >= found.keys()
    # What is drawn is the law of the first stage: PCA's.
    draw = jax.jit(functools.partial(exact.sample, num=5000, sampler='ddim', num_steps=100))
    x = np.asarray(draw(params, model_state, jax.random.key(1)))
    mean, w, _ = ppca(points(), 0.5)
    np.testing.assert_allclose(x.mean(0), mean, atol=0.1)
    np.testing.assert_allclose(np.cov(x.T), w @ w.T, atol=0.15 * np.abs(w @ w.T).max())
    directions = (x - mean) @ np.linalg.pinv(w).T
    assert stats.kstest(directions[:, 0], 'norm').pvalue > 1e-3


def told(networks, spec, **options):
    law = observation.gaussian(spec, sigma=0.5)
    return vae(networks, spec, law, latent_channels=2, class_conditional=True)


@pytest.mark.parametrize(
    ('options', 'reason'),
    [
        ({'statistics_steps': 0}, r'^method\.statistics_steps: 0'),
        ({'networks': {'model': NETWORKS['model']}}, r"^networks: .* section 'autoencoder'"),
        (
            {'autoencoder': lambda _, spec: second({'model': MLP}, spec)},
            r'this one does not encode',
        ),
        ({'autoencoder': told}, r'^method\.inner\.class_conditional: .* set it to True'),
    ],
)
def test_stages_that_do_not_fit_are_refused(options, reason):
    with pytest.raises(InputError, match=reason):
        make(**options)


def test_codes_are_not_for_methods_of_numbers():
    from gen_jax.methods.vqvae import vqvae
    from gen_jax.networks.autoencoder import ConvAutoencoder
    from gen_jax.quantizers.scalar import fsq

    spec = DataSpec((4, 4, 1), levels=3)
    networks = {
        'autoencoder': functools.partial(ConvAutoencoder, channels=8, vector=False),
        'model': NETWORKS['model'],
    }

    def codes(networks, spec):
        return vqvae(networks, spec, observation.categorical(spec), fsq((3, 3)))

    with pytest.raises(InputError, match=r'^method\.name: this method is for numbers'):
        make(networks=networks, autoencoder=codes, spec=spec)
    with pytest.raises(InputError, match='examples are tokens'):
        first({'autoencoder': Linear}, DataSpec((5,), 'int32', vocab_size=7))


def test_options_are_those_of_the_inner_method():
    from gen_jax import build

    method = make()
    hidden = ('params', 'model_state', 'key', 'num', 'cond', 'given')
    build.check_keywords(method.sample, {'num_steps': 3}, 'sample.options', hidden=hidden)
    with pytest.raises(InputError, match=r"sample takes no 'temperature'; it takes sampler"):
        build.check_keywords(method.sample, {'temperature': 1}, 'sample.options', hidden=hidden)
