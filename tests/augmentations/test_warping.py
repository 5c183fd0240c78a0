"""Affine maps of images, against NumPy's and SciPy's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage, signal

from gen_jax.augmentations.warping import fold, moved, rotation, scaling, translation, warped

SIZES = [(8, 8), (9, 9), (16, 11)]


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


@jax.jit
def bent(x: np.ndarray, maps: jax.Array) -> jax.Array:
    return warped(x, maps)


def product(*maps: jax.Array) -> jax.Array:
    result = maps[0]
    for one in maps[1:]:
        result = result @ one
    return result


def of_one(value: float) -> jax.Array:
    return jnp.array([value], jnp.float32)


def turn(angle: float) -> jax.Array:
    return rotation(jnp.cos(of_one(angle)), jnp.sin(of_one(angle)))


def test_fold_is_numpys_reflection():
    for n in (2, 3, 8):
        expected = np.pad(np.arange(n), 5 * n, 'reflect')
        np.testing.assert_array_equal(fold(np.arange(-5 * n, 6 * n), n), expected)


@pytest.mark.parametrize('size', SIZES)
def test_whole_pixels_are_moved_as_numpy_does(size):
    x = images(4, *size, 2)
    height, width = size
    shift = np.array([[0, 0], [1, -2], [-7, 3], [20, -30]])
    y = moved(x, translation(*jnp.float32(shift).T))
    for image, out, (down, right) in zip(x, y, shift, strict=True):
        around = np.pad(image, ((40, 40), (40, 40), (0, 0)), 'reflect')
        expected = around[40 - down : 40 - down + height, 40 - right : 40 - right + width]
        np.testing.assert_array_equal(out, expected)
    mirrored = moved(x, scaling(jnp.ones(4), -jnp.ones(4)))
    np.testing.assert_array_equal(mirrored, x[:, :, ::-1])


@pytest.mark.parametrize('n', [8, 9])
def test_quarters_of_a_turn_are_numpys(n):
    """In `warped` too: nothing moves, and no more is lost than the filter's 1 %."""
    x = images(6, n, n, 1)
    quarters = np.array([0, 1, 2, 3, 4, 5])
    maps = rotation(jnp.cos(np.pi / 2 * quarters).round(), jnp.sin(np.pi / 2 * quarters).round())
    for image, exact, filtered, k in zip(x, moved(x, maps), bent(x, maps), quarters, strict=True):
        np.testing.assert_array_equal(exact, np.rot90(image, k))
        np.testing.assert_allclose(filtered, np.rot90(image, k), atol=0.03)


def by_scipy(x: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Equation (2) of one channel, step by step, on an image that was mirrored far around."""
    t = (np.arange(16) - 7.5) / 2
    taps = (np.sin(np.pi * t / 2) + 2 * t * np.cos(1.5 * np.pi * t)) / (np.pi * t * (1 - 4 * t**2))
    taps = np.outer(taps, taps) / taps.sum() ** 2
    size, far = np.array(x.shape), 5 * max(x.shape)
    around = np.pad(x, far, 'reflect')
    doubled = signal.convolve2d(np.kron(around, [[4, 0], [0, 0]]), taps)[7:, 7:]
    # Pixel j at twice the resolution lies at (j - 1/2) / 2 of those before.
    middle = 2 * (far + (size - 1) / 2) + 0.5
    wanted = 2 * size + 14
    start = (wanted - 1) / 2
    linear = matrix[:2, :2]
    offset = middle + 2 * matrix[:2, 2] - linear @ start
    sampled = ndimage.affine_transform(doubled, linear, offset, tuple(wanted), order=1)
    return signal.convolve2d(sampled, taps, 'valid')[::2, ::2]


MAPS = {
    'shift': translation(of_one(0.3), of_one(-1.45)),
    'turn': turn(0.7),
    'enlarge': scaling(of_one(1.6), of_one(1.6)),
    'shrink and stretch': scaling(of_one(0.55), of_one(1.2)),
    'far out': product(turn(2.0), translation(of_one(13.0), of_one(-11.0))),
    'all': product(
        scaling(of_one(0.8), of_one(0.8)),
        turn(-2.5),
        scaling(of_one(1.2), of_one(1 / 1.2)),
        turn(1.0),
        translation(of_one(1.3), of_one(0.6)),
    ),
}


@pytest.mark.parametrize('size', SIZES)
def test_warps_are_scipys_step_by_step(size):
    x = images(len(MAPS), *size, 1)
    y = bent(x, jnp.concatenate([*MAPS.values()]))
    for name, image, out, matrix in zip(MAPS, x, y, MAPS.values(), strict=True):
        expected = by_scipy(np.float64(image[..., 0]), np.float64(matrix[0]))
        np.testing.assert_allclose(out[..., 0], expected, atol=1e-4, err_msg=name)


def test_warps_of_smooth_images_are_splines():
    """Where there is nothing that could alias, any good interpolation says the same."""
    size = np.array((16, 11))
    rows, columns = (np.arange(n) / (n - 1) for n in size)
    x = np.cos(3 * np.pi * rows)[:, None] * (0.5 - np.cos(np.pi * columns)) / 1.5
    y = bent(
        np.broadcast_to(np.float32(x[..., None]), (6, *size, 1)), jnp.concatenate([*MAPS.values()])
    )
    for name, out, matrix in zip(MAPS, y, MAPS.values(), strict=True):
        linear, middle = np.float64(matrix[0, :2, :2]), (size - 1) / 2
        offset = middle + matrix[0, :2, 2] - linear @ middle
        expected = ndimage.affine_transform(x, linear, offset, order=5, mode='mirror')
        np.testing.assert_allclose(out[..., 0], expected, atol=0.02, err_msg=name)


def test_what_is_shrunk_does_not_alias():
    """A checkerboard at half its size is gray, where reading every other pixel would not be."""
    board = np.indices((9, 9)).sum(0) % 2 * 2.0 - 1
    half = scaling(jnp.full(6, 0.5), jnp.full(6, 0.5))
    x = np.broadcast_to(np.float32(board[..., None]), (6, 9, 9, 1))
    assert np.abs(moved(x, half)).min() == 1
    assert np.abs(bent(x, half)).max() < 0.1
