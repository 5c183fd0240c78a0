"""The multilayer perceptron: shapes, time and labels, its loop, and what it refuses."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gen_jax.errors import InputError
from gen_jax.networks.mlp import MLP


def output(network, x, t, label=None):
    """Of weights moved at random, since the last layer starts at zero."""
    variables = network.init(jax.random.key(0), x, t, label, train=False)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda w: w + 0.3 * rng.normal(size=w.shape).astype(w.dtype), variables
    )
    return np.asarray(network.apply(variables, x, t, label, train=False))


def test_it_starts_at_zero_and_depends_on_all_it_is_given():
    network = MLP(width=16, num_blocks=2, num_classes=3)
    x, t, label = jnp.ones((4, 2)), jnp.array([0.1, 0.1, 0.9, 0.1]), jnp.array([0, 1, 0, 0])
    x = x.at[3].set(0.5)
    start, _ = network.init_with_output(jax.random.key(0), x, t, label, train=False)
    assert start.shape == (4, 2) and not np.any(start)
    out = output(network, x, t, label)
    assert all(np.abs(out[0] - row).max() > 1e-3 for row in out[1:])


def test_no_label_is_the_last_row_and_the_width_of_the_answer_can_be_told():
    network = MLP(width=16, num_blocks=1, num_classes=3, out_channels=5)
    x, t = jnp.ones((2, 2)), jnp.ones(2)
    none, last = output(network, x, t), output(network, x, t, jnp.array([3, 3]))
    assert none.shape == (2, 5)
    np.testing.assert_array_equal(none, last)


def stacked(params: dict, num_blocks: int) -> dict:
    """The parameters of an unscanned network as the scanned one has them."""
    blocks = [params[f'block_{i}'] for i in range(num_blocks)]
    others = {name: tree for name, tree in params.items() if not name.startswith('block_')}
    return {**others, 'blocks': jax.tree.map(lambda *leaves: jnp.stack(leaves), *blocks)}


@pytest.mark.parametrize('remat', [False, True])
def test_a_scan_over_stacked_parameters_computes_the_same(remat):
    fields = {'width': 16, 'num_blocks': 3, 'num_classes': 3}
    each, scanned = MLP(**fields), MLP(**fields, scan=True, remat=remat)
    x, t = jnp.ones((4, 2)), jnp.linspace(0, 1, 4)
    rng = np.random.default_rng(0)
    params = nn.unbox(each.init(jax.random.key(0), x, t, train=False)['params'])
    params = jax.tree.map(lambda w: w + 0.3 * rng.normal(size=w.shape).astype(w.dtype), params)
    together = stacked(params, 3)
    shapes = nn.unbox(scanned.init(jax.random.key(0), x, t, train=False)['params'])
    assert jax.tree.map(jnp.shape, together) == jax.tree.map(jnp.shape, shapes)
    np.testing.assert_allclose(
        scanned.apply({'params': together}, x, t, train=False),
        each.apply({'params': params}, x, t, train=False),
        rtol=1e-5,
        atol=1e-5,
    )


def test_scanned_blocks_start_unlike_each_other():
    network, x, t = MLP(width=16, num_blocks=3, scan=True), jnp.ones((4, 2)), jnp.ones(4)
    params = nn.unbox(network.init(jax.random.key(0), x, t, train=False)['params'])
    first, second, _ = params['blocks']['dense_0']['kernel']
    assert np.abs(first - second).max() > 0.1


def test_the_program_of_a_scan_does_not_grow_with_the_blocks():
    def lines(num_blocks: int, scan: bool) -> int:
        network = MLP(width=16, num_blocks=num_blocks, scan=scan, remat=True)
        x, t = jnp.ones((4, 2)), jnp.ones(4)
        shapes = jax.eval_shape(lambda: network.init(jax.random.key(0), x, t, train=False))
        loss = jax.grad(lambda variables: network.apply(variables, x, t, train=True).sum())
        return len(jax.jit(loss).lower(shapes).as_text().splitlines())

    assert lines(20, scan=True) == lines(2, scan=True) < lines(4, scan=False)


@pytest.mark.parametrize('fields', [{'width': 7}, {'width': 2}, {'num_blocks': 0}])
def test_fields_that_make_no_network_are_refused(fields):
    with pytest.raises(InputError, match=next(iter(fields))):
        MLP(**fields)
