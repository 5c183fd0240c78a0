"""Multilayer perceptrons for a game of two players over vectors, such as points of the plane.

    (1) generator      h_0 = z,   h_{i+1} = f(W h_i + b),   x = W h_n + b
    (2) discriminator  h_0 = x,   h_{i+1} = f(W h_i + b),   logit = <v, h_n> + b

The widths are those of Gulrajani et al. 2017 for points of the plane. With labels, an embedding of
one is beside z in (1), of as many numbers; and in (2) the logit of class k is <v + e_k, h_n> + b, a
projection (Miyato & Koyama 2018).
"""

import functools
import math

import flax.linen as nn
import jax.numpy as jnp

from gen_jax.errors import InputError
from gen_jax.networks import autoencoder
from gen_jax.types import Array

ACTIVATIONS = {
    **autoencoder.ACTIVATIONS,
    'leaky_relu': functools.partial(nn.leaky_relu, negative_slope=0.2),
}


class Generator(nn.Module):
    """Equation (1): layers of `widths` numbers, to examples of this `shape`.

    With `num_classes` K labels are in [0, K). `dtype` is what is computed in. `remat` computes a
    layer anew in the backward pass instead of keeping what it computed: less memory, more time.

    Raises:
      InputError: fields that make no network.
    """

    shape: tuple[int, ...]
    latent_channels: int
    num_classes: int | None = None
    widths: tuple[int, ...] = (512, 512, 512)
    activation: str = 'relu'
    dtype: str = 'float32'
    remat: bool = False

    def __post_init__(self):
        _check(self.widths, self.activation)
        super().__post_init__()

    @nn.compact
    def __call__(self, z: Array, label: Array | None = None, *, train: bool) -> Array:
        """Examples float32 `[B, *shape]` of z float32 `[B, latent_channels]` and label int32 `[B]`
        or None. `train` changes nothing here."""
        if self.num_classes is not None:
            init = nn.initializers.normal(1.0)
            table = nn.Embed(self.num_classes, z.shape[-1], embedding_init=init, name='label')
            z = jnp.concatenate([z, table(label)], -1)
        h = _run(self, z)
        out = nn.Dense(math.prod(self.shape), dtype=self.dtype, name='out')(h)
        return out.reshape(len(z), *self.shape).astype('float32')


class Discriminator(nn.Module):
    """Equation (2): layers of `widths` numbers.

    With `num_classes` K labels are in [0, K). `dtype` is what is computed in. `remat` computes a
    layer anew in the backward pass instead of keeping what it computed: less memory, more time.

    Raises:
      InputError: fields that make no network.
    """

    num_classes: int | None = None
    widths: tuple[int, ...] = (512, 512, 512)
    activation: str = 'relu'
    dtype: str = 'float32'
    remat: bool = False

    def __post_init__(self):
        _check(self.widths, self.activation)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Array, label: Array | None = None, *, train: bool) -> Array:
        """Logits float32 `[B]` of x float32 `[B, ...]` and label int32 `[B]` or None. `train`
        changes nothing here."""
        # A game lives on differences of logits, which half precision would round away.
        h = _run(self, x.reshape(len(x), -1)).astype('float32')
        logits = nn.Dense(1, name='out')(h)[:, 0]
        if self.num_classes is None:
            return logits
        table = nn.Embed(self.num_classes, h.shape[-1], name='label')
        return logits + jnp.sum(table(label) * h, -1)


class Layer(nn.Module):
    """f(W h + b)."""

    features: int
    activation: str
    dtype: str

    @nn.compact
    def __call__(self, h: Array) -> Array:
        return ACTIVATIONS[self.activation](nn.Dense(self.features, dtype=self.dtype)(h))


def _run(network: Generator | Discriminator, h: Array) -> Array:
    """All layers of `network` but the last."""
    layer = nn.remat(Layer) if network.remat else Layer
    for i, width in enumerate(network.widths):
        h = layer(width, network.activation, network.dtype, name=f'block_{i}')(h)
    return h


def _check(widths: tuple[int, ...], activation: str) -> None:
    if not widths or any(not isinstance(w, int) or w < 1 for w in widths):
        raise InputError(f'widths: {widths} must be whole numbers from 1 on')
    if activation not in ACTIVATIONS:
        raise InputError(f'activation: no {activation!r}; choose from {", ".join(ACTIVATIONS)}')
