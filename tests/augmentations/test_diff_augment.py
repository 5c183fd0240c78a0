"""DiffAugment against what NumPy makes of the same image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gen_jax.augmentations.diff_augment import diff_augment
from gen_jax.errors import InputError
from gen_jax.types import DataSpec

NUM = 400


def augmented(policy: str, image: np.ndarray, seed: int = 0) -> np.ndarray:
    """What a policy makes of `NUM` copies of an image."""
    apply = diff_augment(DataSpec(image.shape), (policy,)).apply
    copies = jnp.broadcast_to(image, (NUM, *image.shape))
    return np.asarray(apply(copies, jax.random.key(seed), 1.0))


def image(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


def test_colors_are_an_affine_map_of_each_pixel():
    """Of y = M + c (m + s (x + b - m) - M): its mean over all is that of x + b, its means over
    channels are c times those of x, and what is left of a pixel is c s times what it was."""
    x = image(8, 8, 3)
    y = augmented('color', x)

    def parts(x):
        whole, gray = x.mean((-3, -2, -1), keepdims=True), x.mean(-1, keepdims=True)
        return whole, gray - whole, x - gray

    (x_whole, x_gray, x_rest), (whole, gray, rest) = parts(x), parts(y)
    brightness = (whole - x_whole).ravel()
    contrast = (gray * x_gray).sum((1, 2, 3)) / (x_gray**2).sum()
    both = (rest * x_rest).sum((1, 2, 3)) / (x_rest**2).sum()
    expected = x_whole + brightness[:, None, None, None]
    expected = expected + contrast[:, None, None, None] * x_gray
    expected = expected + both[:, None, None, None] * x_rest
    np.testing.assert_allclose(y, expected, atol=1e-5)
    for drawn, low, high in (
        (brightness, -0.5, 0.5),
        (contrast, 0.5, 1.5),
        (both / contrast, 0, 2),
    ):
        ordered = np.sort(drawn)
        assert low - 1e-4 <= ordered[0] and ordered[-1] <= high + 1e-4
        # Kolmogorov and Smirnov's distance from the uniform law; above 1.95 / sqrt(n) one time in
        # a thousand.
        distance = np.abs((ordered - low) / (high - low) - np.linspace(0, 1, NUM)).max()
        assert distance < 1.95 / np.sqrt(NUM)


@pytest.mark.parametrize('shape', [(8, 8, 1), (15, 9, 3)])
def test_translations_are_by_up_to_an_eighth_with_zeros(shape):
    x = image(*shape)
    rows, columns = (int(n / 8 + 0.5) for n in shape[:2])
    padded = np.pad(x, ((rows, rows), (columns, columns), (0, 0)))
    places = [
        padded[i : i + shape[0], j : j + shape[1]]
        for i in range(2 * rows + 1)
        for j in range(2 * columns + 1)
    ]
    same = np.array(
        [[np.array_equal(y, place) for place in places] for y in augmented('translation', x)]
    )
    assert np.all(same.sum(1) == 1)
    share = 1 / len(places)
    assert np.all(np.abs(same.mean(0) - share) < 4 * np.sqrt(share / NUM))


@pytest.mark.parametrize('shape', [(8, 8, 1), (7, 10, 3)])
def test_cutouts_are_rectangles_of_half_the_size_at_any_center(shape):
    zeros = augmented('cutout', np.ones(shape, np.float32)) == 0
    assert np.all(zeros == zeros[..., :1])
    rows, columns = zeros[..., 0].any(2), zeros[..., 0].any(1)
    np.testing.assert_array_equal(zeros[..., 0], rows[:, :, None] & columns[:, None, :])
    for n, inside in zip(shape, (rows, columns), strict=False):
        half = int(n / 2 + 0.5)
        spans = {
            tuple(np.isin(np.arange(n), np.arange(half) + center - half // 2))
            for center in range(n + 1 - half % 2)
        }
        assert {tuple(row) for row in inside} == spans


@pytest.mark.parametrize('policies', [(), ('colour',), ('color', 'color')])
def test_policies_that_are_none_are_refused(policies):
    with pytest.raises(InputError, match=r'^policies: .* must name some of color, translation, cu'):
        diff_augment(DataSpec((8, 8, 1)), policies)
