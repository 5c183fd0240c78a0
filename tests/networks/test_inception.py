"""Inception-v3: the published size and names, and equality with the network written out plainly."""

import functools
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from gen_jax.errors import InputError
from gen_jax.networks.inception import WIDTHS, Inception, average_pool, max_pool

REAL = os.environ.get('GEN_JAX_DATA')


@functools.cache
def images(batch: int = 2):
    """Float32 `[batch, 299, 299, 3]` in [-1, 1], smooth enough to reach the last layers."""
    coarse = np.random.default_rng(0).uniform(-1, 1, (batch, 30, 30, 3))
    return jnp.asarray(np.repeat(np.repeat(coarse, 10, 1), 10, 2)[:, :299, :299], jnp.float32)


def shapes_of(network: Inception) -> dict:
    x = jax.ShapeDtypeStruct((1, 299, 299, 3), jnp.float32)
    return jax.eval_shape(network.init, jax.random.key(0), x)['params']


@functools.cache
def random_params() -> dict:
    """Of the whole network; biases are not zero, so that pools and biases cannot change places."""
    generator = np.random.default_rng(1)

    def draw(shape: tuple[int, ...]):
        scale = 0.3 if len(shape) == 1 else np.sqrt(2 / np.prod(shape[:-1]))
        return (scale * generator.standard_normal(shape, np.float32)).astype(np.float32)

    return jax.tree.map(lambda leaf: draw(leaf.shape), shapes_of(Inception(num_classes=20)))


def window(x, initial, function, stride: int, padding: str):
    return lax.reduce_window(x, initial, function, (1, 3, 3, 1), (1, stride, stride, 1), padding)


def plain_average(x, variant: str):
    pixels = jnp.ones((1, *x.shape[1:3], 1))
    count = window(pixels, 0.0, lax.add, 1, 'SAME') if variant == 'fid' else 9
    return window(x, 0.0, lax.add, 1, 'SAME') / count


def plain_network(params: dict, x, variant: str, widest: int) -> tuple[dict, jax.Array | None]:
    """Features by width up to the widest, and logits, layer by layer as published."""

    def conv(x, name, stride=1, padding='SAME'):
        kernel, bias = params[name]['kernel'], params[name]['bias']
        numbers = ('NHWC', 'HWIO', 'NHWC')
        y = lax.conv_general_dilated(x, kernel, (stride,) * 2, padding, dimension_numbers=numbers)
        return jnp.maximum(y + bias, 0)

    def chain(x, first, count):
        for i in range(count):
            x = conv(x, first + (f'_{i}' if i else ''))
        return x

    def reduced(x):
        return window(x, -jnp.inf, lax.max, 2, 'VALID')

    def block(x, name, towers, pool):
        branches = [conv(x, f'{name}_conv')]
        for tower, count in zip(('_tower', '_tower_1'), towers, strict=True):
            branches.append(chain(x, f'{name}{tower}_conv', count))
        return jnp.concatenate([*branches, conv(pool(x), f'{name}_tower_2_conv')], -1)

    def last_block(x, name, pool):
        branches = [conv(x, f'{name}_conv')]
        for tower, count in ((f'{name}_tower', 1), (f'{name}_tower_1', 2)):
            h = chain(x, f'{tower}_conv', count)
            branches += [conv(h, f'{tower}_mixed_conv'), conv(h, f'{tower}_mixed_conv_1')]
        return jnp.concatenate([*branches, conv(pool(x), f'{name}_tower_2_conv')], -1)

    average = functools.partial(plain_average, variant=variant)
    out = {}
    h = conv(conv(conv(x, 'conv', 2, 'VALID'), 'conv_1', 1, 'VALID'), 'conv_2')
    h = reduced(h)
    out[64] = h.mean((1, 2))
    h = reduced(conv(conv(h, 'conv_3'), 'conv_4', 1, 'VALID'))
    out[192] = h.mean((1, 2))
    for name in ('mixed', 'mixed_1', 'mixed_2'):
        h = block(h, name, (2, 3), average)
    double = conv(chain(h, 'mixed_3_tower_conv', 2), 'mixed_3_tower_conv_2', 2, 'VALID')
    h = jnp.concatenate([conv(h, 'mixed_3_conv', 2, 'VALID'), double, reduced(h)], -1)
    for name in ('mixed_4', 'mixed_5', 'mixed_6', 'mixed_7'):
        h = block(h, name, (3, 5), average)
    out[768] = h.mean((1, 2))
    if widest == 768:
        return out, None
    three = conv(conv(h, 'mixed_8_tower_conv'), 'mixed_8_tower_conv_1', 2, 'VALID')
    seven = conv(chain(h, 'mixed_8_tower_1_conv', 3), 'mixed_8_tower_1_conv_3', 2, 'VALID')
    h = jnp.concatenate([three, seven, reduced(h)], -1)
    h = last_block(h, 'mixed_9', average)
    maximum = functools.partial(
        window, initial=-jnp.inf, function=lax.max, stride=1, padding='SAME'
    )
    h = last_block(h, 'mixed_10', maximum if variant == 'fid' else average)
    out[2048] = h.mean((1, 2))
    return out, out[2048] @ params['softmax']['kernel'] + params['softmax']['bias']


