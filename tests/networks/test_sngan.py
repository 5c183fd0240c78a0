"""SNGAN: both networks equal a twin in PyTorch; singular values; sizes, labels, what is refused."""

import functools

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gen_jax.errors import InputError
from gen_jax.networks.sngan import Discriminator, Generator

Z = jax.random.normal(jax.random.key(0), (5, 6))
X = jax.random.normal(jax.random.key(1), (5, 8, 12, 3))
LABEL = jnp.array([0, 2, 1, 1, 0])
GENERATOR = Generator(shape=(4, 6, 3), latent_channels=6, num_classes=3, channels=8, num_levels=1)
DISCRIMINATOR = Discriminator(num_classes=3, channels=8, num_levels=2, num_blocks=1)


def randomized(network, *arguments):
    """Parameters of which none are zero."""
    init = functools.partial(network.init, train=False)
    shapes = jax.eval_shape(init, jax.random.key(0), *arguments)['params']
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda w: 0.3 * rng.normal(size=w.shape).astype(w.dtype), shapes)


def in_training(network):
    """A compiled `(variables, *arguments) -> (answer, updated batch_stats)`."""
    return jax.jit(lambda v, *a: network.apply(v, *a, train=True, mutable=['batch_stats']))


@pytest.fixture(scope='module')
def discriminator():
    """Its variables after so many calls that the power iterations have converged."""
    params = randomized(DISCRIMINATOR, X, LABEL)
    start = jax.jit(functools.partial(DISCRIMINATOR.init, train=False))
    state = {'batch_stats': start(jax.random.key(0), X, LABEL)['batch_stats']}
    train = in_training(DISCRIMINATOR)
    for _ in range(200):
        state = train({'params': params, **state}, X, LABEL)[1]
    return {'params': params, **state}


# The twins


def to_torch(torch, params) -> dict:
    """`{'block_0/conv_0/kernel': tensor}` with kernels in PyTorch's order."""
    tensors = {}
    for name, w in flax.traverse_util.flatten_dict(params, sep='/').items():
        w = np.asarray(w)
        w = w.transpose(3, 2, 0, 1) if w.ndim == 4 else w.T if name.endswith('kernel') else w
        tensors[name] = torch.tensor(np.ascontiguousarray(w), requires_grad=True)
    return tensors


def conv_of(torch, weights, name, x, normalized=lambda w: w):
    kernel = normalized(weights[f'{name}/kernel'])
    same = kernel.shape[-1] // 2
    return torch.nn.functional.conv2d(x, kernel, weights[f'{name}/bias'], padding=same)


def test_the_generator_equals_its_twin():
    torch = pytest.importorskip('torch')
    params = randomized(GENERATOR, Z, LABEL)
    init = jax.jit(functools.partial(GENERATOR.init, train=False))
    state = {'batch_stats': init(jax.random.key(0), Z, LABEL)['batch_stats']}
    ours, _ = in_training(GENERATOR)({'params': params, **state}, Z, LABEL)
    weights, functional = to_torch(torch, params), torch.nn.functional
    label = torch.tensor(np.array(LABEL))
    conv = functools.partial(conv_of, torch, weights)

    def norm(name, h):
        h = functional.batch_norm(h, None, None, training=True)
        scale, bias = (weights[f'{name}/{leaf}'] for leaf in ('scale', 'bias'))
        if scale.ndim == 2:
            scale, bias = scale[label][..., None, None], bias[label][..., None, None]
        else:
            scale, bias = scale[:, None, None], bias[:, None, None]
        return torch.relu(scale * h + bias)

    def doubled(h):
        return functional.interpolate(h, scale_factor=2)

    h = torch.tensor(np.array(Z)) @ weights['in/kernel'].T + weights['in/bias']
    h = h.reshape(5, 2, 3, 8).permute(0, 3, 1, 2)
    branch = conv('block_0/conv_0', doubled(norm('block_0/norm_0', h)))
    branch = conv('block_0/conv_1', norm('block_0/norm_1', branch))
    h = conv('block_0/shortcut', doubled(h)) + branch
    theirs = torch.tanh(conv('out', norm('norm_out', h))).detach().numpy()
    assert np.std(theirs) > 0.1
    np.testing.assert_allclose(ours, theirs.transpose(0, 2, 3, 1), rtol=1e-4, atol=1e-4)


