"""Features of stacked images (`data/stacked.py`): a net of single gray ones looks at each channel.

(1) features        those of the three channels in a row
(2) probabilities   p(i, j, k | x) = p(i | red) p(j | green) p(k | blue), in the order of labels
"""

import jax
import jax.numpy as jnp

from gen_jax.errors import InputError
from gen_jax.features.extractor import Extractor, hash_of
from gen_jax.features.feature_net import feature_net
from gen_jax.types import Array, DataSpec, Tree


def stacked(spec: DataSpec, *, weights: str | None = None) -> Extractor:
    """(1), float32 `[B, 3 D]`, and (2), float32 `[B, K^3]`, of the net that `weights` names; see
    `feature_net`.

    Raises:
      InputError: images that are not stacked, or a net that is not of the images they are made of.
    """
    if len(spec.shape) != 3 or spec.shape[-1] != 3:
        raise InputError(
            f'spec: examples of shape {spec.shape} are no stacked images, [height, width, 3]; set '
            'data.stacked to True, or use feature_net.feature_net'
        )
    net = feature_net(spec._replace(shape=(*spec.shape[:-1], 1)), weights=weights)
    one = jax.ShapeDtypeStruct((1, *spec.shape[:-1], 1), jnp.uint8)
    num_classes = jax.eval_shape(net.embed, net.weights, one)[1].shape[-1]
    if spec.num_classes != num_classes**3:
        raise InputError(
            f'weights: {weights} knows {num_classes} classes, which make {num_classes**3} stacked, '
            f'and this data has {spec.num_classes or "none"}; set data.stacked to True, or train a '
            'feature net on the images that are stacked'
        )

    def embed(params: Tree, images: Array) -> tuple[Array, Array]:
        channels = jnp.moveaxis(images, -1, 1)[..., None]  # [B, 3, H, W, 1]
        size = len(images)
        features, p = net.embed(params, channels.reshape(3 * size, *channels.shape[2:]))
        p = p.reshape(size, 3, num_classes)
        together = p[:, 0, :, None, None] * p[:, 1, None, :, None] * p[:, 2, None, None, :]
        return features.reshape(size, -1), together.reshape(size, -1)

    digest = hash_of({}, f'stacked {net.hash}')
    suffix = f'-{digest[:8]}'
    preprocessing = f'{net.preprocessing}; channel by channel'
    return Extractor(f'FD{suffix}', suffix, digest, preprocessing, net.weights, embed)
