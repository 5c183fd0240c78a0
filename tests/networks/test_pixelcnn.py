"""PixelCNN: what each law depends on, its convolutions, and drawing with memories."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from gen_jax.errors import InputError
from gen_jax.networks import pixelcnn
from gen_jax.networks.pixelcnn import PixelCNN, Place, ShiftedConv, ShiftedUpConv

TINY = {'channels': 6, 'num_blocks': 1, 'num_levels': 2, 'num_mixtures': 2}


def images(*shape: int):
    return jax.random.uniform(jax.random.key(7), shape, minval=-1)


def random_params(module, *arguments, **options):
    """Parameters drawn at random: none is zero, and no number grows from layer to layer."""
    init = functools.partial(module.init, jax.random.key(0), *arguments, **options)
    shapes = nn.unbox(jax.eval_shape(init))
    generator = np.random.default_rng(3)
    draw = functools.partial(generator.normal, scale=0.15)
    return jax.tree.map(lambda leaf: draw(size=leaf.shape).astype(leaf.dtype), shapes)


def test_laws_have_their_shape_and_mixtures_start_with_components_that_differ():
    network, x = PixelCNN(out_channels=10, **{**TINY, 'num_levels': 1}), images(2, 8, 8, 3)
    start = functools.partial(network.init_with_output, train=False)
    laws, _ = jax.jit(start)(jax.random.key(0), x)
    assert laws.shape == (2, 8, 8, 2, 10) and laws.dtype == jnp.float32
    assert np.all(np.isfinite(laws))
    assert np.abs(laws[..., 0, :] - laws[..., 1, :]).mean() > 0.1


def test_full_size_is_that_of_the_paper_network():
    """Counted by hand from the paper's text: 15 blocks down and 17 up in each of two networks."""
    network = PixelCNN(out_channels=10)
    shapes = jax.eval_shape(
        functools.partial(network.init, train=False), jax.random.key(0), jnp.zeros((1, 32, 32, 3))
    )
    width, total = 160, 0
    for taps, looked_at in ((6, 0), (4, 1)):  # vertical, horizontal
        convolutions = taps * 2 * width * width + width + taps * 2 * width * 2 * width + 2 * width
        total += (15 + 17) * convolutions
        for others in (15 * [looked_at], 17 * [looked_at + 1]):
            total += sum(2 * n * width * width + width for n in others if n)
        total += 2 * 2 * (taps * width * width + width)  # halving and doubling, twice each
    total += (6 + 3 + 2) * 4 * width + 3 * width  # the first convolutions
    total += width * 100 + 100
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == total


def test_a_law_sees_every_pixel_before_it_and_none_after():
    network, height, width = PixelCNN(out_channels=3, **{**TINY, 'num_levels': 3}), 5, 6
    x = images(1, height, width, 1)
    variables = random_params(network, x, train=False)

    def laws(flat):
        out = network.apply(variables, flat.reshape(x.shape), train=False)
        return out.reshape(height * width, -1)

    sees = np.abs(jax.jit(jax.jacrev(laws))(x.reshape(-1))).max(1)
    before = np.tril(np.ones_like(sees), -1).astype(bool)
    assert np.all(sees[~before] == 0)
    assert np.all(sees[before] > 0)


