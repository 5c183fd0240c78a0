"""A multilayer perceptron that names what x is, for vectors and small images.

    (1) h_0 = x,   h_{i+1} = drop(silu(W_i h_i + b_i)),   features f = h_n before its drop
    (2) logits  l = W drop(f) + b

It knows nothing of which pixels are neighbors; `resnet.py` does.
"""

import flax.linen as nn

from gen_jax.errors import InputError
from gen_jax.networks.layers import Dropout
from gen_jax.types import Array


class DenseClassifier(nn.Module):
    """Layers of `widths` numbers; there are as many features as the last of them. `dropout` is
    after every layer. `dtype` is what is computed in.

    Raises:
      InputError: fields that make no network.
    """

    num_classes: int
    widths: tuple[int, ...] = (256, 256)
    dropout: float = 0.0
    dtype: str = 'float32'

    def __post_init__(self):
        if not self.widths or any(not isinstance(w, int) or w < 1 for w in self.widths):
            raise InputError(f'widths: {self.widths} must be whole numbers from 1 on')
        if not 0 <= self.dropout < 1:
            raise InputError(f'dropout: {self.dropout} must be from 0 to below 1')
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> tuple[Array, Array]:
        """Features `[B, D]` and logits `[B, num_classes]` of x, float32 `[B, ...]`.

        `train` says whether to drop numbers out; draws from the 'dropout' key.
        """
        kept = x.reshape(len(x), -1)
        for i, width in enumerate(self.widths):
            features = nn.silu(nn.Dense(width, dtype=self.dtype, name=f'dense_{i}')(kept))
            kept = Dropout(self.dropout)(features, train=train)
        logits = nn.Dense(self.num_classes, dtype=self.dtype, name='out')(kept)
        return features.astype('float32'), logits.astype('float32')
