"""StyleGAN2's discriminator: deviations of groups, stages, labels, second gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gen_jax.errors import InputError
from gen_jax.networks import stylegan2_discriminator
from gen_jax.networks.convolution import plain_conv
from gen_jax.networks.equalized import leaky
from gen_jax.networks.resampling import filtered_downsample, filtered_downsample_conv
from gen_jax.networks.stylegan2_discriminator import Discriminator, group_deviation

SMALL = {'widths': (6, 4), 'num_mapping_layers': 1, 'mbstd_group': 2}
X = jax.random.normal(jax.random.key(0), (4, 8, 8, 3))
LABELS = jnp.array([0, 2, 1, 0])


def filled(module, *arguments, **options):
    """Variables of which none are zero."""
    init = jax.eval_shape(lambda: module.init(jax.random.key(0), *arguments, **options))
    generator = np.random.default_rng(1)
    return jax.tree.map(lambda v: generator.normal(size=v.shape).astype(np.float32), init)


@pytest.mark.parametrize(
    ('batch', 'group', 'size'), [(8, 4, 4), (6, 4, 3), (3, 32, 3), (7, 4, 1), (4, 1, 1)]
)
def test_deviations_are_those_within_groups(batch, group, size):
    x = np.random.default_rng(0).normal(size=(batch, 3, 2, 5)).astype(np.float32)
    x *= 1 + np.arange(batch)[:, None, None, None]
    num = batch // size
    wanted = [x[i % num :: num].std(0).mean() for i in range(batch)]
    ours = jax.jit(functools.partial(group_deviation, group=group))(x)
    np.testing.assert_allclose(ours, wanted, rtol=1e-4, atol=2e-4)


def test_an_example_is_seen_beside_its_group_only():
    network = Discriminator(**SMALL)
    variables = filled(network, X, train=True)
    apply = jax.jit(functools.partial(network.apply, variables, train=True))
    logits, other = apply(X), apply(X.at[0].set(5 * X[1]))
    np.testing.assert_allclose(other[1::2], logits[1::2], rtol=1e-5)
    assert np.abs(other[2] - logits[2]) > 1e-3


@pytest.mark.parametrize('architecture', stylegan2_discriminator.ARCHITECTURES)
def test_a_stage_is_its_equation(architecture):
    stage = stylegan2_discriminator.Stage(5, architecture, 'float32')
    h = X[..., :2]
    variables = filled(stage, h)
    p = variables['params']
    assert ('skip' in p) == (architecture == 'residual')
    wanted = leaky(plain_conv(h, p['conv_0']['kernel']) / np.sqrt(18) + p['conv_0']['bias'])
    wanted = filtered_downsample_conv(wanted, p['conv_1']['kernel']) / np.sqrt(18)
    wanted = leaky(wanted + p['conv_1']['bias'])
    if architecture == 'residual':
        skip = plain_conv(filtered_downsample(h), p['skip']['kernel']) / np.sqrt(2)
        wanted = (wanted + skip) / np.sqrt(2)
    assert wanted.shape == (4, 4, 4, 5)
    np.testing.assert_allclose(jax.jit(stage.apply)(variables, h), wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ('shape', 'widths'), [((8, 8, 1), (4, 4, 4)), ((28, 28, 1), (6, 4, 4)), ((32, 32, 3), (4,) * 4)]
)
def test_one_logit_for_an_image(shape, widths):
    network = Discriminator(**{**SMALL, 'widths': widths})
    logits, _ = jax.eval_shape(
        lambda: network.init_with_output(jax.random.key(0), jnp.zeros((3, *shape)), train=True)
    )
    assert logits.shape == (3,) and logits.dtype == jnp.float32


def test_at_first_logits_have_a_mean_square_of_about_1():
    network = Discriminator(num_classes=3, widths=(64, 64), num_mapping_layers=2, mbstd_group=1)
    x, label = jax.random.normal(jax.random.key(0), (64, 8, 8, 3)), jnp.arange(64) % 3
    init = jax.jit(functools.partial(network.init_with_output, train=True))
    logits, _ = init(jax.random.key(1), x, label)
    assert 0.3 < np.sqrt((logits**2).mean()) < 3


def test_a_logit_is_a_product_with_what_is_mapped_from_its_label():
    network = Discriminator(num_classes=3, **SMALL)
    variables = filled(network, X, LABELS, train=True)
    apply = jax.jit(lambda variables, label: network.apply(variables, X, label, train=True))
    one, other = apply(variables, LABELS), apply(variables, LABELS.at[1].set(1))
    np.testing.assert_allclose(np.delete(other, 1), np.delete(one, 1), rtol=1e-5)
    assert np.abs(other[1] - one[1]) > 1e-3
    # It is linear in the last layer.
    doubled = {
        **variables['params'],
        'out': jax.tree.map(lambda v: 2 * v, variables['params']['out']),
    }
    np.testing.assert_allclose(apply({'params': doubled}, LABELS), 2 * one, rtol=1e-4)


@pytest.mark.parametrize('architecture', stylegan2_discriminator.ARCHITECTURES)
def test_a_gradient_penalty_has_a_gradient_for_every_kernel(architecture):
    network = Discriminator(architecture=architecture, **SMALL)
    variables = filled(network, X, train=True)

    def penalty(variables):
        slope = jax.grad(lambda x: network.apply(variables, x, train=True).sum())(X)
        return (slope**2).sum()

    gradient = jax.jit(jax.grad(penalty))(variables)['params']
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.all(np.isfinite(leaf))
        if 'kernel' in jax.tree_util.keystr(path):
            assert np.abs(leaf).max() > 0


@pytest.mark.parametrize(
    ('name', 'fields'),
    [
        ('widths', {'widths': ()}),
        ('widths', {'widths': (4, 0)}),
        ('widths', {'widths': (4, 4, 4, 4, 4)}),
        ('architecture', {'architecture': 'skip'}),
        ('mbstd_group', {'mbstd_group': 0}),
        ('num_mapping_layers', {'num_mapping_layers': 0}),
    ],
)
def test_fields_that_make_no_network_are_refused(name, fields):
    with pytest.raises(InputError, match=name):
        Discriminator(**{**SMALL, **fields}).init(jax.random.key(0), X, train=True)
