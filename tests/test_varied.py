"""A number that runs have different values of: arithmetic by run, decisions for all."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gen_jax.errors import InputError
from gen_jax.varied import Varied

VALUES = (0.5, 2.0)


def mapped(function):
    """The function of both numbers at once."""
    return jax.vmap(lambda array: function(Varied(array, VALUES, 'optim.model.x')))(
        jnp.asarray(VALUES)
    )


@pytest.mark.parametrize(
    'function',
    [
        lambda x: x + 1,
        lambda x: 1 - x,
        lambda x: x * jnp.ones(3),
        lambda x: jnp.ones(3) * x,
        lambda x: 3 / x,
        lambda x: x**2,
        lambda x: x ** jnp.int32(3),
        lambda x: 2.0**x,
        lambda x: -x + abs(x),
        lambda x: jnp.sqrt(jnp.asarray(x)),
        jax.jit(lambda x: x * 2),
    ],
)
def test_arithmetic_is_that_of_each_run(function):
    np.testing.assert_allclose(mapped(function), [function(value) for value in VALUES], rtol=1e-6)


def test_a_decision_is_what_holds_for_all():
    def decide(x):
        assert x > 0 and x >= 0.5 and x < 3 and x <= 2 and x != 1
        assert bool(x) and not x > 2 and max(x, 0.1) is x
        return x + 0

    mapped(decide)
    for function in (lambda x: x > 1, lambda x: x == 2.0, float):
        with pytest.raises(InputError, match=r'optim\.model\.x: .*apart'):
            mapped(function)
