"""DCGAN: both networks equal a twin in PyTorch; sizes, labels, and what makes no network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gen_jax.errors import InputError
from gen_jax.networks.dcgan import Discriminator, Generator

FIELDS = {'channels': 8, 'num_levels': 2}
Z = jax.random.normal(jax.random.key(0), (5, 6))
X = jax.random.normal(jax.random.key(1), (5, 8, 12, 3))
LABEL = jnp.array([0, 2, 1, 1, 0])


def randomized(network, *arguments):
    """Variables of which no parameter is zero; running statistics as PyTorch's begin."""
    shapes = jax.eval_shape(lambda: network.init(jax.random.key(0), *arguments, train=False))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda w: 0.3 * rng.normal(size=w.shape), shapes['params'])
    start = {'mean': np.zeros, 'variance': np.ones}
    statistics = jax.tree_util.tree_map_with_path(
        lambda path, s: start[path[-1].key](s.shape), shapes['batch_stats']
    )
    return {'params': params, 'batch_stats': statistics}


def in_training(network, variables, *arguments):
    """What it answers, and its running statistics after that."""
    apply = jax.jit(lambda v, *a: network.apply(v, *a, train=True, mutable=['batch_stats']))
    out, updated = apply(variables, *arguments)
    return np.asarray(out), updated['batch_stats']


# The twins


def copy(torch, layer, params):
    """Into a layer of PyTorch the parameters of a convolution, a norm or a linear layer."""
    if 'scale' in params:
        values = {'weight': params['scale'], 'bias': params['bias']}
    else:
        kernel = params['kernel']
        order = (2, 3, 0, 1) if isinstance(layer, torch.nn.ConvTranspose2d) else (3, 2, 0, 1)
        values = {'weight': kernel.transpose(order) if kernel.ndim == 4 else kernel.T}
        values |= {'bias': params['bias']} if 'bias' in params else {}
    for name, value in values.items():
        getattr(layer, name).data = torch.tensor(np.ascontiguousarray(value), dtype=torch.float32)
    return layer


