"""The pipeline of ADA: what happens to images, how often, and how much."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.spatial.transform import Rotation

from gen_jax.augmentations.ada import (
    ada,
    color_matrices,
    geometry_maps,
    recolored,
)
from gen_jax.errors import InputError
from gen_jax.types import DataSpec

NUM = 1000


def is_share(happens: np.ndarray, share: float) -> bool:
    return abs(np.mean(happens) - share) < 4 * np.sqrt(share * (1 - share) / len(happens))


def follows(drawn: np.ndarray, law) -> bool:
    return stats.kstest(drawn, law.cdf).pvalue > 1e-3


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


@pytest.mark.parametrize('xflip', [True, False])
def test_blits_are_flips_turns_and_shifts_as_numpy_does_them(xflip):
    x, p = images(8, 8, 2), 0.6
    apply = ada(DataSpec(x.shape), geometry=False, color=False, xflip=xflip).apply
    y = np.asarray(apply(jnp.broadcast_to(x, (NUM, *x.shape)), jax.random.key(0), p))
    ways = list(itertools.product((False, True), range(4), (-1, 0, 1), (-1, 0, 1)))

    def by_numpy(flip: bool, quarters: int, down: int, right: int) -> np.ndarray:
        turned = np.rot90(x[:, ::-1] if flip else x, quarters)
        around = np.pad(turned, ((1, 1), (1, 1), (0, 0)), 'reflect')
        return around[1 - down : 9 - down, 1 - right : 9 - right]

    same = np.all(y[:, None] == np.stack([by_numpy(*way) for way in ways]), axis=(2, 3, 4))
    assert np.all(same.sum(1) == 1)
    flip, quarters, down, right = np.array(ways)[same.argmax(1)].T
    assert is_share(flip, p / 2) if xflip else not flip.any()
    for k in (1, 2, 3):
        assert is_share(quarters == k, p / 4)
    # U(-1, 1), rounded.
    for shift in (down, right):
        assert is_share(shift == -1, p / 4) and is_share(shift == 1, p / 4)


def test_quarters_of_a_turn_of_images_that_are_not_square_are_pixels_of_theirs():
    x = np.arange(8 * 7, dtype=np.float32).reshape(1, 8, 7, 1)
    apply = ada(DataSpec((8, 7, 1)), geometry=False, color=False).apply
    y = apply(np.broadcast_to(x, (40, 8, 7, 1)), jax.random.key(0), 1.0)
    assert np.all(np.isin(y, x)) and np.any(np.diff(y[..., 0], axis=1) == 1)


def test_geometry_is_two_scalings_two_rotations_and_a_shift():
    size = np.array((8, 16))
    for p in (1.0, 0.4):
        maps = np.float64(geometry_maps(jax.random.key(1), p, NUM, tuple(size)))
        np.testing.assert_array_equal(maps[:, 2], np.broadcast_to([0, 0, 1], (NUM, 3)))
        linear = maps[:, :2, :2]
        left, sizes, right = np.linalg.svd(linear)
        scale, stretch = -np.log2(np.linalg.det(linear)) / 2, np.log2(sizes[:, 0] / sizes[:, 1]) / 2
        turn = left @ right
        angle = np.arctan2(turn[:, 0, 1], turn[:, 0, 0])
        shift = -np.linalg.solve(linear, maps[:, :2, 2:])[..., 0] / size
        if p == 1:
            assert follows(scale, stats.norm(scale=0.2))
            assert follows(stretch, stats.halfnorm(scale=0.2))
            assert follows(angle, stats.uniform(-np.pi, 2 * np.pi))
            # What was stretched last lies along the axes that the first rotation made.
            assert follows(
                np.arctan2(left[:, 1, 0], left[:, 0, 0]) % np.pi, stats.uniform(0, np.pi)
            )
            for axis in range(2):
                assert follows(shift[:, axis], stats.norm(scale=1 / 8))
        else:
            is_round = stretch < 1e-4
            assert is_share(np.abs(scale) > 1e-6, p) and is_share(~is_round, p)
            assert is_share(np.abs(angle[is_round]) > 1e-6, p)
            assert is_share(np.any(shift != 0, 1), p)


def test_colors_are_by_hand_what_the_paper_says():
    num, axis = NUM, np.full(3, 3**-0.5)
    luma = np.outer(axis, axis)
    for p in (1.0, 0.4):
        matrices = np.float64(color_matrices(jax.random.key(2), p, num, 3))
        matrix, shift = matrices[:, :3, :3], matrices[:, :3, 3]
        # One vector across the axis tells hue and saturation, the axis all else.
        across = np.array([1, -1, 0]) / np.sqrt(2)
        signed, moved = matrix @ axis @ axis, matrix @ across
        brightness = shift @ axis / np.sqrt(3) / signed
        contrast, saturation = np.abs(signed), np.linalg.norm(moved, axis=1) / np.abs(signed)
        angle = np.arctan2(moved @ np.cross(axis, across), moved @ across)
        for k in range(num):
            flip = np.eye(3) - 2 * luma * (signed[k] < 0)
            hue = Rotation.from_rotvec(angle[k] * axis).as_matrix()
            saturate = luma + saturation[k] * (np.eye(3) - luma)
            expected = saturate @ hue @ flip * contrast[k]
            np.testing.assert_allclose(matrix[k], expected, atol=1e-4)
            np.testing.assert_allclose(shift[k], expected @ np.full(3, brightness[k]), atol=1e-5)
        laws = {'brightness': (brightness, 0.2), 'contrast': (np.log2(contrast), 0.5)}
        laws['saturation'] = (np.log2(saturation), 1)
        for drawn, deviation in laws.values():
            assert (
                is_share(np.abs(drawn) > 1e-5, p)
                if p < 1
                else follows(drawn, stats.norm(scale=deviation))
            )
        assert (
            is_share(np.abs(angle) > 1e-5, p)
            if p < 1
            else follows(angle, stats.uniform(-np.pi, 2 * np.pi))
        )
        assert is_share(signed < 0, p / 2)


def test_gray_images_have_brightness_contrast_and_the_flip_of_luma():
    matrices = np.float64(color_matrices(jax.random.key(3), 1.0, NUM, 1))
    np.testing.assert_array_equal(matrices[:, 1], np.broadcast_to([0, 1], (NUM, 2)))
    signed, shift = matrices[:, 0].T
    assert follows(np.log2(np.abs(signed)), stats.norm(scale=0.5)) and is_share(signed < 0, 0.5)
    assert follows(shift / signed, stats.norm(scale=0.2))


@pytest.mark.parametrize('channels', [1, 3])
def test_recolored_is_numpys_product(channels):
    x = images(3, 4, 5, channels)
    matrices = np.array(color_matrices(jax.random.key(4), 1.0, 3, channels))
    for image, matrix, y in zip(x, matrices, recolored(x, matrices), strict=True):
        with_one = np.concatenate([image, np.ones((4, 5, 1))], -1)
        np.testing.assert_allclose(y, (with_one @ matrix.T)[..., :-1], atol=1e-5)


def test_what_nothing_happens_to_is_x_itself_and_as_often_as_chance_has_it():
    p = 0.1
    x = images(NUM, 8, 8, 1)
    y = jax.jit(ada(DataSpec((8, 8, 1))).apply)(x, jax.random.key(5), p)
    untouched = np.all(y == x, axis=(1, 2, 3))
    of_blit = (1 - p / 2) * (1 - 3 * p / 4) * (1 - 3 * p / 4)
    of_geometry = (1 - p) ** 4  # the two rotations together are one
    of_color = (1 - p) ** 2 * (1 - p / 2)
    assert is_share(untouched, of_blit * of_geometry * of_color)


def test_geometry_is_of_the_blitted_image():
    """In an image of 3 x 3 there is no pixel to shift by, so that one step does what two do."""
    x, key, spec = images(6, 3, 3, 1), jax.random.key(6), DataSpec((3, 3, 1))
    both, first, second = (
        jax.jit(ada(spec, blit=blit, geometry=geometry, color=False).apply)
        for blit, geometry in ((True, True), (True, False), (False, True))
    )
    np.testing.assert_allclose(both(x, key, 1.0), second(first(x, key, 1.0), key, 1.0), atol=1e-4)
    assert np.abs(both(x, key, 1.0) - first(second(x, key, 1.0), key, 1.0)).max() > 0.1


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'target': 1.0}, r'^target: 1\.0 must be between -1 and 1'),
        ({'steps': 0}, r'^steps: 0 must be at least 1'),
        ({'p_max': 0.0}, r'^p_max: 0\.0 must be above 0'),
        (
            {'blit': False, 'geometry': False, 'color': False},
            '^blit, geometry, color: all are False',
        ),
        ({}, '^color: .* these images have 2; set it to False'),
    ],
)
def test_numbers_that_make_no_augmentation_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        ada(DataSpec((8, 8, 2)), **options)
