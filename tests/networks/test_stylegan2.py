"""StyleGAN2's generator: modulation against its definition, noise, the mean style, positions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gen_jax.errors import InputError
from gen_jax.networks import convolution, resampling, stylegan2
from gen_jax.networks.stylegan2 import Generator

SMALL = {'widths': (6, 4), 'style_channels': 8, 'num_mapping_layers': 1}
Z, LABELS = jax.random.normal(jax.random.key(0), (3, 5)), jnp.array([0, 2, 1])


def normal(seed: int, *shape: int):
    """Float32 Gaussian numbers."""
    return jax.random.normal(jax.random.key(seed), shape)


def filled(module, *arguments, method=None, **options):
    """Variables of which none are zero."""
    init = jax.eval_shape(
        lambda: module.init(jax.random.key(0), *arguments, **options, method=method)
    )
    generator = np.random.default_rng(1)
    return jax.tree.map(lambda v: generator.normal(size=v.shape).astype(np.float32), init)


@pytest.fixture(scope='module')
def network():
    return Generator((8, 8, 3), 5, num_classes=3, **SMALL)


@pytest.fixture(scope='module')
def variables(network):
    return filled(network, Z, LABELS, train=True)


@pytest.fixture(scope='module')
def synthesize(network):
    return jax.jit(functools.partial(network.apply, train=False, method='synthesize'))


def one_by_one(convolve, h, kernel, style, demodulate: bool):
    """Equation (2) as it is defined: each example is convolved with weights of its own."""
    answers = []
    for x, s in zip(h, style, strict=True):
        weights = kernel * s[:, None]
        if demodulate:
            weights = weights / np.sqrt((weights**2).sum((0, 1, 2)))
        answers.append(convolve(x[None], weights)[0])
    return jnp.stack(answers)


@pytest.mark.parametrize('up', [False, True])
def test_a_layer_is_modulated_and_demodulated_weights_noise_and_bias(up):
    h, w = normal(0, 3, 4, 6, 8), normal(1, 3, 7)
    layer = stylegan2.Styled(5, up=up, dtype='float32')
    variables = filled(layer, h, w)
    p = variables['params']
    style = w @ p['style']['kernel'] / np.sqrt(7) + p['style']['bias']
    convolve = resampling.filtered_upsample_conv if up else convolution.plain_conv
    kernel = p['kernel'] / np.sqrt(9 * 8)
    wanted = one_by_one(convolve, h, kernel, style, demodulate=True)
    without = jax.jit(layer.apply)(variables, h, w)
    np.testing.assert_allclose(without, stylegan2.leaky(wanted + p['bias']), rtol=1e-3, atol=1e-4)


def test_noise_is_one_number_for_a_pixel_and_absent_without_a_key():
    h, w = normal(0, 3, 4, 6, 8), normal(1, 3, 7)
    layer = stylegan2.Styled(5, up=False, dtype='float32')
    variables = filled(layer, h, w)
    apply = jax.jit(lambda variables, seed: layer.apply(variables, h, w, rngs=seed))

    def before_activation(variables, rngs):
        y = apply(variables, rngs) / np.sqrt(2)
        return np.where(y > 0, y, y / 0.2)

    silent = before_activation(variables, {})
    noises = [
        before_activation(variables, {'noise': jax.random.key(seed)}) - silent for seed in (0, 1)
    ]
    strength = float(variables['params']['scale'])
    for noise in noises:
        np.testing.assert_allclose(noise, np.repeat(noise[..., :1], 5, -1), atol=1e-4)
        assert 0.7 < noise[..., 0].std() / abs(strength) < 1.3
    assert np.abs(noises[0] - noises[1]).max() > 0.1 * abs(strength)
    variables['params']['scale'] = jnp.zeros(())
    np.testing.assert_array_equal(
        apply(variables, {'noise': jax.random.key(0)}), apply(variables, {})
    )


def test_what_a_stage_adds_to_the_image_is_modulated_only():
    h, w = normal(0, 3, 4, 6, 8), normal(1, 3, 7)
    layer = stylegan2.ToImage(2, dtype='float32')
    variables = filled(layer, h, w)
    p = variables['params']
    style = w @ p['style']['kernel'] / np.sqrt(7) + p['style']['bias']
    kernel = p['kernel'] / np.sqrt(8)
    wanted = one_by_one(convolution.plain_conv, h, kernel, style, demodulate=False) + p['bias']
    ours = jax.jit(layer.apply)(variables, h, w)
    np.testing.assert_allclose(ours, wanted, rtol=1e-3, atol=1e-4)


def test_styles_begin_at_one():
    h, w = normal(0, 3, 4, 6, 8), normal(1, 3, 7)
    variables = stylegan2.ToImage(2, dtype='float32').init(jax.random.key(0), h, w)
    np.testing.assert_array_equal(variables['params']['style']['bias'], 1)


def test_a_call_is_styles_and_what_is_made_of_them(network, variables, synthesize):
    call = jax.jit(functools.partial(network.apply, variables, Z, LABELS, train=False))
    w = network.apply(variables, Z, LABELS, train=False, method='styles')
    assert w.shape == (3, network.num_styles, 8) and network.num_styles == 4
    np.testing.assert_array_equal(w, np.broadcast_to(w[:, :1], w.shape))
    whole = call()
    assert whole.shape == (3, 8, 8, 3)
    np.testing.assert_allclose(synthesize(variables, w), whole, rtol=1e-4, atol=1e-4)


def test_each_style_steers_the_layers_from_its_own_on(network, variables, synthesize):
    w = normal(2, 1, 4, 8)
    image = synthesize(variables, w)
    for i in range(4):
        assert np.abs(synthesize(variables, w.at[:, i].add(1)) - image).max() > 1e-2
    # With nothing added to the image by the last stage, the last two steer nothing, and the second
    # one what the first stage adds.
    last = variables['params']['block_1']
    nothing = jax.tree.map(jnp.zeros_like, last['image'])
    params = variables['params'] | {'block_1': last | {'image': nothing}}
    variables = {**variables, 'params': params}
    image = synthesize(variables, w)
    assert np.abs(synthesize(variables, w.at[:, 1].add(1)) - image).max() > 1e-2
    for i in (2, 3):
        np.testing.assert_array_equal(synthesize(variables, w.at[:, i].add(1)), image)


def test_the_mean_style_moves_in_training_only(network, variables):
    def moved(train: bool, **options):
        return network.apply(variables, Z, LABELS, train=train, method='styles', **options)

    w, changed = moved(True, mutable=['batch_stats'])
    before = variables['batch_stats']['w_mean']
    wanted = before + 0.005 * (w[:, 0].mean(0) - before)
    np.testing.assert_allclose(changed['batch_stats']['w_mean'], wanted, rtol=1e-4, atol=1e-6)
    _, kept = moved(False, mutable=['batch_stats'])
    np.testing.assert_array_equal(kept['batch_stats']['w_mean'], before)
    np.testing.assert_array_equal(moved(True), w)  # where nothing may change


def test_the_mean_style_begins_at_zero(network):
    variables = jax.jit(functools.partial(network.init, train=True))(jax.random.key(0), Z, LABELS)
    np.testing.assert_array_equal(variables['batch_stats']['w_mean'], np.zeros(8))


@pytest.mark.parametrize(
    ('shape', 'widths', 'first'),
    [
        ((8, 8, 1), (4, 4, 4), (2, 2)),
        ((28, 28, 1), (6, 4, 4), (7, 7)),
        ((8, 16, 3), (6, 4), (4, 8)),
    ],
)
def test_shapes_from_the_smallest_image_on(shape, widths, first):
    network = Generator(shape, 5, **{**SMALL, 'widths': widths})
    images, variables = jax.eval_shape(
        lambda: network.init_with_output(jax.random.key(0), Z, train=True)
    )
    assert images.shape == (3, *shape)
    assert variables['params']['embedding'].shape == (*first, widths[0])


def test_a_norm_of_gradients_has_a_gradient_for_every_kernel(network, variables):
    """As the regularization of path lengths wants it."""
    noise = normal(3, 3, 8, 8, 3)
    w = normal(2, 3, 4, 8)

    def lengths(params):
        def projected(w):
            image = network.apply(
                {**variables, 'params': params}, w, train=True, method='synthesize'
            )
            return (image * noise).sum()

        return (jax.grad(projected)(w) ** 2).sum()

    gradient = jax.jit(jax.grad(lengths))(variables['params'])
    for name in ('block_0', 'block_1'):
        for path, leaf in jax.tree_util.tree_leaves_with_path(gradient[name]):
            assert np.all(np.isfinite(leaf))
            if 'kernel' in jax.tree_util.keystr(path):
                assert np.abs(leaf).max() > 0


@pytest.mark.parametrize(
    ('name', 'fields'),
    [
        ('widths', {'widths': ()}),
        ('widths', {'widths': (4, 0)}),
        ('widths', {'widths': (4, 4, 4, 4, 4)}),
        ('style_channels', {'style_channels': 0}),
        ('num_mapping_layers', {'num_mapping_layers': 0}),
    ],
)
def test_fields_that_make_no_network_are_refused(name, fields):
    with pytest.raises(InputError, match=name):
        Generator((8, 8, 3), 5, **{**SMALL, **fields})