def assert_running_statistics_equal(norm, statistics):
    np.testing.assert_allclose(norm.running_mean, statistics['mean'], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(norm.running_var, statistics['variance'], rtol=1e-4, atol=1e-4)


def test_the_generator_equals_its_twin():
    torch = pytest.importorskip('torch')
    nn = torch.nn
    network = Generator(shape=X.shape[1:], latent_channels=6, **FIELDS)
    variables = randomized(network, Z)
    ours, statistics = in_training(network, variables, Z)
    params = variables['params']
    first = nn.ConvTranspose2d(6, 16, (2, 3), bias=False)
    kernel = params['in']['kernel'].reshape(6, 2, 3, 16).transpose(0, 3, 1, 2)
    first.weight.data = torch.tensor(np.ascontiguousarray(kernel), dtype=torch.float32)
    norms = [
        copy(torch, nn.BatchNorm2d(16), params['norm_in']),
        copy(torch, nn.BatchNorm2d(8), params['block_0']['norm']),
    ]
    up = nn.ConvTranspose2d(16, 8, 4, 2, 1, bias=False)
    twin = nn.Sequential(
        *(first, norms[0], nn.ReLU()),
        *(copy(torch, up, params['block_0']['conv']), norms[1], nn.ReLU()),
        *(copy(torch, nn.ConvTranspose2d(8, 3, 4, 2, 1), params['out']), nn.Tanh()),
    )
    with torch.no_grad():
        theirs = twin(torch.tensor(np.array(Z))[:, :, None, None]).numpy()
    assert np.std(theirs) > 0.1
    np.testing.assert_allclose(ours, theirs.transpose(0, 2, 3, 1), rtol=1e-4, atol=1e-4)
    assert_running_statistics_equal(norms[0], statistics['norm_in'])
    assert_running_statistics_equal(norms[1], statistics['block_0']['norm'])


def test_the_discriminator_equals_its_twin():
    torch = pytest.importorskip('torch')
    nn = torch.nn
    network = Discriminator(**FIELDS)
    variables = randomized(network, X)
    ours, statistics = in_training(network, variables, X)
    params = variables['params']
    norm = copy(torch, nn.BatchNorm2d(16), params['block_1']['norm'])
    down = nn.Conv2d(8, 16, 4, 2, 1, bias=False)
    last = nn.Conv2d(16, 1, (2, 3))
    kernel = params['out']['kernel'].reshape(2, 3, 16, 1).transpose(3, 2, 0, 1)
    last.weight.data = torch.tensor(np.ascontiguousarray(kernel), dtype=torch.float32)
    last.bias.data = torch.tensor(params['out']['bias'], dtype=torch.float32)
    twin = nn.Sequential(
        *(copy(torch, nn.Conv2d(3, 8, 4, 2, 1), params['block_0']['conv']), nn.LeakyReLU(0.2)),
        *(copy(torch, down, params['block_1']['conv']), norm, nn.LeakyReLU(0.2), last),
    )
    with torch.no_grad():
        theirs = twin(torch.tensor(np.array(X.transpose(0, 3, 1, 2)))).numpy()[:, 0, 0, 0]
    assert np.std(theirs) > 0.1
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
    assert_running_statistics_equal(norm, statistics['block_1']['norm'])


# Sizes


@pytest.mark.parametrize(
    ('shape', 'num_levels', 'lowest'),
    [((32, 32, 3), 3, 4), ((28, 28, 1), 2, 7), ((8, 8, 1), 1, 4), ((8, 8, 1), 2, 2)],
)
def test_images_double_from_the_lowest_map_and_halve_to_it(shape, num_levels, lowest):
    fields = {'channels': 4, 'num_levels': num_levels}
    generator = Generator(shape=shape, latent_channels=6, **fields)
    x, variables = jax.eval_shape(
        lambda z: generator.init_with_output(jax.random.key(0), z, train=False), Z
    )
    assert x.shape == (5, *shape)
    widest = 4 * 2 ** (num_levels - 1)
    assert variables['params']['in']['kernel'].shape == (6, lowest * lowest * widest)
    logits, variables = jax.eval_shape(
        lambda x: Discriminator(**fields).init_with_output(jax.random.key(0), x, train=False), x
    )
    assert logits.shape == (5,)
    assert variables['params']['out']['kernel'].shape == (lowest * lowest * widest, 1)


def test_the_networks_for_cifar_have_as_many_parameters_as_the_layers_say():
    def count(network, *arguments) -> int:
        init = jax.eval_shape(lambda: network.init(jax.random.key(0), *arguments, train=False))
        return sum(leaf.size for leaf in jax.tree.leaves(init['params']))

    generator = Generator(shape=(32, 32, 3), latent_channels=100)
    widths = (256, 128, 64)
    norms, kernels = sum(2 * w for w in widths), 16 * (256 * 128 + 128 * 64 + 64 * 3) + 3
    assert count(generator, jnp.ones((1, 100))) == 100 * 16 * 256 + norms + kernels == 1_068_931
    kernels = 16 * (3 * 64 + 64 * 128 + 128 * 256 + 256) + 64 + 1
    discriminator = count(Discriminator(), jnp.ones((1, 32, 32, 3)))
    assert discriminator == kernels + 2 * (128 + 256) == 663_361


def test_first_kernels_and_scales_are_drawn_as_in_the_paper():
    network = Generator(shape=(16, 16, 3), latent_channels=64, channels=32, num_levels=2)
    init = jax.jit(lambda: network.init(jax.random.key(0), jnp.ones((1, 64)), train=False))
    params = init()['params']
    for module in (params['in'], params['block_0']['conv'], params['out']):
        kernel = module['kernel']
        assert abs(kernel.mean()) < 5 * 0.02 / np.sqrt(kernel.size)
        assert abs(kernel.std() / 0.02 - 1) < 5 / np.sqrt(2 * kernel.size)
    scale = params['norm_in']['scale']
    assert abs(scale.mean() - 1) < 5 * 0.02 / 8 and 0.01 < scale.std() < 0.03


# Labels


def test_a_label_says_the_scales_and_shifts_of_the_generators_norms():
    network = Generator(shape=(8, 8, 3), latent_channels=6, num_classes=3, **FIELDS)
    variables = randomized(network, Z, LABEL)
    told = network.apply(variables, Z, LABEL, train=False)
    plain = Generator(shape=(8, 8, 3), latent_channels=6, **FIELDS)
    params = variables['params']
    assert params['norm_in']['scale'].shape == (3, 16)
    for k in range(3):
        norms = {
            'norm_in': {name: rows[k] for name, rows in params['norm_in'].items()},
            'block_0': {
                **params['block_0'],
                'norm': {name: rows[k] for name, rows in params['block_0']['norm'].items()},
            },
        }
        alone = plain.apply({**variables, 'params': {**params, **norms}}, Z, train=False)
        of_k = np.equal(LABEL, k)
        np.testing.assert_allclose(told[of_k], alone[of_k], rtol=1e-5, atol=1e-5)


def test_the_discriminator_projects_its_features_on_the_label():
    network = Discriminator(num_classes=3, **FIELDS)
    variables = randomized(network, X, LABEL)
    told = network.apply(variables, X, LABEL, train=False)
    params = dict(variables['params'])
    rows, out = params.pop('label')['embedding'], params['out']
    plain = jax.jit(lambda v: Discriminator(**FIELDS).apply(v, X, train=False))
    for k in range(3):
        # A network without labels whose last layer is v + e_k.
        params['out'] = {**out, 'kernel': out['kernel'] + rows[k][:, None]}
        alone = plain({**variables, 'params': params})
        of_k = np.equal(LABEL, k)
        np.testing.assert_allclose(told[of_k], alone[of_k], rtol=1e-4, atol=1e-4)


# What makes no network


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        ({'channels': 0}, r'^channels: 0 must be at least 1'),
        ({'num_levels': 0}, r'^num_levels: 0 must be at least 1'),
        ({'shape': (28, 28, 1)}, r'^num_levels: 3 .* divide by 8, and images are 28 x 28'),
        ({'shape': (2,)}, r'^name: this network is for images, .* \(2,\); use .*gan_mlp'),
    ],
)
def test_fields_that_make_no_network_are_named(fields, message):
    with pytest.raises(InputError, match=message):
        Generator(**{'shape': (32, 32, 3), 'latent_channels': 6, **fields})
    if 'shape' not in fields:
        with pytest.raises(InputError, match=message):
            Discriminator(**fields)


def test_images_that_the_discriminator_cannot_halve_are_refused():
    with pytest.raises(InputError, match=r'^num_levels: 3 .* divide by 8, and images are 8 x 12'):
        Discriminator().init(jax.random.key(0), X, train=False)
