"""Inception features: TensorFlow 1's resize, files of weights in each layout, names and errors."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from gen_jax.errors import InputError
from gen_jax.features.extractor import hash_of
from gen_jax.features.inception import inception, resize, torchvision_name
from gen_jax.networks.inception import Inception
from gen_jax.types import DataSpec

COLOR, GRAY = DataSpec((20, 24, 3)), DataSpec((20, 24, 1))
REAL = os.environ.get('GEN_JAX_DATA')


def pixels(channels: int = 3):
    """Uint8 `[2, 20, 24, channels]`."""
    return np.random.default_rng(0).integers(0, 256, (2, 20, 24, channels), np.uint8)


def resize_in_loops(x, height: int, width: int):
    """Bilinear with source = target * size / target size, one pixel at a time."""
    out = np.zeros((len(x), height, width, x.shape[-1]))
    for i in range(height):
        for j in range(width):
            y, z = i * x.shape[1] / height, j * x.shape[2] / width
            top, left = int(y), int(z)
            bottom, right = min(top + 1, x.shape[1] - 1), min(left + 1, x.shape[2] - 1)
            upper = x[:, top, left] + (z - left) * (x[:, top, right] - x[:, top, left])
            lower = x[:, bottom, left] + (z - left) * (x[:, bottom, right] - x[:, bottom, left])
            out[:, i, j] = upper + (y - top) * (lower - upper)
    return out


@pytest.mark.parametrize('to', [(11, 9), (12, 14), (4, 5), (3, 14), (5, 7)])
def test_resize_equals_loops(to):
    x = np.random.default_rng(0).uniform(0, 255, (2, 5, 7, 3)).astype(np.float32)
    np.testing.assert_allclose(resize(x, *to), resize_in_loops(x, *to), rtol=1e-5, atol=1e-4)


def test_resize_is_neither_of_half_pixels_nor_smoothing():
    x = jnp.array([0.0, 1.0]).reshape(1, 1, 2, 1)
    np.testing.assert_array_equal(resize(x, 1, 4).ravel(), [0, 0.5, 1, 1])
    half = jax.image.resize(x, (1, 1, 4, 1), 'bilinear')
    np.testing.assert_array_equal(half.ravel(), [0, 0.25, 0.75, 1])
    # Shrinking takes single pixels, whatever lies between.
    x = jnp.arange(8.0).at[1].set(99).reshape(1, 8, 1, 1)
    np.testing.assert_array_equal(resize(x, 4, 1).ravel(), [0, 2, 4, 6])


@pytest.fixture(scope='module')
def graph_arrays():
    """Random weights in the graph's layout."""
    x = jax.ShapeDtypeStruct((1, 299, 299, 3), jnp.float32)
    shapes = jax.eval_shape(Inception(width=768).init, jax.random.key(0), x)['params']
    generator, arrays = np.random.default_rng(2), {}
    for layer, leaves in shapes.items():
        kernel = generator.standard_normal(leaves['kernel'].shape, np.float32)
        kernel *= np.sqrt(2 / np.prod(kernel.shape[:-1]))
        arrays[f'{layer}/w'] = kernel.astype(np.float16)
        arrays[f'{layer}/b'] = generator.standard_normal(kernel.shape[-1], np.float32)
    return arrays


@pytest.fixture(scope='module')
def graph_file(graph_arrays, tmp_path_factory):
    path = tmp_path_factory.mktemp('inception') / 'graph.npz'
    np.savez(path, **graph_arrays)
    yield str(path)
    path.unlink()


def plain_features(arrays: dict, x, width: int):
    """The network on x `[B, 299, 299, 3]` with weights in the graph's layout."""
    layers = {name.split('/')[0] for name in arrays}
    params = {
        layer: {leaf: arrays[f'{layer}/{leaf[0]}'].astype(np.float32) for leaf in ('w', 'b')}
        for layer in layers
    }
    params = {layer: {'kernel': p['w'], 'bias': p['b']} for layer, p in params.items()}
    network = Inception(width=width)
    return jax.jit(lambda p, x: network.apply({'params': p}, x)[0])(params, jnp.float32(x))


