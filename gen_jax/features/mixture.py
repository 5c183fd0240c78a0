"""Features of points of the plane where the data are a mixture: which center a point belongs to.

A point within three deviations of its nearest center is of that one for certain: probability 1.
Elsewhere nearly all centers are equally likely, the nearest one twice as much as each other, so
that it is still the class of the point. Then the confident points (`metrics/modes.py`) are what is
called high-quality samples where models are tried on these laws (Srivastava et al. 2017), and the
mixture itself has a share of 1 - exp(-9/2) = 0.98889 of them.
"""

import jax.nn
import jax.numpy as jnp
import numpy as np

from gen_jax.data.toy import MIXTURES
from gen_jax.errors import InputError
from gen_jax.features.extractor import Extractor, hash_of
from gen_jax.types import DataSpec

_REACH = 3  # deviations


def mixture(spec: DataSpec, *, law: str | None = None) -> Extractor:
    """The numbers of a point in a row, and the centers of `law` as classes; scores end in its name.

    Raises:
      InputError: examples that are no points of the plane, or a law that is no mixture.
    """
    if law not in MIXTURES:
        raise InputError(f'law: {law!r} is no mixture; choose from {", ".join(MIXTURES)}')
    if spec.shape != (2,):
        raise InputError(f'spec: examples of shape {spec.shape}; a mixture is of points, (2,)')
    centers, deviation = MIXTURES[law]
    num = len(centers)

    def embed(weights, examples):
        points = examples.astype(jnp.float32)
        squares = jnp.sum((points[:, None] - centers.astype(np.float32)) ** 2, -1)
        nearest = jax.nn.one_hot(squares.argmin(1), num)
        is_near = squares.min(1, keepdims=True) <= (_REACH * deviation) ** 2
        return points, jnp.where(is_near, nearest, (1 + nearest) / (num + 1))

    digest = hash_of({'centers': centers, 'deviation': np.float64(deviation)})
    return Extractor(f'FD-{law}', f'-{law}', digest, 'none: the numbers themselves', {}, embed)
