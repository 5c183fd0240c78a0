"""Priors against SciPy's densities, integrals over the plane, and counts of what they draw."""

import functools
from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats
from scipy.special import log_softmax, logsumexp

from gen_jax.errors import InputError
from gen_jax.networks.priors import FlowPrior, Mixture, Normal, Vamp

SHAPE = (3, 2, 1)
PRIORS = {
    'normal': Normal(),
    'vamp': Vamp(SHAPE, num_components=7),
    'mixture': Mixture(num_components=3),
    'realnvp': FlowPrior(flow='realnvp', num_layers=2, width=8),
    'spline': FlowPrior(flow='spline', num_layers=2, width=8, num_bins=4, bound=3.0),
}
WEIGHTS = jax.random.normal(jax.random.key(5), (6, 2))


def posterior(inputs):
    """Some function of the inputs that says a mean and a log variance for each."""
    mean = inputs.reshape(len(inputs), -1) @ WEIGHTS
    return mean, -2.0 - mean[:, ::-1] ** 2 / 10


@pytest.fixture(scope='module', params=PRIORS)
def case(request):
    """A prior of the plane with parameters moved at random, and its density on a grid."""
    prior = PRIORS[request.param]
    variables = perturbed(prior, 2)
    log_density = functools.partial(prior.apply, posterior=posterior, method='log_density')
    log_density = jax.jit(log_density)
    axis = np.linspace(-12, 12, 481, dtype=np.float32)
    z = jnp.stack(jnp.meshgrid(axis, axis, indexing='ij'), -1)
    density = np.exp(np.asarray(log_density(variables, z), np.float64))
    return SimpleNamespace(
        name=request.param,
        prior=prior,
        variables=variables,
        log_density=functools.partial(log_density, variables),
        axis=axis,
        mass=density * (axis[1] - axis[0]) ** 2,
    )


def start(prior, dim):
    init = jax.jit(functools.partial(prior.init, posterior=posterior))
    return nn.unbox(init(jax.random.key(0), jnp.ones((1, dim))))


def perturbed(prior, dim):
    variables = start(prior, dim)
    generator = np.random.default_rng(0)
    return jax.tree.map(
        lambda w: w + 0.15 * generator.normal(size=w.shape).astype(w.dtype), variables
    )


def test_a_density_integrates_to_one(case):
    np.testing.assert_allclose(case.mass.sum(), 1, atol=1e-3)


def test_leading_axes_are_as_they_come_and_a_call_is_the_density(case):
    z = jax.random.normal(jax.random.key(3), (3, 4, 2))
    densities = case.log_density(z)
    assert densities.shape == (3, 4) and densities.dtype == jnp.float32
    called = jax.jit(functools.partial(case.prior.apply, posterior=posterior))(case.variables, z)
    np.testing.assert_array_equal(called, densities)
    np.testing.assert_allclose(case.log_density(z[1, 2]), densities[1, 2], rtol=1e-5, atol=1e-5)


def counts_in_cells(case, z):
    """How many of z `[N, 2]` are in each cell of the plane, and how many there should be; cells
    that should have few are one."""
    edges = np.concatenate([[-np.inf], np.linspace(-3, 3, 9), [np.inf]])
    counts = np.histogram2d(*np.asarray(z).T, bins=(edges, edges))[0].reshape(-1)
    points = np.stack(np.meshgrid(case.axis, case.axis, indexing='ij'), -1).reshape(-1, 2)
    # A point of the grid on an edge stands for the mass on both sides of it.
    shifts = [(a, b) for a in (-1e-3, 1e-3) for b in (-1e-3, 1e-3)]
    mass = sum(
        np.histogram2d(*(points + s).T, bins=(edges, edges), weights=case.mass.reshape(-1))[0]
        for s in shifts
    )
    expected = mass.reshape(-1) / mass.sum() * len(z)
    few = expected < 10
    return (
        np.append(counts[~few], counts[few].sum()),
        np.append(expected[~few], expected[few].sum()),
    )


def test_draws_follow_the_density(case):
    sample = functools.partial(case.prior.apply, case.variables, method='sample')
    sample = jax.jit(sample, static_argnums=(1, 2, 3))
    z = sample(jax.random.key(4), 20000, 2, posterior)
    assert z.shape == (20000, 2) and z.dtype == jnp.float32
    np.testing.assert_array_equal(z, sample(jax.random.key(4), 20000, 2, posterior))
    counts, expected = counts_in_cells(case, z)
    assert stats.chisquare(counts, expected).pvalue > 1e-3
    # The same number of another density's would be found out.
    other, expected = counts_in_cells(case, 1.15 * z + 0.1)
    assert stats.chisquare(other, expected).pvalue < 1e-4


