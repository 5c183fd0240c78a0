"""Projection: it finds the latents of a decoder that can be inverted, and descends at all."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gen_jax.projection import make_projector, objective, pyramid

MEAN, DEVIATION = jnp.full((2, 8), 5.0), 3.0


def decode(offset, w):
    """Linear and invertible: two layers of eight numbers become 4 x 4 pixels."""
    rng = np.random.default_rng(0)
    rotation, _ = np.linalg.qr(rng.normal(size=(16, 16)))
    matrix = jnp.asarray(rotation * np.linspace(0.5, 1.5, 16), jnp.float32)
    return ((w - offset).reshape(len(w), -1) @ matrix / 10).reshape(-1, 4, 4, 1)


linear = functools.partial(decode, MEAN)


@pytest.fixture(scope='module')
def case():
    """Latents, what they make, and what is found of it."""
    w = MEAN + DEVIATION * jax.random.normal(jax.random.key(0), (3, 2, 8))
    project = make_projector(decode, MEAN, DEVIATION, 300)
    return w, linear(w), functools.partial(project, MEAN)


def test_latents_of_a_decoder_that_can_be_inverted_are_found(case):
    w, x, find = case
    found = find(x)
    np.testing.assert_allclose(found, w, atol=0.02)
    assert jnp.square(linear(found) - x).mean() / 4 < 1e-6  # a PSNR above 60 dB


def test_each_example_is_by_itself(case):
    _, x, find = case
    np.testing.assert_allclose(find(x[1:2])[0], find(x)[1], atol=1e-4)


def test_the_objective_and_its_gradient_decrease(case):
    _, x, find = case
    start = jnp.broadcast_to(MEAN, (3, 2, 8))
    found = find(x)
    values = [objective(linear, w, x) for w in (start, found)]
    assert (values[1] < 1e-3 * values[0]).all()
    gradients = [jax.grad(lambda w: objective(linear, w, x).sum())(w) for w in (start, found)]
    before, after = (jnp.linalg.norm(g.reshape(3, -1), axis=1) for g in gradients)
    assert (after < 0.05 * before).all()
    early = make_projector(decode, MEAN, DEVIATION, 3)(MEAN, x)
    assert (values[1] < objective(linear, early, x)).all()
    assert (objective(linear, early, x) < values[0]).all()


def test_what_is_minimized_is_of_all_scales_and_of_the_length_of_normal_latents(case):
    _, x, _ = case
    w = jax.random.normal(jax.random.key(1), (3, 2, 8))
    made, x = np.asarray(linear(w)), np.asarray(x)
    halves = [a.reshape(3, 2, 2, 2, 2, 1).mean((2, 4)) for a in (made, x)]
    wholes = [a.mean((1, 2)) for a in (made, x)]
    errors = [((a - b) ** 2).reshape(3, -1).mean(1) for a, b in ((made, x), halves, wholes)]
    plain = np.mean(errors, axis=0)
    np.testing.assert_allclose(objective(linear, w, x), plain, rtol=1e-4)
    length = np.square(w).sum((1, 2)) / 16
    normal = objective(linear, w, x, is_normal=True)
    np.testing.assert_allclose(normal, plain + 0.01 * (length - 1) ** 2, rtol=1e-4)


def test_normal_latents_stay_near_their_sphere():
    def faint(offset, z):
        return decode(offset, z) / 3

    target = faint(0.0, 3 * jax.random.normal(jax.random.key(2), (4, 2, 8)))  # three times too far
    lengths = {}
    for is_normal in (False, True):
        project = make_projector(faint, jnp.zeros((2, 8)), 1.0, 300, is_normal)
        z = project(jnp.float32(0.0), target)
        lengths[is_normal] = np.square(z).sum((1, 2)) / 16
    assert (lengths[False] > 3).all()
    assert (np.abs(lengths[True] - 1) < 0.5 * np.abs(lengths[False] - 1)).all()


@pytest.mark.parametrize(
    ('shape', 'shapes'),
    [
        ((28, 28, 3), [(28, 28, 3), (14, 14, 3), (7, 7, 3)]),
        ((4, 2, 1), [(4, 2, 1), (2, 1, 1)]),
        ((6, 2), [(6, 2), (3, 2)]),
        ((5,), [(5,)]),
    ],
)
def test_scales_are_halves_as_long_as_sides_are_even(shape, shapes):
    x = jax.random.normal(jax.random.key(0), (2, *shape))
    scales = pyramid(x)
    assert [scale.shape[1:] for scale in scales] == shapes
    for scale in scales:  # averages of averages
        axes = tuple(range(1, max(x.ndim - 1, 1)))
        np.testing.assert_allclose(scale.mean(axes), x.mean(axes), atol=1e-6)
