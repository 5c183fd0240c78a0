"""Inception-v3 (Szegedy et al. 2016, arXiv:1512.00567), as a fixed extractor of features.

Batch normalization is folded into the convolutions, so that each layer and each pooling branch is

    (1) y = relu(conv(x, kernel) + bias)
    (2) y = relu(pool(x) W + bias) = relu(pool(x W) + bias),   pool the average over 3 x 3 pixels

Names of layers are those of the graph published on 2015-12-05, on which FID is defined (Heusel et
al. 2017). That network and torchvision's differ in their pools: see `Inception`.

XLA's CPU backend is good at these convolutions as they are, but not at window reductions: a pool
as a maximum or sum of nine shifted images takes a tenth to a third of the time. By (2) all 1 x 1
convolutions of a block are one matrix product, and the pool sees fewer channels.
"""

import functools
import operator

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import lax

from gen_jax.errors import InputError
from gen_jax.types import Array

SIZE = 299  # height and width of an input
WIDTHS = (64, 192, 768, 2048)
VARIANTS = ('fid', 'torchvision')


class Weights(nn.Module):
    """Kernel `[*size, inputs, features]` and bias `[features]` of one layer, under its name."""

    size: tuple[int, ...]
    inputs: int
    features: int

    @nn.compact
    def __call__(self) -> tuple[Array, Array]:
        shape = (*self.size, self.inputs, self.features)
        kernel = self.param('kernel', nn.initializers.he_normal(), shape)
        return kernel, self.param('bias', nn.initializers.zeros_init(), (self.features,))


