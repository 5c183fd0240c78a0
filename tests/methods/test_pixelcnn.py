"""PixelCNN++ as a model of images: its probabilities, its draws, and what it refuses."""

import functools
import itertools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from gen_jax.data.pixels import levels_to_x
from gen_jax.errors import InputError
from gen_jax.losses import logistic_mixture
from gen_jax.methods.pixelcnn import pixelcnn
from gen_jax.networks.pixelcnn import PixelCNN
from gen_jax.types import DataSpec

SPEC = DataSpec((2, 2, 1), levels=3, num_classes=2)


def tiny(spec: DataSpec, *, class_conditional: bool = False, num_levels: int = 1):
    """A method, its network, and parameters drawn at random."""
    made = []

    def factory(**given):
        fields = {'channels': 6, 'num_blocks': 1, 'num_mixtures': 2}
        made.append(PixelCNN(**fields, num_levels=num_levels, **given))
        return made[-1]

    method = pixelcnn({'model': factory}, spec, class_conditional=class_conditional)
    batch = {'x': jnp.zeros((1, *spec.shape)), 'label': jnp.zeros(1, jnp.int32)}
    shapes = nn.unbox(jax.eval_shape(method.init, jax.random.key(0), batch)[0])
    generator = np.random.default_rng(4)
    draw = functools.partial(generator.normal, scale=0.25)
    params = jax.tree.map(lambda leaf: draw(size=leaf.shape).astype(leaf.dtype), shapes)
    return method, made[0], params


def all_images(spec: DataSpec) -> np.ndarray:
    values = levels_to_x(np.arange(spec.levels), spec.levels)
    images = itertools.product(values, repeat=math.prod(spec.shape))
    return np.array(list(images), np.float32).reshape(-1, *spec.shape)


def probabilities(method, params, x: np.ndarray, label: int | None = None) -> np.ndarray:
    """p(x) of each image, from what `evaluate` says of it."""
    batch = {'x': jnp.asarray(x)}
    if label is not None:
        batch['label'] = jnp.full(len(x), label)
    values = jax.jit(method.evaluate)(params, {}, batch, jax.random.key(0))
    return np.exp(-np.float64(values['loss']) * math.prod(x.shape[1:]))


def draw(method, params, num: int, **options) -> np.ndarray:
    sample = functools.partial(method.sample, num=num, **options)
    return np.asarray(jax.jit(sample)(params, {}, jax.random.key(5)))


def frequencies_fit(x: np.ndarray, images: np.ndarray, p: np.ndarray) -> bool:
    """Whether draws x have the probabilities p of these images, by a chi-square test."""
    same = (x[:, None] == images[None]).reshape(len(x), len(images), -1).all(-1)
    assert np.all(same.sum(1) == 1)  # bit for bit one of them
    counts, expected = same.sum(0), len(x) * p
    groups = np.where(expected > 5, np.arange(1, len(p) + 1), 0)  # all rare ones together
    counts, expected = (np.bincount(groups, n) for n in (counts, expected))
    counts, expected = counts[expected > 0], expected[expected > 0]
    statistic = np.sum((counts - expected) ** 2 / expected)
    return scipy.stats.chi2.sf(statistic, len(counts) - 1) > 1e-3


@pytest.mark.parametrize(
    'spec', [SPEC, DataSpec((1, 2, 3), levels=2)], ids=['2x2 gray', '1x2 color']
)
def test_the_probabilities_of_all_images_sum_to_one(spec):
    method, _, params = tiny(spec, num_levels=2)
    p = probabilities(method, params, all_images(spec))
    np.testing.assert_allclose(p.sum(), 1, rtol=1e-5)
    assert p.max() > 3 * p.min()  # of a model that says something


def test_no_mass_depends_on_a_later_pixel_or_sub_pixel():
    """The chain rule, one number after the other: for the first c channels of a pixel the law is
    that of an image of c channels, whose parameters come first in each group."""
    shape, channels = (3, 4, 3), 3
    _, network, params = tiny(DataSpec(shape, levels=256), num_levels=2)
    x = jax.random.uniform(jax.random.key(1), shape, minval=-0.9, maxval=0.9)

    def log_masses(flat):
        x = flat.reshape(1, *shape)
        laws = network.apply({'params': params['model']}, x, train=False)
        logit, mean, log_scale, slope = jnp.split(laws, [1, 4, 7], -1)
        values = []
        for c in range(1, channels + 1):
            pairs = c * (c - 1) // 2
            law = [logit, mean[..., :c], log_scale[..., :c], slope[..., :pairs]]
            law = jnp.concatenate(law, -1)
            values.append(logistic_mixture.log_mass_of_pixels(x[..., :c], law, 256))
        return jnp.stack(values, -1).reshape(-1)

    sees = np.asarray(jax.jit(jax.jacrev(log_masses))(x.reshape(-1)))
    later = np.triu(np.ones_like(sees), 1).astype(bool)
    assert np.all(sees[later] == 0)
    assert np.all(sees[~later] != 0)


def test_draws_have_the_probabilities_of_the_model():
    method, _, params = tiny(SPEC)
    images = all_images(SPEC)
    assert frequencies_fit(
        draw(method, params, 20_000), images, probabilities(method, params, images)
    )


