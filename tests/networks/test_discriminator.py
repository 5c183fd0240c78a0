"""The discriminator of patches: what a logit sees, and what makes no network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gen_jax.errors import InputError
from gen_jax.networks.discriminator import PatchDiscriminator


@pytest.mark.parametrize(('num_levels', 'sees'), [(1, 16), (2, 34), (3, 70)])
def test_a_logit_sees_a_patch_and_no_more(num_levels, sees):
    """Without a norm, which looks at the whole image; 70 pixels are the paper's."""
    network = PatchDiscriminator(channels=1, num_levels=num_levels, num_groups=None)
    x = jax.random.normal(jax.random.key(0), (1, 96, 96, 1))
    params = network.init(jax.random.key(1), x, train=False)

    def middle(x):
        logits = network.apply(params, x, train=False)[0]
        return logits[logits.shape[0] // 2, logits.shape[1] // 2]

    seen = np.asarray(jax.jit(jax.grad(middle))(x))[0, ..., 0] != 0
    for axis in (0, 1):
        where = np.flatnonzero(seen.any(axis))
        assert where[-1] - where[0] + 1 == sees


def test_shapes_and_norms():
    network = PatchDiscriminator(channels=8, num_levels=2, num_groups=4)
    x = jnp.ones((3, 32, 20, 3))
    params = network.init(jax.random.key(0), x, train=False)
    logits = network.apply(params, x, train=False)
    assert logits.shape == (3, 8, 5) and logits.dtype == jnp.float32
    layers = params['params']
    widths = [layers[f'block_{level}']['conv']['kernel'].shape[-1] for level in range(3)]
    assert widths == [8, 16, 32]
    # As in the paper, none after the first convolution and the last.
    assert 'norm' not in layers['block_0'] and 'norm' in layers['block_1']
    assert set(layers) == {'block_0', 'block_1', 'block_2', 'conv_out'}


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        ({'num_levels': 0}, r'^num_levels: 0 must be at least 1'),
        ({'channels': 12, 'num_groups': 8}, r'^channels, num_groups: 12 .* into 8 groups'),
        ({'channels': 0, 'num_groups': None}, r'^channels, num_groups: 0 '),
    ],
)
def test_fields_that_make_no_network_are_named(fields, message):
    with pytest.raises(InputError, match=message):
        PatchDiscriminator(**fields)
