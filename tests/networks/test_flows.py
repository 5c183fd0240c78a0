"""Flows against the Jacobians of what they compute, and against themselves back again."""

import functools
from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gen_jax.errors import InputError
from gen_jax.networks.flows import IAF, Autoregression, RealNVP, SplineFlow, coordinate_order

FLOWS = {
    'realnvp': functools.partial(RealNVP, num_layers=3, width=8),
    'spline': functools.partial(SplineFlow, num_layers=2, width=8, num_bins=4, bound=2.0),
    'iaf': functools.partial(IAF, num_layers=2, width=8),
}
X = jax.random.normal(jax.random.key(1), (3, 4, 5))
CONTEXT = jax.random.normal(jax.random.key(2), (4, 6))


def moved(flow, *arguments, scale=0.15):
    """Parameters moved at random, since the last layers start at zero."""
    variables = nn.unbox(jax.jit(flow.init)(jax.random.key(0), *arguments))
    generator = np.random.default_rng(0)
    return jax.tree.map(
        lambda w: w + scale * generator.normal(size=w.shape).astype(w.dtype), variables
    )


@pytest.fixture(scope='module', params=[*FLOWS, 'iaf alone'])
def case(request):
    name, *alone = request.param.split()
    flow, context = FLOWS[name](), None if alone else CONTEXT
    variables = moved(flow, X, context)
    return SimpleNamespace(
        context=context,
        forward=jax.jit(functools.partial(flow.apply, variables)),
        inverse=jax.jit(functools.partial(flow.apply, variables, method='inverse')),
    )


def test_what_goes_through_comes_back_both_ways(case):
    for there, back in ((case.forward, case.inverse), (case.inverse, case.forward)):
        y, log_det = there(X, case.context)
        x, log_back = back(y, case.context)
        assert y.shape == X.shape and log_det.shape == X.shape[:-1]
        assert np.abs(y - X).max() > 0.1
        np.testing.assert_allclose(x, X, atol=1e-5)
        np.testing.assert_allclose(log_back, -log_det, atol=1e-5)


def test_log_det_is_that_of_the_jacobian_of_each_example(case):
    """And a context is broadcast over the leading axes that it does not have."""
    y, log_det = case.forward(X, case.context)
    context = None if case.context is None else jnp.broadcast_to(CONTEXT, (3, 4, 6))

    @jax.jit
    @jax.vmap
    @jax.vmap
    def of_each(x, context):
        return case.forward(x, context)[0], jax.jacfwd(case.forward, has_aux=True)(x, context)[0]

    alone, jacobian = of_each(X, context)
    np.testing.assert_allclose(y, alone, atol=1e-5)
    sign, expected = np.linalg.slogdet(np.asarray(jacobian, np.float64))
    assert (sign == 1).all()
    np.testing.assert_allclose(log_det, expected, atol=2e-5)


def test_every_coordinate_is_moved_by_its_context(case):
    if case.context is not None:
        y, other = (case.forward(X, context)[0] for context in (case.context, -case.context))
        assert (np.abs(y - other).max((0, 1)) > 1e-3).all()


@pytest.mark.parametrize('name', FLOWS)
def test_a_density_made_by_a_flow_integrates_to_one(name):
    axis = np.linspace(-12, 12, 401, dtype=np.float32)
    x = jnp.stack(jnp.meshgrid(axis, axis), -1)
    flow = FLOWS[name]()
    y, log_det = jax.jit(flow.apply)(moved(flow, x[0]), x)
    log_density = -0.5 * jnp.square(y).sum(-1) - np.log(2 * np.pi) + log_det
    total = np.exp(np.asarray(log_density, np.float64)).sum() * (axis[1] - axis[0]) ** 2
    np.testing.assert_allclose(total, 1, atol=1e-3)


@pytest.mark.parametrize('name', FLOWS)
def test_it_starts_as_the_identity_and_an_iaf_with_open_gates(name):
    init = jax.jit(FLOWS[name]().init_with_output)
    y, log_det = init(jax.random.key(0), X, CONTEXT)[0]
    gate = 1 / (1 + np.exp(-2.0)) if name == 'iaf' else 1
    np.testing.assert_allclose(y, gate**2 * X, atol=1e-5)
    np.testing.assert_allclose(log_det, 5 * 2 * np.log(gate), atol=1e-5)


