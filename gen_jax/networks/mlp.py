"""A residual multilayer perceptron for vectors, with time and label, for diffusion of points.

    (1) e = W2 silu(W1 sinusoids(1000 t)) [+ label table]
    (2) h_0 = W x,   h_{i+1} = h_i + W0 silu(W silu(norm(h_i)) + W e),   y = W0 norm(h_n)

with W0 zero at the start and norm that of Ba et al. 2016 (layer normalization).
"""

import functools

import flax.linen as nn
import jax.numpy as jnp

from gen_jax.errors import InputError
from gen_jax.networks.layers import (
    INTO_BRANCH,
    OUT_OF_BRANCH,
    dense,
    timestep_embedding,
    zero_init,
)
from gen_jax.types import Array

lecun_init = nn.initializers.lecun_normal()


class Block(nn.Module):
    """A step of equation (2): h `[B, width]` and silu(e) `[B, width]` to the next h."""

    width: int
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, h: Array, e: Array) -> Array:
        layer = functools.partial(dense, self.width, init=lecun_init, dtype=self.dtype)
        branch = nn.silu(nn.LayerNorm(dtype=self.dtype, name='norm')(h))
        branch = layer(INTO_BRANCH, name='dense_0')(branch)
        branch = branch + layer(INTO_BRANCH, name='embedding')(e)
        return h + layer(OUT_OF_BRANCH, init=zero_init, name='dense_1')(nn.silu(branch))


class MLP(nn.Module):
    """Equations (1) and (2): `num_blocks` blocks of `width` numbers.

    `out_channels` None means as many as x has. With `num_classes` K the label table has K + 1 rows;
    row K stands for 'no label'. `dtype` is what is computed in. `remat` computes a block anew in
    the backward pass instead of keeping what it computed: less memory, more time. `scan` runs the
    blocks as one loop over parameters `[num_blocks, ...]`: the program, and the time to compile
    it, do not grow with `num_blocks`.

    Raises:
      InputError: fields that make no network.
    """

    width: int = 256
    num_blocks: int = 4
    out_channels: int | None = None
    num_classes: int | None = None
    dtype: str = 'float32'
    remat: bool = False
    scan: bool = False

    def __post_init__(self):
        if self.width < 4 or self.width % 2:
            raise InputError(f'width: {self.width} must be even, and at least 4')
        if self.num_blocks < 1:
            raise InputError(f'num_blocks: {self.num_blocks} must be at least 1')
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Array, t: Array, label: Array | None = None, *, train: bool) -> Array:
        """Predicts from noisy x float32 `[B, D]`, its time t `[B]` and label int32 `[B]` or None.

        `train` changes nothing here. Returns float32 `[B, out_channels]`.
        """
        e = self._embed(t, label)
        h = nn.Dense(self.width, dtype=self.dtype, name='in')(x)
        h = self._run_blocks(h, nn.silu(e))
        h = nn.LayerNorm(dtype=self.dtype, name='norm_out')(h)
        out = self.out_channels or x.shape[-1]
        y = nn.Dense(out, kernel_init=zero_init, dtype=self.dtype, name='out')(h)
        return y.astype('float32')

    def _embed(self, t: Array, label: Array | None) -> Array:
        """Equation (1): t `[B]` to `[B, width]`."""
        layer = functools.partial(dense, self.width, init=lecun_init, dtype=self.dtype)
        e = layer(INTO_BRANCH, name='time_0')(timestep_embedding(t, self.width))
        e = layer(OUT_OF_BRANCH, name='time_1')(nn.silu(e))
        if self.num_classes is None:
            return e
        if label is None:
            label = jnp.full(t.shape, self.num_classes)
        table = nn.Embed(self.num_classes + 1, self.width, dtype=self.dtype, name='label')
        return e + table(label)

    def _run_blocks(self, h: Array, e: Array) -> Array:
        """All of equation (2) between the first layer and the last."""
        block = Block
        if self.remat:
            # A loop keeps the two computations apart; without one the compiler would merge them.
            block = nn.remat(Block, prevent_cse=not self.scan)
        block = functools.partial(block, self.width, self.dtype)
        if not self.scan:
            for i in range(self.num_blocks):
                h = block(name=f'block_{i}')(h, e)
            return h
        loop = nn.scan(
            lambda block, h, e: (block(h, e), None),
            variable_axes={'params': 0},
            split_rngs={'params': True, 'dropout': True},
            in_axes=nn.broadcast,
            length=self.num_blocks,
            metadata_params={nn.PARTITION_NAME: 'layers'},
        )
        return loop(block(name='blocks'), h, e)[0]
