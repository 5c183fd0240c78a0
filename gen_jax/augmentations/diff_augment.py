"""DiffAugment: differentiable augmentation that is always on (Zhao et al. 2020).

Of an image x in [-1, 1], m its mean over channels at each pixel, M its mean over all numbers:

    (1) color        x + b,              b ~ U(-1/2, 1/2)        brightness
                     m + s (x - m),      s ~ U(0, 2)             saturation
                     M + c (x - M),      c ~ U(1/2, 3/2)         contrast
    (2) translation  by whole pixels, up to 1/8 of the size each way, zeros where nothing was
    (3) cutout       zeros in a rectangle of half the size, whose center is anywhere
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gen_jax.augmentations.augmentation import Augmentation, check_images
from gen_jax.errors import InputError
from gen_jax.types import Array, DataSpec, Key

# Shares of the size of an image.
_FARTHEST, _CUTOUT = 1 / 8, 1 / 2


def diff_augment(
    spec: DataSpec, policies: tuple[str, ...] = ('color', 'translation', 'cutout')
) -> Augmentation:
    """Those of (1), (2), (3) that `policies` names, in its order.

    Raises:
      InputError: data that is not images, or policies that are none.
    """
    check_images('diff_augment', spec)
    unknown = [policy for policy in policies if policy not in _POLICIES]
    if not policies or unknown or len(set(policies)) < len(policies):
        raise InputError(
            f'policies: {tuple(policies)!r} must name some of {", ".join(_POLICIES)}, each once'
        )

    def apply(x: Array, key: Key, strength: Array) -> Array:
        for policy, its_key in zip(policies, jax.random.split(key, len(policies)), strict=True):
            when, what = jax.random.split(its_key)
            happens = jax.random.uniform(when, (len(x), 1, 1, 1)) < strength
            x = jnp.where(happens, _POLICIES[policy](x, what), x)
        return x

    return Augmentation(apply)


def color(x: Array, key: Key) -> Array:
    """Equation (1)."""
    brightness, saturation, contrast = jax.random.uniform(key, (3, len(x), 1, 1, 1))
    x = x + brightness - 0.5
    mean = x.mean(-1, keepdims=True)
    x = mean + 2 * saturation * (x - mean)
    mean = x.mean((1, 2, 3), keepdims=True)
    return mean + (0.5 + contrast) * (x - mean)


def translation(x: Array, key: Key) -> Array:
    """Equation (2)."""
    most = [_share(n, _FARTHEST) for n in x.shape[1:3]]
    padded = jnp.pad(x, ((0, 0), *((n, n) for n in most), (0, 0)))
    counts = 2 * np.array(most)[:, None] + 1
    rows, columns = jax.random.randint(key, (2, len(x)), 0, counts)
    size = x.shape[1:]
    cut = jax.vmap(lambda x, row, column: lax.dynamic_slice(x, (row, column, 0), size))
    return cut(padded, rows, columns)


def cutout(x: Array, key: Key) -> Array:
    """Equation (3)."""
    sizes = [_share(n, _CUTOUT) for n in x.shape[1:3]]
    # Of an even size the center lies between pixels, so that there is one place more.
    counts = np.array([n + 1 - size % 2 for n, size in zip(x.shape[1:3], sizes, strict=True)])
    centers = jax.random.randint(key, (2, len(x), 1), 0, counts[:, None, None])
    rows, columns = (
        (jnp.arange(n) >= center - size // 2) & (jnp.arange(n) < center - size // 2 + size)
        for n, size, center in zip(x.shape[1:3], sizes, centers, strict=True)
    )
    return jnp.where((rows[:, :, None] & columns[:, None, :])[..., None], 0, x)


def _share(n: int, share: float) -> int:
    return int(n * share + 0.5)


_POLICIES = {'color': color, 'translation': translation, 'cutout': cutout}