def twin_logits(torch, weights, x, label):
    """Those of the discriminator, with each weight divided by torch's largest singular value."""
    functional = torch.nn.functional

    def normalized(w):
        return w / torch.linalg.matrix_norm(w.reshape(len(w), -1), 2)

    conv = functools.partial(conv_of, torch, weights, normalized=normalized)
    pool = functools.partial(functional.avg_pool2d, kernel_size=2)
    branch = conv('block_0/conv_1', torch.relu(conv('block_0/conv_0', x)))
    h = conv('block_0/shortcut', pool(x)) + pool(branch)
    branch = conv('block_1/conv_1', torch.relu(conv('block_1/conv_0', torch.relu(h))))
    h = pool(conv('block_1/shortcut', h) + branch)
    h = h + conv('block_2/conv_1', torch.relu(conv('block_2/conv_0', torch.relu(h))))
    features = torch.relu(h).sum((2, 3))
    logits = features @ normalized(weights['out/kernel']).T + weights['out/bias']
    return logits[:, 0] + (normalized(weights['label/embedding'])[label] * features).sum(1)


def test_the_discriminator_equals_its_twin_and_so_do_its_gradients(discriminator):
    torch = pytest.importorskip('torch')

    def sine(params, x):
        logits = DISCRIMINATOR.apply({**discriminator, 'params': params}, x, LABEL, train=False)
        return jnp.sin(logits).sum(), logits

    params = discriminator['params']
    gradients, ours = jax.jit(jax.grad(sine, (0, 1), has_aux=True))(params, X)
    weights = to_torch(torch, params)
    x = torch.tensor(np.array(X.transpose(0, 3, 1, 2)), requires_grad=True)
    theirs = twin_logits(torch, weights, x, torch.tensor(np.array(LABEL)))
    theirs.sin().sum().backward()
    np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(
        gradients[1], x.grad.numpy().transpose(0, 2, 3, 1), rtol=1e-3, atol=1e-4
    )
    for name, gradient in to_torch(torch, gradients[0]).items():
        wanted = weights[name].grad.numpy()
        np.testing.assert_allclose(
            gradient.detach().numpy(), wanted, rtol=1e-2, atol=1e-3 * np.abs(wanted).max()
        )


# Singular values


def test_each_sigma_converges_to_the_largest_singular_value(discriminator):
    weights = flax.traverse_util.flatten_dict(discriminator['params'], sep='/')
    found = flax.traverse_util.flatten_dict(discriminator['batch_stats'])
    sigmas = {'/'.join((*path[:-2], path[-1])): value for path, value in found.items()}
    matrices = [name for name, w in weights.items() if w.ndim > 1]
    assert len(matrices) == 3 + 3 + 2 + 2  # of two blocks that halve, one that does not, the logit
    for name in matrices:
        w = weights[name].reshape(-1, weights[name].shape[-1])
        np.testing.assert_allclose(
            sigmas[f'{name}/sigma'], np.linalg.svd(w, compute_uv=False)[0], rtol=1e-3
        )


def test_power_iterations_go_on_in_training_only_and_where_they_are_kept(discriminator):
    before = jax.tree.map(lambda u: u + 0.1, discriminator['batch_stats'])
    variables = {**discriminator, 'batch_stats': before}
    answer, after = in_training(DISCRIMINATOR)(variables, X, LABEL)
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        assert np.abs(old - new).max() > 1e-3

    @jax.jit
    def others(variables):
        apply = functools.partial(DISCRIMINATOR.apply, variables, X, LABEL)
        return apply(train=False, mutable=['batch_stats'])[1], apply(train=True)

    same, unkept = others(variables)
    jax.tree.map(np.testing.assert_array_equal, same['batch_stats'], before)
    np.testing.assert_allclose(unkept, answer, rtol=1e-4, atol=1e-4)