def test_completions_keep_what_is_known_and_draw_the_rest_given_it():
    """Where the known pixels come first, by the conditional law."""
    method, _, params = tiny(SPEC)
    num, images = 20_000, all_images(SPEC)
    known = np.array([[True, True], [False, False]])
    start = images[70]
    drawn = draw(method, params, num, given=(np.stack([start] * num), known[..., None]))
    np.testing.assert_array_equal(drawn[:, 0], np.stack([start[0]] * num))
    fits = np.all(images[:, 0] == start[0], axis=(1, 2))
    p = np.where(fits, probabilities(method, params, images), 0)
    assert frequencies_fit(drawn, images[fits], p[fits] / p.sum())


def test_any_pixels_may_be_known_image_by_image():
    method, _, params = tiny(SPEC)
    generator = np.random.default_rng(0)
    x = all_images(SPEC)[generator.integers(81, size=64)]
    known = generator.random((64, 2, 2)) < 0.5
    drawn = draw(method, params, 64, given=(x, known[..., None]))
    np.testing.assert_array_equal(drawn[known], x[known])
    assert np.any(drawn[~known] != x[~known])


def test_draws_are_those_of_the_whole_network_at_every_pixel():
    """The same images from the same key without any memory."""
    shape, num, key = (3, 5, 3), 4, jax.random.key(5)
    spec = DataSpec(shape, levels=17, num_classes=3)
    method, network, params = tiny(spec, class_conditional=True, num_levels=2)
    label = jnp.array([0, 1, 2, 1])
    drawn = draw(method, params, num, cond=label)
    laws = functools.partial(network.apply, {'params': params['model']}, train=False)
    laws = jax.jit(laws)
    choose = jax.jit(functools.partial(logistic_mixture.sample, channels=3, levels=17))
    x = np.zeros((num, *shape), np.float32)
    for i, (row, column) in enumerate(itertools.product(range(3), range(5))):
        law = laws(x, label)[:, row : row + 1, column : column + 1]
        x[:, row, column] = choose(jax.random.fold_in(key, i), law)[:, 0, 0]
    np.testing.assert_array_equal(drawn, x)


def test_labels_choose_the_law():
    method, _, params = tiny(SPEC, class_conditional=True)
    images = all_images(SPEC)
    p = [probabilities(method, params, images, label) for label in (0, 1)]
    np.testing.assert_allclose([p[0].sum(), p[1].sum()], 1, rtol=1e-5)
    assert np.abs(p[0] - p[1]).sum() > 0.05
    drawn = draw(method, params, 20_000, cond=jnp.arange(20_000) % 2)
    assert frequencies_fit(drawn[1::2], images, p[1])
    assert not frequencies_fit(drawn[1::2], images, p[0])
    assert 'label' in method.estimators['bits_per_dim'] and method.num_classes == 2


def test_what_is_said_of_held_out_images_is_the_trained_loss_in_nats_and_bits():
    method, _, params = tiny(SPEC)
    batch = {'x': jnp.asarray(all_images(SPEC)[:8])}
    values = jax.jit(method.evaluate)(params, {}, batch, jax.random.key(0))
    np.testing.assert_allclose(values['bits_per_dim'], values['loss'] / math.log(2), rtol=1e-6)
    assert method.estimators['bits_per_dim'].startswith('exact (-log2 p(x)')
    state = type('State', (), {'model_state': {}})
    loss = jax.jit(lambda key: method.phases[0].loss(params, state, batch, key))
    (first, (_, metrics)), (second, _) = (loss(jax.random.key(n)) for n in (0, 1))
    assert first == metrics['loss'] != second  # with dropout
    np.testing.assert_allclose(first, values['loss'].mean(), rtol=0.5)


def test_lower_temperatures_draw_less_variety():
    method, _, params = tiny(SPEC)
    cold, warm = (
        len(np.unique(draw(method, params, 500, temperature=t), axis=0)) for t in (0.1, 1.0)
    )
    assert cold < 0.5 * warm


def test_every_pixel_is_one_evaluation():
    method, _, _ = tiny(DataSpec((3, 5, 1), levels=4))
    assert method.nfe(temperature=0.5) == 15


@pytest.mark.parametrize(
    ('spec', 'options', 'message'),
    [
        (SPEC._replace(dequantized=True), {}, 'data.dequantize'),
        (SPEC._replace(levels=None), {}, 'None levels'),
        (DataSpec((2,), levels=4), {}, r'shape \(2,\)'),
        (SPEC._replace(num_classes=None), {'class_conditional': True}, 'class_conditional'),
    ],
)
def test_what_makes_no_pixelcnn_is_refused(spec, options, message):
    with pytest.raises(InputError, match=message):
        pixelcnn({'model': PixelCNN}, spec, **options)


def test_draws_that_cannot_be_are_refused():
    method, _, params = tiny(SPEC)
    x = np.zeros((3, 2, 2, 1), np.float32)
    for options, message in (
        ({'temperature': 0.0}, 'temperature: 0.0 must be above 0'),
        ({'cond': jnp.zeros(3, jnp.int32)}, 'without labels'),
        ({'given': (x[:2], np.ones((2, 2), bool))}, r'given: images of shape \(2, 2, 2, 1\)'),
        ({'given': (x, np.ones((3, 2), bool))}, r'given: .* shape \(3, 2\); it must broadcast'),
    ):
        with pytest.raises(InputError, match=message):
            jax.eval_shape(functools.partial(method.sample, num=3, **options), params, {}, None)
    labeled, _, params = tiny(SPEC, class_conditional=True)
    with pytest.raises(InputError, match='needs labels of its 2 classes'):
        jax.eval_shape(functools.partial(labeled.sample, num=3), params, {}, None)