def assert_close(ours, theirs):
    """Within 1e-4 of the largest feature, all of which must not be alike."""
    assert ours.shape == theirs.shape and np.std(theirs) > 0
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * np.abs(theirs).max())


@pytest.mark.parametrize(('spec', 'width'), [(COLOR, None), (GRAY, 64)])
def test_graph_layout(graph_arrays, graph_file, spec, width):
    extractor = inception(spec, weights=graph_file, width=width)
    name = f'@{width or 768}'
    assert (extractor.frechet, extractor.suffix) == (f'FID{name}', name)
    assert extractor.hash == hash_of(graph_arrays)
    images = pixels(spec.shape[-1])
    features, probabilities = jax.jit(extractor.embed)(extractor.weights, images)
    assert features.dtype == jnp.float32 and probabilities is None
    x = (resize_in_loops(images.astype(float), 299, 299) - 128) / 128
    x = np.repeat(x, 3 // x.shape[-1], -1)
    assert_close(features, plain_features(graph_arrays, x, width or 768))


@pytest.mark.skipif(not REAL, reason='GEN_JAX_DATA names no folder with inception in it')
def test_published_weights():
    path = str(Path(REAL) / 'inception' / 'inception2015_to_mixed8_f16.npz')
    extractor = inception(COLOR, weights=path)
    assert (extractor.frechet, extractor.hash) == ('FID@768', 'f3ac997e0a2ee9de')
    features, _ = jax.jit(extractor.embed)(extractor.weights, pixels())
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files if not name.startswith('mixed_8')}
    x = (resize_in_loops(pixels().astype(float), 299, 299) - 128) / 128
    assert_close(features, plain_features(arrays, x, 768))


def test_hash_is_of_the_weights_and_not_of_their_file(graph_arrays, graph_file, tmp_path):
    def digest(arrays: dict) -> str:
        save_file(arrays, tmp_path / 'w.safetensors')
        return inception(COLOR, weights=str(tmp_path / 'w.safetensors'), width=64).hash

    assert digest(graph_arrays) == inception(COLOR, weights=graph_file).hash
    assert digest(graph_arrays | {'step': np.zeros(1)}) == hash_of(graph_arrays)
    changed = graph_arrays['mixed_7_conv/b'].copy()
    changed[5] += 1e-3
    assert digest(graph_arrays | {'mixed_7_conv/b': changed}) != hash_of(graph_arrays)
    (tmp_path / 'w.safetensors').unlink()


def test_hash_of_sees_names_types_shapes_and_values():
    a = np.arange(4, dtype=np.float32)
    others = [{'b': a}, {'a': a.astype(np.int32)}, {'a': a.reshape(2, 2)}, {'a': a + 1}]
    hashes = [hash_of(arrays) for arrays in ({'a': a}, *others, {'a': a, 'b': a})]
    assert len(set(hashes)) == 6 and all(len(h) == 16 for h in hashes)
    assert hash_of({'a': a, 'b': a}) == hash_of({'b': a, 'a': a})


def test_torchvision_names():
    assert torchvision_name('conv_4') == 'Conv2d_4a_3x3'
    assert torchvision_name('mixed_conv') == 'Mixed_5b.branch1x1'
    assert torchvision_name('mixed_tower_conv_1') == 'Mixed_5b.branch5x5_2'
    assert torchvision_name('mixed_3_conv') == 'Mixed_6a.branch3x3'
    assert torchvision_name('mixed_7_tower_1_conv_4') == 'Mixed_6e.branch7x7dbl_5'
    assert torchvision_name('mixed_7_tower_2_conv') == 'Mixed_6e.branch_pool'
    assert torchvision_name('mixed_8_tower_1_conv') == 'Mixed_7a.branch7x7x3_1'
    assert torchvision_name('mixed_10_tower_mixed_conv') == 'Mixed_7c.branch3x3_2a'
    assert torchvision_name('mixed_10_tower_1_mixed_conv_1') == 'Mixed_7c.branch3x3dbl_3b'


def refused(*arguments, **settings) -> str:
    """The message of the one line that these arguments are refused with."""
    with pytest.raises(InputError) as error:
        inception(*arguments, **settings)
    message = str(error.value)
    assert '\n' not in message
    return message


