"""Levels and numbers, resizing, and the grid."""

import numpy as np
import pytest
from PIL import Image

from gen_jax.data import pixels
from gen_jax.types import DataSpec


@pytest.mark.parametrize('levels', [2, 17, 256])
def test_levels_map_onto_the_ends_and_back(levels):
    image = np.arange(levels, dtype=np.uint8).reshape(1, levels, 1, 1)
    x = pixels.levels_to_x(image, levels)
    assert x.dtype == np.float32
    assert (x.min(), x.max()) == (-1, 1)
    np.testing.assert_allclose(np.diff(x.ravel()), 2 / (levels - 1), rtol=1e-4)
    spec = DataSpec(image.shape[1:], levels=levels)
    decoded = pixels.x_to_uint8(x, spec).ravel()
    np.testing.assert_array_equal(decoded, np.rint(np.arange(levels) * 255 / (levels - 1)))


@pytest.mark.parametrize('levels', [2, 17, 256])
def test_dequantization_is_uniform_within_the_level_and_decodes_exactly(levels):
    rng = np.random.default_rng(0)
    image = rng.integers(levels, size=(8, 64, 64, 3)).astype(np.uint8)
    bits = rng.integers(2**63, size=8).astype(np.uint64)
    x = pixels.dequantize(image, levels, bits)
    assert x.dtype == np.float32
    assert x.min() > -1
    assert x.max() < 1
    noise = (x.astype(np.float64) + 1) / 2 * levels - image
    assert abs(noise.mean() - 0.5) < 0.01
    assert abs(noise.var() - 1 / 12) < 0.01
    spec = DataSpec(image.shape[1:], levels=levels, dequantized=True)
    plain = pixels.x_to_uint8(pixels.levels_to_x(image, levels), spec._replace(dequantized=False))
    np.testing.assert_array_equal(pixels.x_to_uint8(x, spec), plain)


def test_dequantization_depends_on_the_bits_of_the_row_alone():
    image = np.zeros((3, 4, 4, 1), np.uint8)
    bits = np.array([5, 6, 5], np.uint64)
    x = pixels.dequantize(image, 256, bits)
    np.testing.assert_array_equal(x[0], x[2])
    assert (x[0] != x[1]).any()
    np.testing.assert_array_equal(pixels.dequantize(image[1:], 256, bits[1:]), x[1:])


def test_samples_outside_the_range_are_clipped():
    x = np.array([-3.0, 3.0], np.float32).reshape(1, 2, 1, 1)
    for dequantized in (False, True):
        spec = DataSpec((2, 1, 1), levels=256, dequantized=dequantized)
        assert pixels.x_to_uint8(x, spec).ravel().tolist() == [0, 255]


def test_fit_image_crops_the_middle_without_stretching():
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 255
    square = pixels.fit_image(Image.fromarray(wide), 10, 3)
    assert square.shape == (10, 10, 3)
    assert (square == 255).all()
    assert pixels.fit_image(Image.fromarray(wide), None, 1).shape == (10, 30, 1)


def test_fit_image_converts_alpha_palette_and_16_bits():
    clear = Image.new('RGBA', (4, 4), (0, 0, 0, 0))
    assert (pixels.fit_image(clear, 4, 3) == 255).all()
    palette = Image.new('RGB', (4, 4), (10, 200, 30)).convert('P')
    assert np.abs(pixels.fit_image(palette, 4, 3)[0, 0].astype(int) - [10, 200, 30]).max() < 30
    deep = Image.fromarray(np.full((4, 4), 257 * 100, np.uint16))
    assert (pixels.fit_image(deep, 4, 1) == 100).all()


@pytest.mark.parametrize(('num', 'columns', 'rows'), [(1, 1, 1), (5, 3, 2), (16, 4, 4)])
def test_the_grid_is_nearly_square_and_enlarged(tmp_path, num, columns, rows):
    images = np.arange(num, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 1), np.uint8)
    path = pixels.write_grid(images, tmp_path / 'samples' / 'step_00.5')
    assert path == tmp_path / 'samples' / 'step_00.5.png'
    assert list(path.parent.iterdir()) == [path]
    with Image.open(path) as picture:
        grid = np.asarray(picture)
    assert grid.shape == (rows * 50 + 2, columns * 50 + 2)
    for i in range(num):
        top, left = i // columns * 50 + 2, i % columns * 50 + 2
        assert (grid[top : top + 48, left : left + 48] == i).all()


def test_a_grid_keeps_colors_and_large_images(tmp_path):
    images = np.random.default_rng(0).integers(256, size=(2, 64, 64, 3)).astype(np.uint8)
    with Image.open(pixels.write_grid(images, tmp_path / 'x')) as picture:
        grid = np.asarray(picture)
    np.testing.assert_array_equal(grid[2:66, 68:132], images[1])
