"""The multilayer perceptron: shapes, time and labels, and what it refuses."""

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


@pytest.mark.parametrize('fields', [{'width': 7}, {'width': 2}, {'num_blocks': 0}])
def test_fields_that_make_no_network_are_refused(fields):
    with pytest.raises(InputError, match=next(iter(fields))):
        MLP(**fields)
