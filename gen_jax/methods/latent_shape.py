"""What shape latents have, found out from a network without computing anything."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from gen_jax.errors import InputError
from gen_jax.types import DataSpec


def latent_shape_of(
    network: nn.Module, spec: DataSpec, num_classes: int | None, latent_channels: int
) -> tuple[int, ...]:
    """The shape of one example's latents, from that of the network's code.

    Raises:
      InputError: the network is no autoencoder.
    """
    if not hasattr(network, 'encode'):
        raise InputError(
            'networks.autoencoder.name: this network does not encode; use '
            "'autoencoder.ConvAutoencoder' or 'autoencoder.MLPAutoencoder'"
        )
    x = jnp.zeros((1, *spec.shape))
    label = None if num_classes is None else jnp.zeros(1, jnp.int32)
    encode = functools.partial(network.init_with_output, train=False, method='encode')
    code, _ = jax.eval_shape(encode, jax.random.key(0), x, label)
    return (*code.shape[1:-1], latent_channels)
