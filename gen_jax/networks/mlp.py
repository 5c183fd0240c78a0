"""A residual multilayer perceptron for vectors, with time and label, for diffusion of points.

    (1) e = W2 silu(W1 sinusoids(1000 t)) [+ label table]
    (2) h_0 = W x,   h_{i+1} = h_i + W0 silu(W silu(norm(h_i)) + W e),   y = W0 norm(h_n)

with W0 zero at the start and norm that of Ba et al. 2016 (layer normalization).
"""

import flax.linen as nn
import jax.numpy as jnp

from gen_jax.errors import InputError
from gen_jax.networks.layers import timestep_embedding, zero_init
from gen_jax.types import Array


class MLP(nn.Module):
    """Equations (1) and (2): `num_blocks` blocks of `width` numbers.

    `out_channels` None means as many as x has. With `num_classes` K the label table has K + 1 rows;
    row K stands for 'no label'.

    Raises:
      InputError: fields that make no network.
    """

    width: int = 256
    num_blocks: int = 4
    out_channels: int | None = None
    num_classes: int | None = None

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
        e = timestep_embedding(t, self.width)
        e = nn.Dense(self.width, name='time_1')(nn.silu(nn.Dense(self.width, name='time_0')(e)))
        if self.num_classes is not None:
            if label is None:
                label = jnp.full(t.shape, self.num_classes)
            table = nn.Embed(self.num_classes + 1, self.width, name='label')
            e = e + table(label)
        e = nn.silu(e)
        h = nn.Dense(self.width, name='in')(x)
        for i in range(self.num_blocks):
            branch = nn.Dense(self.width, name=f'block_{i}_0')(
                nn.silu(nn.LayerNorm(name=f'norm_{i}')(h))
            )
            branch = branch + nn.Dense(self.width, name=f'block_{i}_time')(e)
            h = h + nn.Dense(self.width, kernel_init=zero_init, name=f'block_{i}_1')(
                nn.silu(branch)
            )
        out = self.out_channels or x.shape[-1]
        return nn.Dense(out, kernel_init=zero_init, name='out')(nn.LayerNorm(name='norm_out')(h))