@pytest.mark.parametrize('name', FLOWS)
@pytest.mark.parametrize(('dim', 'context'), [(2, None), (5, CONTEXT)])
def test_gradients_reach_every_leaf_after_two_steps(name, dim, context):
    """At the start zero kernels hide what lies behind them."""
    flow, x = FLOWS[name](), X[..., :dim]
    variables = nn.unbox(jax.jit(flow.init)(jax.random.key(0), x, context))
    adam = optax.adam(1e-2)

    @jax.jit
    def step(variables, state):
        def loss(variables):
            y, log_det = flow.apply(variables, x, context)
            return (jnp.square(y - 1).sum(-1) - log_det).mean()

        gradient = jax.grad(loss)(variables)
        updates, state = adam.update(gradient, state)
        return gradient, optax.apply_updates(variables, updates), state

    state = adam.init(variables)
    for _ in range(3):
        gradient, variables, state = step(variables, state)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert 0 < np.abs(leaf).max() < np.inf, jax.tree_util.keystr(path)


# Order


@pytest.mark.parametrize('dim', [2, 3, 7, 8, 12, 33])
def test_any_two_coordinates_are_in_different_halves_of_some_layer(dim):
    apart = np.eye(dim, dtype=bool)
    for layer in range(2 * int(np.ceil(np.log2(dim)))):
        order = coordinate_order(dim, layer)
        np.testing.assert_array_equal(np.sort(order), np.arange(dim))
        kept = np.isin(np.arange(dim), order[: dim // 2])
        apart |= kept[:, None] != kept
    assert apart.all()


@pytest.mark.parametrize('name', ['realnvp', 'spline'])
def test_a_pair_of_coupling_layers_moves_every_coordinate(name):
    flow = FLOWS[name](num_layers=2)
    y, _ = jax.jit(flow.apply)(moved(flow, X), X)
    assert (np.abs(y - X).max((0, 1)) > 1e-2).all()


@pytest.mark.parametrize('context', [None, CONTEXT[0]])
@pytest.mark.parametrize('backwards', [False, True])
@pytest.mark.parametrize('width', [3, 16])
def test_autoregression_sees_all_that_came_before_and_nothing_else(context, backwards, width):
    layer, x = Autoregression(width=width, backwards=backwards), X[0, 0]
    variables = moved(layer, x, context)
    networks = functools.partial(layer.apply, variables, method='mean_and_gate')
    jacobians = jax.jit(jax.jacfwd(networks, argnums=0 if context is None else (0, 1)))(x, context)
    for of_one in jacobians:
        jacobian, by_context = (of_one, None) if context is None else of_one
        jacobian = np.asarray(jacobian)[::-1, ::-1] if backwards else np.asarray(jacobian)
        assert not np.triu(jacobian).any()
        assert jacobian[1:, 0].all()
        if width == 16:  # fewer units than coordinates cannot see each of them
            assert jacobian[np.tril_indices(5, -1)].all()
        assert by_context is None or np.abs(by_context).max(-1).all()


# Precision and refusals


@pytest.mark.parametrize('name', FLOWS)
def test_networks_round_and_densities_do_not(name):
    exact, rounded = FLOWS[name](), FLOWS[name](dtype='bfloat16')
    variables = moved(exact, X, CONTEXT)
    shapes = [jax.eval_shape(f.init, jax.random.key(0), X, CONTEXT) for f in (exact, rounded)]
    assert shapes[0] == shapes[1]
    halves = jax.eval_shape(rounded.apply, variables, X.astype(jnp.bfloat16), CONTEXT)
    assert all(leaf.dtype == jnp.float32 for leaf in halves)
    (y, log_det), (wanted, _) = (jax.jit(f.apply)(variables, X, CONTEXT) for f in (rounded, exact))
    assert 1e-4 < np.abs(y - wanted).max() < 0.1
    program = jax.make_jaxpr(rounded.apply)(variables, X, CONTEXT)
    types = {
        str(variable.aval.dtype)
        for equation in program.jaxpr.eqns
        if equation.primitive.name == 'dot_general'
        for variable in equation.invars
    }
    assert types == {'bfloat16'}
    if name != 'iaf':  # what is kept passes unchanged, so the way back is exact
        inverse = jax.jit(functools.partial(rounded.apply, method='inverse'))
        x, log_back = inverse(variables, y, CONTEXT)
        np.testing.assert_allclose(x, X, atol=1e-5)
        np.testing.assert_allclose(log_back, -log_det, atol=1e-5)


@pytest.mark.parametrize('name', FLOWS)
@pytest.mark.parametrize('field', ['num_layers', 'width'])
def test_sizes_below_one_are_refused(name, field):
    with pytest.raises(InputError, match=f'{field}: 0'):
        FLOWS[name](**{field: 0})


@pytest.mark.parametrize('fields', [{'num_bins': 1}, {'bound': 0.0}, {'bound': float('inf')}])
def test_splines_that_cannot_be_are_refused(fields):
    with pytest.raises(InputError, match=next(iter(fields))):
        SplineFlow(**fields)


@pytest.mark.parametrize('name', FLOWS)
def test_a_single_number_is_refused(name):
    with pytest.raises(InputError, match='vector of 1'):
        FLOWS[name]().init(jax.random.key(0), X[..., :1])