@pytest.mark.parametrize('size', [(1, 3), (2, 1), (2, 2), (2, 3)])
@pytest.mark.parametrize('stride', [1, 2])
def test_a_shifted_convolution_is_one_with_a_kernel_that_is_zero_below_and_right(size, stride):
    h = images(2, 6, 5, 9)
    module = ShiftedConv(4, size, stride)
    variables = random_params(module, h, None)
    (rows, columns), params = size, variables['params']
    right = 1 if columns == 3 else 0
    whole = np.zeros((3, 3, 9, 4), np.float32)
    whole[2 - rows : 2, 2 + right - columns : 2 + right] = params['kernel']
    expected = lax.conv_general_dilated(
        h, whole, (1, 1), ((1, 1), (1, 1)), dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )
    expected = expected[:, ::stride, ::stride] + params['bias']
    np.testing.assert_allclose(module.apply(variables, h, None), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('columns', [2, 3])
def test_a_shifted_up_convolution_is_a_transposed_one(columns):
    low = images(2, 3, 4, 5)
    module = ShiftedUpConv(4, (2, columns))
    variables = random_params(module, low, None, (2, 6, 8, 4))
    params = variables['params']
    expected = np.zeros((2, 6, 10, 4), np.float32)  # a column more on each side
    for i in range(3):
        for j in range(4):
            patch = np.einsum('bc,rkcf->brkf', low[:, i, j], params['kernel'])
            start = 2 * j + 1 - (columns - 2)
            expected[:, 2 * i : 2 * i + 2, start : start + columns] += patch
    expected = expected[:, :, 1:-1] + params['bias']
    whole = module.apply(variables, low, None, (2, 6, 8, 4))
    np.testing.assert_allclose(whole, expected, rtol=1e-4, atol=1e-5)
    cropped = module.apply(variables, low, None, (2, 5, 7, 4))
    np.testing.assert_array_equal(cropped, whole[:, :5, :7])


def test_concat_elu_is_two_elus_in_value_and_gradient():
    x = jnp.array([-30.0, -1.5, -1e-6, 0.0, 1e-6, 0.7, 30.0])

    def plain(x):
        return jnp.concatenate([nn.elu(x), nn.elu(-x)], -1)

    np.testing.assert_allclose(pixelcnn.concat_elu(x), plain(x), rtol=1e-6)
    ours, theirs = (jax.jacobian(f)(x) for f in (pixelcnn.concat_elu, plain))
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


@pytest.mark.parametrize(
    ('shape', 'num_classes', 'dtype', 'fields'),
    [
        ((8, 8, 1), 3, 'float32', {}),
        ((5, 7, 3), None, 'float32', {'num_levels': 3}),
        ((3, 4, 1), None, 'float32', {'num_levels': 1, 'num_blocks': 2}),
        ((2, 3, 1), None, 'bfloat16', {'num_levels': 1}),
    ],
)
def test_drawing_with_memories_has_the_laws_of_the_whole_pass(shape, num_classes, dtype, fields):
    """Row by row and pixel by pixel, with what was remembered, at every pixel."""
    network = PixelCNN(out_channels=4, num_classes=num_classes, dtype=dtype, **{**TINY, **fields})
    x = images(2, *shape)
    label = None if num_classes is None else jnp.array([2, 0])
    params = random_params(network, x, label, train=False)
    whole = jax.jit(functools.partial(network.apply, train=False))(params, x, label)
    canvas, (height, width, _) = pixelcnn.framed(x), shape

    @functools.partial(jax.jit, static_argnames='method')
    def step(memory, method, *arguments):
        variables = {**params, pixelcnn.MEMORY: memory}
        answer, after = network.apply(
            variables, *arguments, method=method, mutable=[pixelcnn.MEMORY]
        )
        return answer, after[pixelcnn.MEMORY]

    make = functools.partial(network.apply, train=False, mutable=[pixelcnn.MEMORY])
    _, made = jax.eval_shape(make, params, x, label)
    memory = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), made[pixelcnn.MEMORY])
    for row in range(height):
        above = canvas[:, row : row + 1, 1:]
        rows, memory = step(memory, 'rows', above, label, Place(jnp.asarray(row)))
        for column in range(width):
            left = canvas[:, row + 1 : row + 2, column : column + 1]
            place = Place(jnp.asarray(row), jnp.asarray(column))
            law, memory = step(memory, 'pixels', left, rows, label, place)
            # bfloat16 rounds, and not quite alike in both.
            limit = 1e-5 if dtype == 'float32' else 0.03
            assert np.abs(law[:, 0, 0] - whole[:, row, column]).max() < limit, (row, column)


def test_memory_is_of_rows_and_not_of_images():
    network = PixelCNN(out_channels=3, **TINY)

    def floats(height: int) -> int:
        x = jnp.zeros((2, height, 8, 1))
        params = jax.eval_shape(functools.partial(network.init, train=False), jax.random.key(0), x)
        assert set(params) == {'params'}
        made = jax.eval_shape(
            functools.partial(network.apply, train=False, mutable=[pixelcnn.MEMORY]), params, x
        )
        return sum(leaf.size for leaf in jax.tree.leaves(made[1]))

    assert floats(8) == floats(80)


def test_label_moves_every_law_and_is_asked_for():
    network, x = PixelCNN(out_channels=3, num_classes=4, **TINY), images(2, 4, 4, 1)
    params = random_params(network, x, jnp.array([0, 0]), train=False)
    apply = jax.jit(functools.partial(network.apply, train=False))
    one, other = (apply(params, x, jnp.array(labels)) for labels in ([1, 1], [1, 2]))
    np.testing.assert_allclose(one[0], other[0], rtol=1e-6)
    assert np.abs(one[1] - other[1]).max(-1).min() > 1e-4
    with pytest.raises(InputError, match='one of the 4 classes'):
        jax.eval_shape(apply, params, x, None)
    without = PixelCNN(out_channels=3, **TINY)
    with pytest.raises(InputError, match='num_classes is None'):
        without.init(jax.random.key(0), x, jnp.array([1, 1]), train=False)


def test_dropout_acts_in_training_only():
    network, x = PixelCNN(out_channels=3, **{**TINY, 'num_levels': 1}), images(2, 4, 4, 1)
    params = random_params(network, x, train=False)

    @functools.partial(jax.jit, static_argnames='train')
    def apply(seed, train):
        return network.apply(params, x, train=train, rngs={'dropout': jax.random.key(seed)})

    np.testing.assert_array_equal(apply(0, False), apply(1, False))
    np.testing.assert_array_equal(apply(0, True), apply(0, True))
    assert np.abs(apply(0, True) - apply(1, True)).max() > 1e-3


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        ({'channels': 0}, 'channels: 0'),
        ({'num_blocks': 0}, 'num_blocks: 0'),
        ({'num_levels': 0}, 'num_levels: 0'),
        ({'num_mixtures': 0}, 'num_mixtures: 0'),
        ({'dropout': 1.0}, 'dropout: 1.0'),
    ],
)
def test_fields_that_make_no_network_are_refused(fields, message):
    with pytest.raises(InputError, match=message):
        PixelCNN(out_channels=3, **{**TINY, **fields})
