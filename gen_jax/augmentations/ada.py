"""Adaptive discriminator augmentation (ADA; Karras et al. 2020a): the pipeline 'bgc' of the paper.

A transform happens to an image with probability p, each by itself, in this order (appendix B), with
g ~ N(0, 1) and sizes H x W:

    (1) blit      x-flip with probability 1/2; a turn by 0, 90, 180 or 270 degrees; a translation by
                  whole pixels, U(-1/8, 1/8) of the size
    (2) geometry  scaling by 2^(0.2 g); a rotation; scaling by 2^(0.2 g) down and the inverse
                  across; a rotation; a translation by g / 8 of the size. A rotation is by U(-pi,
                  pi), with the probability 1 - sqrt(1 - p), so that one of the two happens with
                  probability p
    (3) color     v = (1, 1, 1) / sqrt(3), the axis of luma, P = v v^T:
                  brightness  x + 0.2 g                 contrast    2^(0.5 g) x
                  luma flip   (I - 2 P) x with probability 1/2
                  hue         a rotation about v by U(-pi, pi)
                  saturation  (P + 2^g (I - P)) x

(1) and (2) together are one affine map, and (3) is one matrix. A p below about 0.8 does not leak
into what is made: each transform leaves some images as they are, so that those stay the likeliest.

Images of one channel have no hue and no saturation. What (2) leaves alone is moved by whole pixels,
and exactly; the original filters it too.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from gen_jax.augmentations.augmentation import Augmentation, Rule, check_images
from gen_jax.augmentations.warping import moved, rotation, scaling, translation, warped
from gen_jax.errors import InputError
from gen_jax.types import Array, DataSpec, Key

_product = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)


def ada(
    spec: DataSpec,
    target: float | None = 0.6,
    steps: int = 7_800,
    p_max: float = 1.0,
    blit: bool = True,
    geometry: bool = True,
    color: bool = True,
    xflip: bool = True,
) -> Augmentation:
    """Those of (1), (2), (3) that are wanted.

    p moves by 1 / `steps` in a training step, up to `p_max`; the default is the 500k images of the
    paper, in batches of 64. Without a `target` it goes along half a cosine to `p_max` instead, over
    so many steps. Without `xflip`, (1) does not mirror: for images whose mirror images are others,
    as of digits and letters.

    Raises:
      InputError: data that is not images, or numbers that make no augmentation.
    """
    check_images('ada', spec)
    if target is not None and not -1 < target < 1:
        raise InputError(f'target: {target} must be between -1 and 1, as E[sign D(x)] is')
    if steps < 1:
        raise InputError(f'steps: {steps} must be at least 1')
    if not 0 < p_max <= 1:
        raise InputError(f'p_max: {p_max} must be above 0 and at most 1, as a probability is')
    if not (blit or geometry or color):
        raise InputError('blit, geometry, color: all are False; set one of them to True')
    channels = spec.shape[-1]
    if color and channels not in (1, 3):
        raise InputError(
            f'color: it is for 1 or 3 channels, and these images have {channels}; set it to False'
        )

    def apply(x: Array, key: Key, strength: Array) -> Array:
        of_blit, of_geometry, of_color = jax.random.split(key, 3)
        num, size = len(x), x.shape[1:3]
        pixels, result = jnp.eye(3), x
        if blit:
            pixels = blit_maps(of_blit, strength, num, size, xflip)
            result = moved(x, pixels)
        if geometry:
            places = geometry_maps(of_geometry, strength, num, size)
            result = _where_changed(places, warped(x, _product(pixels, places)), result)
        if color:
            colors = color_matrices(of_color, strength, num, channels)
            result = _where_changed(colors, recolored(result, colors), result)
        return result

    return Augmentation(apply, Rule(target, steps, p_max))


def blit_maps(key: Key, strength: Array, num: int, size: tuple[int, int], xflip: bool) -> Array:
    """The maps (1), `[num, 3, 3]`, of `warping`: of pixels to pixels.

    Where height and width differ, and one of them is odd, a turn reads the nearest pixels.
    """
    chance, (which_flip, which_turn, *where) = _uniform(key, num, 3, 4)
    flips, turns, shifts = chance < strength
    quarters = jnp.where(turns, jnp.floor(4 * which_turn), 0).astype(jnp.int32)
    maps = rotation(jnp.array([1, 0, -1, 0])[quarters], jnp.array([0, 1, 0, -1])[quarters])
    if xflip:
        mirror = jnp.where(flips & (which_flip < 0.5), -1, 1)
        maps = _product(scaling(1, mirror), maps)
    rows, columns = (
        jnp.where(shifts, jnp.round(n * (u - 0.5) / 4), 0) for n, u in zip(size, where, strict=True)
    )
    return _product(maps, translation(rows, columns))


def geometry_maps(key: Key, strength: Array, num: int, size: tuple[int, int]) -> Array:
    """The maps (2), `[num, 3, 3]`, of `warping`."""
    of_uniform, of_normal = jax.random.split(key)
    chance, turn = _uniform(of_uniform, num, 5, 2)
    scales, stretches, shifts = chance[:3] < strength
    normal = jax.random.normal(of_normal, (4, num))
    scale = jnp.exp2(jnp.where(scales, 0.2 * normal[0], 0))
    stretch = jnp.exp2(jnp.where(stretches, 0.2 * normal[1], 0))
    rows, columns = jnp.where(shifts, normal[2:] / 8 * np.array(size)[:, None], 0)
    angle = jnp.where(chance[3:] < 1 - jnp.sqrt(1 - strength), _angle(turn), 0)
    before, after = (rotation(jnp.cos(one), jnp.sin(one)) for one in angle)
    maps = (scaling(scale, scale), before, scaling(stretch, 1 / stretch), after)
    return functools.reduce(_product, (*maps, translation(rows, columns)))


def color_matrices(key: Key, strength: Array, num: int, channels: int) -> Array:
    """The matrices (3), `[num, channels + 1, channels + 1]`, of (color, 1); 1 or 3 channels."""
    of_uniform, of_normal = jax.random.split(key)
    chance, (which, turn) = _uniform(of_uniform, num, 5, 2)
    happens = (chance < strength)[:, :, None, None]
    normal = jax.random.normal(of_normal, (3, num, 1, 1))
    brightness, contrast, saturation = jnp.where(happens[:3], normal, 0)
    flip = jnp.where(happens[3] & (which[:, None, None] < 0.5), 2, 0)
    identity, luma = np.eye(channels), np.full((channels, channels), 1 / channels)
    matrix = jnp.exp2(0.5 * contrast) * (identity - flip * luma)
    if channels == 3:
        angle = jnp.where(happens[4], _angle(turn)[:, None, None], 0)
        cross = np.cross(np.full(3, 3**-0.5), np.eye(3)).T  # cross @ x is v x x
        hue = jnp.cos(angle) * identity + jnp.sin(angle) * cross + (1 - jnp.cos(angle)) * luma
        saturation = jnp.exp2(saturation)
        saturated = saturation * identity + (1 - saturation) * luma
        matrix = _product(saturated, _product(hue, matrix))
    # Brightness comes first: all that follows multiplies it too.
    shift = 0.2 * brightness * matrix.sum(-1, keepdims=True)
    last = jnp.broadcast_to(jnp.eye(channels + 1)[-1:], (num, 1, channels + 1))
    return jnp.concatenate([jnp.concatenate([matrix, shift], -1), last], 1)


def recolored(x: Array, matrix: Array) -> Array:
    """Each image of x `[B, H, W, C]`, its colors multiplied by its matrix `[B, C + 1, C + 1]`."""
    mixed = jnp.einsum(
        'bhwc,bdc->bhwd', x, matrix[:, :-1, :-1], precision=jax.lax.Precision.HIGHEST
    )
    return mixed + matrix[:, None, None, :-1, -1]


def _uniform(key: Key, num: int, chances: int, choices: int) -> tuple[Array, Array]:
    """Numbers from U(0, 1): `[chances, num]`, what happens to a row, and `[choices, num]`, how.

    All are drawn at once, as each call of the generator takes long to compile.
    """
    drawn = jax.random.uniform(key, (chances + choices, num))
    return drawn[:chances], drawn[chances:]


def _angle(uniform: Array) -> Array:
    return jnp.pi * (2 * uniform - 1)


def _where_changed(matrix: Array, changed: Array, x: Array) -> Array:
    """`changed` in the rows whose matrix is not the identity, to the last bit; else x."""
    is_changed = jnp.any(matrix != jnp.eye(matrix.shape[-1]), (1, 2))
    return jnp.where(is_changed[:, None, None, None], changed, x)
