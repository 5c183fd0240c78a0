"""What every augmentation does, and how its strength moves."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gen_jax.augmentations.ada import ada
from gen_jax.augmentations.augmentation import Rule, next_strength
from gen_jax.augmentations.diff_augment import diff_augment
from gen_jax.errors import InputError
from gen_jax.types import DataSpec

MAKERS = {'diff_augment': diff_augment, 'ada': ada}
every_maker = pytest.mark.parametrize('make', MAKERS.values(), ids=MAKERS)


def images(seed: int, *shape: int) -> jnp.ndarray:
    return jnp.asarray(np.random.default_rng(seed).uniform(-1, 1, shape), jnp.float32)


@functools.cache
def applied(make, *shape: int):
    return jax.jit(make(DataSpec(shape)).apply)


@every_maker
@pytest.mark.parametrize('shape', [(8, 8, 3), (7, 9, 1)])
def test_it_is_affine_in_x_and_does_the_same_to_a_row_whatever_is_in_it(make, shape):
    apply, key = applied(make, *shape), jax.random.key(1)
    x, y = images(0, 6, *shape), images(1, 6, *shape)
    of_x, of_y, of_zero = (apply(image, key, 0.8) for image in (x, y, jnp.zeros_like(x)))
    mixed = apply(2 * x - 3 * y, key, 0.8)
    np.testing.assert_allclose(
        mixed - of_zero, 2 * (of_x - of_zero) - 3 * (of_y - of_zero), atol=2e-5
    )
    assert of_x.shape == x.shape and of_x.dtype == jnp.float32
    assert np.abs(of_x - x).max() > 0.1
    # Other rows, and their order, are nothing to a row.
    swapped = apply(jnp.where(jnp.arange(6)[:, None, None, None] == 2, x, y), key, 0.8)
    np.testing.assert_array_equal(swapped[2], of_x[2])


@every_maker
def test_without_strength_it_is_x_bit_for_bit(make):
    x = images(0, 6, 8, 8, 3)
    np.testing.assert_array_equal(applied(make, 8, 8, 3)(x, jax.random.key(2), 0.0), x)


@every_maker
def test_keys_decide(make):
    x = images(0, 6, 8, 8, 3)
    one, again, other = (applied(make, 8, 8, 3)(x, jax.random.key(k), 1.0) for k in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 0.1


@every_maker
def test_gradients_and_gradients_of_gradients(make):
    """Of f = sum A(x)^2 / 2 and of |grad f|^2 / 2: both are quadratic, so that central differences
    are their derivatives."""
    apply = applied(make, 8, 8, 3)

    def square(x):
        return 0.5 * jnp.sum(apply(x, jax.random.key(0), 1.0) ** 2)

    @jax.jit
    def of(x):
        def penalty(x):
            value, slope = jax.value_and_grad(square)(x)
            return 0.5 * jnp.sum(slope**2), (value, slope)

        (penalty, (value, slope)), its_slope = jax.value_and_grad(penalty, has_aux=True)(x)
        return (value, penalty), (slope, its_slope)

    x, way = images(0, 6, 8, 8, 3), images(1, 6, 8, 8, 3)
    (before, _), (after, _), (_, slopes) = of(x - way), of(x + way), of(x)
    for low, high, slope in zip(before, after, slopes, strict=True):
        assert (high - low) / 2 == pytest.approx(float(jnp.sum(slope * way)), rel=1e-3)


@every_maker
@pytest.mark.parametrize(
    'spec',
    [DataSpec((2,)), DataSpec((8,), 'int32', vocab_size=17), DataSpec((4, 4, 8), bounded=False)],
)
def test_what_is_no_image_is_refused(make, spec):
    with pytest.raises(InputError, match=rf'^name: {make.__name__} is for images .*; remove'):
        make(spec)


def test_only_ada_adapts():
    spec = DataSpec((8, 8, 1))
    assert diff_augment(spec).rule is None
    rule = ada(spec, target=0.5, steps=7, p_max=0.8).rule
    assert rule == Rule(0.5, 7, 0.8) and rule.adapts
    assert not ada(spec, target=None).rule.adapts


def test_strength_moves_at_one_speed_and_stays_a_probability():
    step = functools.partial(next_strength, rule=Rule(0.6, 4))
    path = [jnp.float32(0)]
    for sign in (0.7, 0.61, 1.0, 0.9, 0.8, 0.6, 0.5, -1.0, 0.0, 0.59, 0.0, 0.7):
        path.append(step(path[-1], jnp.float32(sign)))
    expected = [0, 0.25, 0.5, 0.75, 1, 1, 1, 0.75, 0.5, 0.25, 0, 0, 0.25]
    np.testing.assert_allclose(path, expected, atol=1e-6)
    assert path[-1].dtype == jnp.float32
    assert next_strength(jnp.float32(0.4), jnp.float32(1), Rule(0.6, 4, 0.5)) == 0.5