@functools.cache
def plain_outputs(variant: str) -> tuple[dict, jax.Array]:
    return jax.jit(lambda p, x: plain_network(p, x, variant, 2048))(random_params(), images())


def assert_close(ours, theirs):
    """Within 1e-4 of the largest feature."""
    assert ours.shape == theirs.shape and np.std(theirs) > 0
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * np.abs(theirs).max())


@pytest.mark.parametrize('width', WIDTHS)
@pytest.mark.parametrize('variant', ['fid', 'torchvision'])
def test_equals_the_plain_network(variant, width):
    network = Inception(variant, width, num_classes=20)
    params = {name: random_params()[name] for name in shapes_of(network)}
    features, logits = jax.jit(lambda p, x: network.apply({'params': p}, x))(params, images())
    expected, expected_logits = plain_outputs(variant)
    assert features.shape == (2, width) and features.dtype == jnp.float32
    assert_close(features, expected[width])
    if width == 2048:
        assert_close(logits, expected_logits)
    else:
        assert logits is None


def test_variants_differ_from_the_first_average_pool_on():
    (fid, _), (other, _) = plain_outputs('fid'), plain_outputs('torchvision')
    np.testing.assert_array_equal(fid[192], other[192])
    for width in (768, 2048):
        assert np.abs(fid[width] - other[width]).max() > 1e-2 * np.abs(fid[width]).max()


@pytest.mark.skipif(not REAL, reason='GEN_JAX_DATA names no folder with inception in it')
def test_equals_the_plain_network_with_the_published_weights():
    path = Path(REAL) / 'inception' / 'inception2015_to_mixed8_f16.npz'
    network, names = Inception(width=768), {'kernel': 'w', 'bias': 'b'}
    with np.load(path) as file:
        params = {
            layer: {leaf: file[f'{layer}/{names[leaf]}'].astype(np.float32) for leaf in leaves}
            for layer, leaves in shapes_of(network).items()
        }
    features, _ = jax.jit(lambda p, x: network.apply({'params': p}, x))(params, images())
    expected, _ = jax.jit(lambda p, x: plain_network(p, x, 'fid', 768))(params, images())
    assert_close(features, expected[768])


def test_has_the_published_size():
    shapes = shapes_of(Inception(num_classes=1000))
    # Keras's InceptionV3: as many trainable parameters, its batch norms having shifts alone.
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 23_817_352
    assert len(shapes) == 94 + 1
    assert shapes['mixed_10_tower_1_mixed_conv_1']['kernel'].shape == (3, 1, 384, 384)
    assert 'softmax' not in shapes_of(Inception())


@pytest.mark.parametrize(('variant', 'saved'), [('fid', 27), ('torchvision', 28)])
def test_first_convolutions_of_a_block_are_one_and_no_window_is_reduced(variant, saved):
    network, x = Inception(variant), jax.ShapeDtypeStruct((1, 299, 299, 3), jnp.float32)
    params = shapes_of(network)
    program = jax.jit(lambda p, x: network.apply({'params': p}, x)).lower(params, x).as_text()
    assert program.count('stablehlo.convolution') == 94 - saved
    assert 'reduce_window' not in program


@pytest.mark.parametrize('size', [(7, 7), (8, 5)])
def test_pools_equal_window_reductions(size):
    x = jax.random.normal(jax.random.key(0), (2, *size, 3)) - 1  # -1: zeros must not be maxima
    for stride, padding in ((2, 'VALID'), (1, 'SAME')):
        expected = window(x, -jnp.inf, lax.max, stride, padding)
        np.testing.assert_array_equal(max_pool(x, stride, padding), expected)
    for variant in ('fid', 'torchvision'):
        ours = average_pool(x, count_padding=variant == 'torchvision')
        np.testing.assert_allclose(ours, plain_average(x, variant), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('fields', [{'variant': 'v3'}, {'width': 1024}])
def test_unknown_fields_are_refused(fields):
    with pytest.raises(InputError, match=f'^{next(iter(fields))}: no .*use one of'):
        Inception(**fields)