def test_without_them_there_is_no_state_and_a_layer_is_what_its_kernel_says():
    network = Discriminator(channels=8, num_levels=1, num_blocks=0, spectral=False)
    variables = network.init(jax.random.key(0), X, train=True)
    assert set(variables) == {'params'}
    doubled = {**variables['params'], 'out': {**variables['params']['out']}}
    doubled['out']['kernel'] = 2 * doubled['out']['kernel']
    once, twice = (
        network.apply({'params': params}, X, train=True)
        for params in (variables['params'], doubled)
    )
    np.testing.assert_allclose(twice, 2 * once, rtol=1e-5)


# Sizes


@pytest.mark.parametrize(
    ('shape', 'num_levels', 'lowest'),
    [((32, 32, 3), 3, 4), ((28, 28, 1), 2, 7), ((8, 8, 1), 1, 4)],
)
def test_images_double_from_the_lowest_map_and_halve_to_it(shape, num_levels, lowest):
    network = Generator(shape=shape, latent_channels=6, channels=4, num_levels=num_levels)
    x, variables = jax.eval_shape(
        lambda z: network.init_with_output(jax.random.key(0), z, train=False), Z
    )
    assert x.shape == (5, *shape)
    assert variables['params']['in']['kernel'].shape == (6, lowest * lowest * 4)
    network = Discriminator(channels=4, num_levels=num_levels)
    logits, variables = jax.eval_shape(
        lambda x: network.init_with_output(jax.random.key(0), x, train=False), x
    )
    assert logits.shape == (5,)
    assert sum(name.startswith('block_') for name in variables['params']) == num_levels + 2


def test_the_networks_for_cifar_have_as_many_parameters_as_the_layers_say():
    def count(network, *arguments) -> int:
        init = jax.eval_shape(lambda: network.init(jax.random.key(0), *arguments, train=False))
        return sum(leaf.size for leaf in jax.tree.leaves(init['params']))

    c = 256
    up = 2 * (9 * c * c + c) + c * c + c + 2 * 2 * c
    wanted = 128 * 16 * c + 16 * c + 3 * up + 2 * c + 9 * c * 3 + 3
    generator = Generator(shape=(32, 32, 3), latent_channels=128)
    assert count(generator, jnp.ones((1, 128))) == wanted == 4_276_739
    c = 128
    first = 9 * 3 * c + c + 9 * c * c + c + 3 * c + c
    flat = 2 * (9 * c * c + c)
    wanted = first + flat + c * c + c + 2 * flat + c + 1
    assert count(Discriminator(), jnp.ones((1, 32, 32, 3))) == wanted == 1_053_825


# What makes no network


@pytest.mark.parametrize(
    ('network', 'fields', 'message'),
    [
        (Generator, {'shape': (28, 28, 1)}, r'^num_levels: 3 .*divide by 8, and images are 28'),
        (Generator, {'shape': (2,)}, r'^name: this network is for images'),
        (Generator, {'shape': (8, 8, 1), 'channels': 0}, r'^channels: 0 must be at least 1'),
        (Discriminator, {'num_levels': 0}, r'^num_levels: 0 must be at least 1'),
        (Discriminator, {'num_blocks': -1}, r'^num_blocks: -1 must be at least 0'),
    ],
)
def test_fields_that_make_no_network_are_named(network, fields, message):
    fixed = {'latent_channels': 6} if network is Generator else {}
    with pytest.raises(InputError, match=message):
        network(**fixed, **fields)


def test_images_that_the_discriminator_cannot_halve_are_refused():
    with pytest.raises(InputError, match=r'^num_levels: 3 .* divide by 8, and images are 8 x 12'):
        Discriminator(num_levels=3).init(jax.random.key(0), X, train=False)
