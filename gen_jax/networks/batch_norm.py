"""Batch normalization (Ioffe & Szegedy 2015), with a scale and a shift for each class if asked.

    (1) y = a (x - m) / sqrt(v + epsilon) + b

In training m and v are the mean and the variance of a channel over the batch and over space, and
running ones follow them, r <- 0.9 r + 0.1 m, v too, which stand for them elsewhere. With classes a
and b are those of an example's class (Dumoulin et al. 2017; Miyato et al. 2018).

The running variance follows the unbiased estimate, as PyTorch's does and flax's does not. Flax's
layer takes a third longer on a CPU, and always updates where it normalizes by the batch; this one
only where the caller keeps what it updates.
"""

import flax.linen as nn
import jax.numpy as jnp
from jax import lax

from gen_jax.types import Array

_MOMENTUM, _EPSILON = 0.9, 1e-5


class BatchNorm(nn.Module):
    """Equation (1) of x `[B, ..., C]`; the running mean and variance are in `batch_stats`.

    With `num_classes` K labels are in [0, K). `train` says to normalize by the batch; the running
    statistics are updated where `batch_stats` is mutable then.
    """

    num_classes: int | None = None
    scale_init: nn.initializers.Initializer = nn.initializers.ones_init()

    @nn.compact
    def __call__(self, x: Array, label: Array | None = None, *, train: bool) -> Array:
        channels, count = x.shape[-1], x.size // x.shape[-1]
        classes = () if self.num_classes is None else (self.num_classes,)
        scale = self.param('scale', self.scale_init, (*classes, channels))
        bias = self.param('bias', nn.initializers.zeros_init(), (*classes, channels))
        running_mean = self.variable('batch_stats', 'mean', jnp.zeros, (channels,))
        running_variance = self.variable('batch_stats', 'variance', jnp.ones, (channels,))
        wide = x.astype(jnp.float32)
        if train:
            # One pass over x for both sums.
            outer = tuple(range(x.ndim - 1))
            mean, square = wide.sum(outer) / count, (wide * wide).sum(outer) / count
            variance = jnp.maximum(square - mean * mean, 0)
            if self.is_mutable_collection('batch_stats') and not self.is_initializing():
                unbiased = variance * (count / max(count - 1, 1))
                running_mean.value += (1 - _MOMENTUM) * (mean - running_mean.value)
                running_variance.value += (1 - _MOMENTUM) * (unbiased - running_variance.value)
        else:
            mean, variance = running_mean.value, running_variance.value
        if self.num_classes is not None:
            scale, bias = (
                table[label].reshape(len(x), *(1 for _ in x.shape[1:-1]), channels)
                for table in (scale, bias)
            )
        gain = lax.rsqrt(variance + _EPSILON) * scale
        return (wide * gain + (bias - mean * gain)).astype(x.dtype)