def test_no_file_or_no_images(tmp_path):
    assert refused(COLOR) == (
        'weights: none given; give the path of a .npz or .safetensors file of Inception-v3'
    )
    absent = str(tmp_path / 'w.npz')
    assert refused(COLOR, weights=absent) == (
        f'weights: no file {absent}; give a .npz or .safetensors file'
    )
    for shape in ((2,), (8, 8), (8, 8, 4)):
        assert refused(DataSpec(shape), weights=absent) == (
            f'spec: examples of shape {shape} are no images; '
            'Inception takes [height, width, 1 or 3]'
        )


@pytest.mark.parametrize('content', [b'', b'not weights at all', b'PK\x03\x04 cut off'])
def test_a_file_of_something_else(tmp_path, content):
    path = tmp_path / 'w.safetensors'
    path.write_bytes(content)
    assert refused(COLOR, weights=str(path)).startswith(f'weights: {path} cannot be read: ')
    path = path.rename(tmp_path / 'w.npz')
    no_npz = f'weights: {path} is no .npz; write one with numpy.savez'
    assert refused(COLOR, weights=str(path)) == no_npz
    path = path.rename(tmp_path / 'w.csv')
    assert refused(COLOR, weights=str(path)) == (
        f'weights: {path} must be a .npz or .safetensors file'
    )


def test_objects_in_an_npz_are_not_loaded(tmp_path):
    np.savez(tmp_path / 'w.npz', np.array([{}], object))
    message = refused(COLOR, weights=str(tmp_path / 'w.npz'))
    assert message.startswith(f'weights: {tmp_path / "w.npz"} cannot be read: ')


def test_a_pickle_is_refused_with_the_line_that_converts_it(tmp_path):
    torch = pytest.importorskip('torch')
    path = tmp_path / 'w.pth'
    torch.save({'conv/w': torch.ones(2, 3)}, path)
    message = refused(COLOR, weights=str(path))
    assert message.startswith(
        f'weights: {path} is a pickle; convert it once, with torch: python -c'
    )
    code = message.split('"')[1]
    subprocess.run([sys.executable, '-c', code], check=True)
    message = refused(COLOR, weights=str(tmp_path / 'w.safetensors'))
    assert "'conv/w'" in message and '(2, 3)' in message


FIRST = np.zeros((32, 3, 3, 3), np.float32)


@pytest.mark.parametrize(
    ('arrays', 'settings', 'message'),
    [
        (
            {'x': FIRST},
            {},
            "weights: {} holds neither 'conv/w' nor 'Conv2d_1a_3x3.conv.weight'; name the entries "
            "as pytorch-fid's file does",
        ),
        (
            {'conv/w': np.zeros((3, 3, 3, 32))},
            {},
            "weights: {} has no entry 'conv/b'; give the complete network",
        ),
        (
            {'conv/w': FIRST},
            {},
            "weights: 'conv/w' in {} has shape (32, 3, 3, 3); it must be (3, 3, 3, 32)",
        ),
        (
            {'conv/w': FIRST},
            {'width': 2048},
            'width: {} gives no 2048 features; use one of 64, 192, 768',
        ),
        (
            {'Conv2d_1a_3x3.conv.weight': FIRST, 'fc.weight': np.zeros((1008, 1))},
            {'width': 100},
            'width: {} gives no 100 features; use one of 64, 192, 768, 2048',
        ),
        (
            {'Conv2d_1a_3x3.conv.weight': FIRST},
            {},
            "weights: {} has no entry 'fc.weight'; give the complete network",
        ),
        (
            {'Conv2d_1a_3x3.conv.weight': FIRST, 'fc.weight': np.zeros((10, 1))},
            {},
            "weights: {} has 10 rows in 'fc.weight'; use the network of FID, which has 1008, or "
            "torchvision's, which has 1000",
        ),
        (
            {'Conv2d_1a_3x3.conv.weight': FIRST, 'fc.weight': np.zeros((1000, 1))},
            {},
            "weights: {} has no entry 'Conv2d_1a_3x3.bn.weight'; give the complete network",
        ),
    ],
)
def test_weights_that_are_not_the_network(arrays, settings, message, tmp_path):
    path = str(tmp_path / 'w.npz')
    np.savez(path, **arrays)
    assert refused(COLOR, weights=path, **settings) == message.format(path)