class Inception(nn.Module):
    """Inception-v3 up to the features asked for; inference only.

    `width` says which features: 64 and 192 are those after the first and the second max-pool, 768
    those before mixed_8, 2048 the last ones; each is the mean over pixels. With `num_classes` and
    width 2048 there are logits too.

    `variant` 'fid' is the graph of 2015: average pools do not count padding, and the last block has
    a max-pool where the paper has an average. In 'torchvision' padding counts as zeros, and the
    last block is like the one before.

    Raises:
      InputError: a width or variant that there is not.
    """

    variant: str = 'fid'
    width: int = 2048
    num_classes: int | None = None

    def __post_init__(self):
        if self.variant not in VARIANTS:
            raise InputError(f'variant: no {self.variant!r}; use one of {", ".join(VARIANTS)}')
        if self.width not in WIDTHS:
            raise InputError(f'width: no features of {self.width}; use one of {WIDTHS}')
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, Array | None]:
        """Features of normalized images.

        Args:
          x: float32 `[B, 299, 299, 3]`, in the range that the weights were trained for.

        Returns:
          Features `[B, width]`, and logits `[B, num_classes]` or None.
        """
        h = self._conv(x, 'conv', 32, (3, 3), 2, 'VALID')
        h = self._conv(h, 'conv_1', 32, (3, 3), 1, 'VALID')
        h = self._conv(h, 'conv_2', 64, (3, 3))
        h = max_pool(h)
        if self.width == 64:
            return h.mean((1, 2)), None
        h = self._conv(h, 'conv_3', 80, (1, 1))
        h = self._conv(h, 'conv_4', 192, (3, 3), 1, 'VALID')
        h = max_pool(h)
        if self.width == 192:
            return h.mean((1, 2)), None
        for name, pooled in (('mixed', 32), ('mixed_1', 64), ('mixed_2', 64)):
            h = self._block_35(h, name, pooled)
        h = self._reduce_to_17(h)
        for name, features in (('mixed_4', 128), ('mixed_5', 160), ('mixed_6', 160)):
            h = self._block_17(h, name, features)
        h = self._block_17(h, 'mixed_7', 192)
        if self.width == 768:
            return h.mean((1, 2)), None
        h = self._reduce_to_8(h)
        h = self._block_8(h, 'mixed_9')
        h = self._block_8(h, 'mixed_10', maximum=self.variant == 'fid')
        features = h.mean((1, 2))
        if self.num_classes is None:
            return features, None
        kernel, bias = Weights((), 2048, self.num_classes, name='softmax')()
        return features, features @ kernel + bias

    def _conv(
        self,
        x: Array,
        name: str,
        features: int,
        size: tuple[int, int],
        stride: int = 1,
        padding: str = 'SAME',
    ) -> Array:
        """Equation (1)."""
        kernel, bias = Weights(size, x.shape[-1], features, name=name)()
        return nn.relu(_conv(x, kernel, stride, padding) + bias)

    def _entries(
        self, x: Array, features: dict[str, int], pooled: str | None = None
    ) -> list[Array]:
        """1 x 1 convolutions of x by name, as one; before `pooled` comes the pool, by (2)."""
        weights = [
            Weights((1, 1), x.shape[-1], count, name=name)() for name, count in features.items()
        ]
        product = _conv(x, jnp.concatenate([kernel for kernel, _ in weights], -1))
        ends = np.cumsum(list(features.values()))[:-1]
        parts = []
        for name, part, (_, bias) in zip(
            features, jnp.split(product, ends, -1), weights, strict=True
        ):
            if name == pooled:
                part = average_pool(part, count_padding=self.variant == 'torchvision')
            parts.append(nn.relu(part + bias))
        return parts

    def _block_35(self, x: Array, name: str, pooled: int) -> Array:
        """To `[B, 35, 35, 224 + pooled]`."""
        tower, tower_1, tower_2 = (f'{name}_tower{suffix}_conv' for suffix in ('', '_1', '_2'))
        entries = {f'{name}_conv': 64, tower: 48, tower_1: 64, tower_2: pooled}
        one, five, three, pool = self._entries(x, entries, tower_2)
        five = self._conv(five, f'{tower}_1', 64, (5, 5))
        three = self._conv(three, f'{tower_1}_1', 96, (3, 3))
        three = self._conv(three, f'{tower_1}_2', 96, (3, 3))
        return jnp.concatenate([one, five, three, pool], -1)

    def _reduce_to_17(self, x: Array) -> Array:
        """mixed_3: `[B, 35, 35, 288]` to `[B, 17, 17, 768]`."""
        three = self._conv(x, 'mixed_3_conv', 384, (3, 3), 2, 'VALID')
        double = self._conv(x, 'mixed_3_tower_conv', 64, (1, 1))
        double = self._conv(double, 'mixed_3_tower_conv_1', 96, (3, 3))
        double = self._conv(double, 'mixed_3_tower_conv_2', 96, (3, 3), 2, 'VALID')
        return jnp.concatenate([three, double, max_pool(x)], -1)

    def _block_17(self, x: Array, name: str, features: int) -> Array:
        """`[B, 17, 17, 768]` to the same; its 7 x 7 convolutions are rows and columns."""
        tower, tower_1, tower_2 = (f'{name}_tower{suffix}_conv' for suffix in ('', '_1', '_2'))
        entries = {f'{name}_conv': 192, tower: features, tower_1: features, tower_2: 192}
        one, seven, double, pool = self._entries(x, entries, tower_2)
        seven = self._conv(seven, f'{tower}_1', features, (1, 7))
        seven = self._conv(seven, f'{tower}_2', 192, (7, 1))
        double = self._conv(double, f'{tower_1}_1', features, (7, 1))
        double = self._conv(double, f'{tower_1}_2', features, (1, 7))
        double = self._conv(double, f'{tower_1}_3', features, (7, 1))
        double = self._conv(double, f'{tower_1}_4', 192, (1, 7))
        return jnp.concatenate([one, seven, double, pool], -1)

    def _reduce_to_8(self, x: Array) -> Array:
        """mixed_8: `[B, 17, 17, 768]` to `[B, 8, 8, 1280]`."""
        tower, tower_1 = 'mixed_8_tower_conv', 'mixed_8_tower_1_conv'
        three, seven = self._entries(x, {tower: 192, tower_1: 192})
        three = self._conv(three, f'{tower}_1', 320, (3, 3), 2, 'VALID')
        seven = self._conv(seven, f'{tower_1}_1', 192, (1, 7))
        seven = self._conv(seven, f'{tower_1}_2', 192, (7, 1))
        seven = self._conv(seven, f'{tower_1}_3', 192, (3, 3), 2, 'VALID')
        return jnp.concatenate([three, seven, max_pool(x)], -1)

    def _block_8(self, x: Array, name: str, maximum: bool = False) -> Array:
        """To `[B, 8, 8, 2048]`; `maximum` pools with a maximum, which (2) does not hold for."""
        tower, tower_1, tower_2 = (f'{name}_tower{suffix}_conv' for suffix in ('', '_1', '_2'))
        entries = {f'{name}_conv': 320, tower: 384, tower_1: 448}
        if maximum:
            one, three, double = self._entries(x, entries)
            pool = self._conv(max_pool(x, 1, 'SAME'), tower_2, 192, (1, 1))
        else:
            one, three, double, pool = self._entries(x, entries | {tower_2: 192}, tower_2)
        double = self._conv(double, f'{tower_1}_1', 384, (3, 3))
        split = []
        for h, inner in ((three, f'{name}_tower_mixed'), (double, f'{name}_tower_1_mixed')):
            split.append(self._conv(h, f'{inner}_conv', 384, (1, 3)))
            split.append(self._conv(h, f'{inner}_conv_1', 384, (3, 1)))
        return jnp.concatenate([one, *split, pool], -1)


def max_pool(x: Array, stride: int = 2, padding: str = 'VALID') -> Array:
    """Maxima over 3 x 3 pixels of x `[B, H, W, C]`."""
    if padding == 'SAME':
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-jnp.inf)
    return functools.reduce(jnp.maximum, _shifted(x, stride))


def average_pool(x: Array, count_padding: bool) -> Array:
    """Means over 3 x 3 pixels of x `[B, H, W, C]`, as large as x.

    At a border either the six or four pixels that there are make the mean, or the zeros beside
    them count as pixels.
    """
    height, width = x.shape[1:3]
    total = functools.reduce(
        operator.add, _shifted(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), stride=1)
    )
    if count_padding:
        return total / 9
    rows, columns = (np.convolve(np.ones(n), np.ones(3), 'same') for n in (height, width))
    return total * np.float32(1 / np.outer(rows, columns))[:, :, None]


def _shifted(x: Array, stride: int) -> list[Array]:
    """The nine images that windows of 3 x 3 pixels see, at each place of the window one pixel."""
    rows, columns = ((n - 3) // stride * stride + 1 for n in x.shape[1:3])
    return [
        x[:, i : i + rows : stride, j : j + columns : stride] for i in range(3) for j in range(3)
    ]


def _conv(x: Array, kernel: Array, stride: int = 1, padding: str = 'SAME') -> Array:
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )
