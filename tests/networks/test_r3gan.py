"""R3GAN's networks: the grouped convolution, what they are at first, shapes, second gradients."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gen_jax.errors import InputError
from gen_jax.networks import r3gan
from gen_jax.networks.r3gan import Discriminator, Generator

SMALL = {'widths': (16, 8), 'num_blocks': (1, 1), 'group_width': 8}
LABELS = jnp.array([0, 2])


def normal(seed: int, *shape: int):
    """Float32 Gaussian numbers."""
    return jax.random.normal(jax.random.key(seed), shape)


def filled(network, *arguments, **options):
    """Variables of which none are zero."""
    init = jax.eval_shape(lambda: network.init(jax.random.key(0), *arguments, **options))
    generator = np.random.default_rng(1)
    return jax.tree.map(lambda v: 0.3 * generator.normal(size=v.shape).astype(np.float32), init)


@pytest.mark.parametrize(('width', 'outputs'), [(8, 8), (2, 6), (24, 8)])
def test_grouped_conv_equals_the_plain_one_and_so_do_two_gradients(width, outputs):
    groups = 24 // width
    x, kernel = normal(0, 2, 5, 4, 24), 0.2 * normal(1, 3, 3, width, groups * outputs)

    def answers(convolve):
        """Value, gradients, and the gradients of the norm of one."""

        def value(x, kernel):
            return jnp.sin(convolve(x, kernel)).sum()

        def norm(x, kernel):
            return (jax.grad(value)(x, kernel) ** 2).sum()

        grads = jax.grad(value, (0, 1))(x, kernel), jax.grad(norm, (0, 1))(x, kernel)
        return convolve(x, kernel), *grads

    ours = jax.jit(lambda: answers(r3gan.grouped_conv))()
    theirs = jax.jit(lambda: answers(r3gan.plain_grouped_conv))()
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * np.abs(b).max())


def test_groups_are_one_convolution_elsewhere_and_none_with_groups_on_a_cpu(monkeypatch):
    x, kernel = normal(0, 2, 5, 4, 24), normal(1, 3, 3, 8, 24)

    def program() -> str:
        return jax.jit(lambda x, kernel: r3gan.grouped_conv(x, kernel)).lower(x, kernel).as_text()

    assert program().count('feature_group_count = 1 ') == 3
    monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
    assert program().count('feature_group_count = 3 ') == program().count('convolution(') == 1


def test_at_first_a_block_changes_nothing_and_its_kernels_have_their_variances():
    block = r3gan.Block(expansion=2, group_width=16, num_blocks=16, dtype='float32')
    x = normal(0, 1, 4, 4, 128)
    y, variables = jax.jit(block.init_with_output)(jax.random.key(0), x)
    np.testing.assert_array_equal(y, x)
    gain = math.sqrt(2 / 1.04) / 2  # 16^(-1/4)
    for name, fan_in in (('conv_0', 128), ('conv_1', 9 * 16)):
        kernel = variables['params'][name]['kernel']
        error = 4 / math.sqrt(2 * kernel.size)  # four standard errors
        assert abs(kernel.std() * math.sqrt(fan_in) / gain - 1) < error


def test_a_block_is_its_equation():
    block = r3gan.Block(expansion=2, group_width=4, num_blocks=1, dtype='float32')
    x = normal(0, 2, 3, 3, 4)
    variables = filled(block, x)
    p = variables['params']

    def activated(u, bias):
        u = np.asarray(u) + bias
        return np.where(u > 0, u, 0.2 * u)

    h = activated(x @ p['conv_0']['kernel'][0, 0], p['bias_0'])
    h = activated(r3gan.plain_grouped_conv(h, p['conv_1']['kernel']), p['bias_1'])
    np.testing.assert_allclose(
        block.apply(variables, x), x + h @ p['conv_2']['kernel'][0, 0], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ('shape', 'widths', 'num_blocks', 'first'),
    [
        ((8, 8, 3), (16, 8), (1, 1), 4),
        ((8, 8, 1), (8, 8, 8), (1, 1, 1), 2),
        ((28, 28, 1), (16, 16, 8), (3, 1, 2), 7),
    ],
)
def test_shapes_from_the_smallest_image_on(shape, widths, num_blocks, first):
    fields = {**SMALL, 'widths': widths, 'num_blocks': num_blocks}
    blocks = [width for width, num in zip(widths, num_blocks, strict=True) for _ in range(num)]

    def widths_of_blocks(params: dict) -> list[int]:
        return [params[f'block_{i}']['conv_0']['kernel'].shape[2] for i in range(len(blocks))]

    generator, discriminator = Generator(shape, 5, **fields), Discriminator(**fields)
    z = normal(0, 2, 5)
    made, variables = jax.eval_shape(
        lambda: generator.init_with_output(jax.random.key(0), z, train=True)
    )
    assert made.shape == (2, *shape)
    assert variables['params']['basis']['embedding'].shape == (first, first, widths[0])
    assert widths_of_blocks(variables['params']) == blocks
    logits, variables = jax.eval_shape(
        lambda: discriminator.init_with_output(
            jax.random.key(0), jnp.zeros((2, *shape)), train=True
        )
    )
    assert logits.shape == (2,)
    assert variables['params']['basis']['embedding'].shape == (first, first, widths[0])
    assert widths_of_blocks(variables['params']) == blocks


def test_at_first_kernels_tables_and_bases_have_their_variances():
    fields = {'num_classes': 64, 'widths': (96, 64), 'num_blocks': (1, 1), 'group_width': 64}
    label = jnp.zeros(1, int)
    drawn = [
        jax.jit(functools.partial(network.init, train=True))(jax.random.key(0), *given, label)
        for network, given in (
            (Generator((8, 8, 32), 48, **fields), (jnp.zeros((1, 48)),)),
            (Discriminator(**fields), (jnp.zeros((1, 8, 8, 32)),)),
        )
    ]
    of_generator, of_discriminator = (variables['params'] for variables in drawn)
    for leaf, inverse_variance in (
        (of_generator['label']['embedding'], 64),
        (of_generator['modulation']['kernel'], 2 * 48),
        (of_generator['basis']['embedding'], 1),
        (of_generator['match_1']['kernel'], 96),
        (of_generator['out']['kernel'], 64),
        (of_discriminator['in']['kernel'], 32),
        (of_discriminator['match_0']['kernel'], 64),
        (of_discriminator['basis']['embedding'], 4 * 4),
        (of_discriminator['out']['kernel'], 96),
        (of_discriminator['label']['embedding'], 64 * 96),
    ):
        error = 4 / np.sqrt(2 * leaf.size)  # four standard errors
        assert abs(leaf.std() * np.sqrt(inverse_variance) - 1) < error


def test_a_label_is_seen_by_both():
    z, x = normal(0, 2, 5), normal(1, 2, 8, 8, 3)
    for network, given in (
        (Generator((8, 8, 3), 5, num_classes=3, **SMALL), z),
        (Discriminator(num_classes=3, **SMALL), x),
    ):
        variables = filled(network, given, LABELS, train=True)
        apply = jax.jit(functools.partial(network.apply, variables, given, train=True))
        one, other = apply(LABELS), apply(jnp.array([0, 1]))
        np.testing.assert_allclose(one[0], other[0], rtol=1e-6)
        assert np.abs(one[1] - other[1]).max() > 1e-3


def test_logits_of_a_label_are_a_product_with_its_vector():
    network = Discriminator(num_classes=3, **SMALL)
    x = normal(1, 2, 8, 8, 3)
    variables = filled(network, x, LABELS, train=True)
    table = variables['params']['label']['embedding']
    apply = jax.jit(lambda variables: network.apply(variables, x, jnp.zeros(2, int), train=True))
    logits = []
    for row in (table[0], table[1], table[0] - 2 * table[1]):
        variables['params']['label']['embedding'] = np.broadcast_to(row, table.shape)
        logits.append(apply(variables))
    np.testing.assert_allclose(logits[2], logits[0] - 2 * logits[1], rtol=1e-4, atol=1e-4)


def test_a_gradient_penalty_has_a_gradient_for_every_kernel():
    network = Discriminator(**SMALL)
    x = normal(1, 2, 8, 8, 3)
    variables = filled(network, x, train=True)

    def penalty(variables):
        slope = jax.grad(lambda x: network.apply(variables, x, train=True).sum())(x)
        return (slope**2).sum()

    gradient = jax.jit(jax.grad(penalty))(variables)['params']
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.all(np.isfinite(leaf))
        # A bias only moves which side of the leaky ReLU a number lies on.
        assert ('bias' in jax.tree_util.keystr(path)) == (np.abs(leaf).max() == 0)


@pytest.mark.parametrize(
    ('name', 'fields'),
    [
        ('num_blocks', {'num_blocks': (0, 1)}),
        ('num_blocks', {'num_blocks': (1,)}),
        ('num_blocks', {'num_blocks': (1, 1, 1)}),
        ('expansion', {'expansion': 0}),
        ('group_width', {'group_width': 0}),
        ('group_width', {'group_width': 12}),
        ('widths', {'widths': ()}),
        ('widths', {'widths': (16, 0)}),
        ('widths', {'widths': (16,) * 5, 'num_blocks': (1,) * 5}),
    ],
)
def test_fields_that_make_no_network_are_refused(name, fields):
    with pytest.raises(InputError, match=name):
        Generator((8, 8, 3), 5, **{**SMALL, **fields})
    with pytest.raises(InputError, match=name):
        Discriminator(**{**SMALL, **fields}).init(
            jax.random.key(0), jnp.zeros((1, 8, 8, 3)), train=True
        )