def test_gradients_reach_every_leaf_after_two_steps(case):
    variables = start(case.prior, 2)
    z = jax.random.normal(jax.random.key(6), (32, 2)) + 1
    adam = optax.adam(1e-2)
    loss = jax.jit(jax.grad(lambda v: -case.prior.apply(v, z, posterior).mean()))
    state = adam.init(variables)
    for _ in range(3):
        gradient = loss(variables)
        updates, state = adam.update(gradient, state)
        variables = optax.apply_updates(variables, updates)
    assert bool(jax.tree.leaves(gradient)) == (case.name != 'normal')
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert 0 < np.abs(leaf).max() < np.inf, jax.tree_util.keystr(path)


# Against SciPy


def explicit(z, log_weights, mean, log_variance):
    """log sum_k w_k N(z; m_k, diag v_k) in float64."""
    z, mean, log_variance = (np.asarray(a, np.float64) for a in (z, mean, log_variance))
    densities = stats.norm.logpdf(z[..., None, :], mean, np.exp(0.5 * log_variance)).sum(-1)
    return logsumexp(densities + log_weights, -1)


def test_normal_is_scipys():
    z = jax.random.normal(jax.random.key(3), (3, 4, 5))
    expected = stats.multivariate_normal(np.zeros(5)).logpdf(z)
    np.testing.assert_allclose(Normal().apply({}, z), expected, rtol=1e-5)


@pytest.mark.parametrize(('num_components', 'narrow'), [(1, 0.0), (53, 0.0), (53, 12.0)])
def test_vamp_is_the_mixture_of_posteriors(num_components, narrow):
    """With deviations of e^-6 too, where differences of squares would be nats away; there the
    rounding of a mean alone is some 1e-3."""

    def seen(inputs):
        mean, log_variance = posterior(inputs)
        return mean, log_variance - narrow

    prior = Vamp(SHAPE, num_components)
    variables = perturbed(prior, 2)
    inputs = prior.apply(variables, method='pseudo_inputs')
    assert inputs.shape == (num_components, *SHAPE) and np.abs(inputs).max() < 1
    mean, log_variance = seen(inputs)
    noise = jax.random.normal(jax.random.key(3), (4, *mean.shape))
    z = mean + jnp.exp(0.5 * log_variance) * noise
    found = jax.jit(lambda z: prior.apply(variables, z, seen))(z)
    expected = explicit(z, -np.log(num_components), mean, log_variance)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=3e-3 if narrow else 1e-5)


def test_mixture_is_the_weighted_one():
    prior = Mixture(num_components=53)
    variables = perturbed(prior, 5)
    z = jax.random.normal(jax.random.key(3), (3, 4, 5))
    p = variables['params']
    expected = explicit(z, log_softmax(p['logits']), p['mean'], p['log_variance'])
    found = jax.jit(prior.apply)(variables, z)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_far_from_all_components_a_density_is_finite():
    z = jnp.full((1, 2), 1e3)
    for name in ('vamp', 'mixture'):
        prior = PRIORS[name]
        apply = jax.jit(functools.partial(prior.apply, posterior=posterior))
        density = apply(perturbed(prior, 2), z)
        assert np.isfinite(density).all() and (density < -1e4).all()


def test_pseudo_inputs_start_around_the_mean_of_the_data():
    prior = Vamp((28, 28, 1), num_components=20, mean=-0.7, noise=0.1)
    init = jax.jit(lambda key, z: prior.init(key, z, lambda inputs: (inputs[:, 0, :2, 0],) * 2))
    variables = init(jax.random.key(0), jnp.ones((1, 2)))
    inputs = np.asarray(prior.apply(variables, method='pseudo_inputs'))
    np.testing.assert_allclose(np.median(inputs), -0.7, atol=0.01)
    # tanh' = 1 - tanh^2
    np.testing.assert_allclose(inputs.std(), 0.1 * (1 - 0.49), rtol=0.05)
    assert np.abs(inputs[0] - inputs[1]).max() > 0.05


# Refusals


@pytest.mark.parametrize(
    ('prior', 'fields'),
    [
        (functools.partial(Vamp, SHAPE), {'num_components': 0}),
        (functools.partial(Vamp, SHAPE), {'mean': -1.0}),
        (functools.partial(Vamp, SHAPE), {'noise': 0.0}),
        (Mixture, {'num_components': 1}),
        (FlowPrior, {'flow': 'glow'}),
        (FlowPrior, {'num_layers': 0}),
        (FlowPrior, {'width': 0}),
        (FlowPrior, {'num_bins': 8}),
        (FlowPrior, {'bound': 3.0}),
        (functools.partial(FlowPrior, 'spline'), {'num_bins': 1}),
        (functools.partial(FlowPrior, 'spline'), {'bound': -1.0}),
    ],
)
def test_fields_that_make_no_prior_are_refused(prior, fields):
    with pytest.raises(InputError, match=f'^{next(iter(fields))}: '):
        prior(**fields)


def test_vamp_without_a_posterior_and_a_flow_of_one_number_are_refused():
    with pytest.raises(InputError, match='posterior'):
        PRIORS['vamp'].init(jax.random.key(0), jnp.ones((1, 2)))
    with pytest.raises(InputError, match='vector of 1'):
        PRIORS['realnvp'].init(jax.random.key(0), jnp.ones((1, 1)))
