"""PixelCNN++ (Salimans, Karpathy, Chen & Kingma 2017, arXiv:1701.05517), and its fast drawing.

Where the paper's words are short, its published code decides. What is said of a pixel depends on
those above it, and on those left of it in its row. Two U-Nets over the image see to that:

    vertical     reads the rows above; its convolutions cover 2 rows and 3 columns around a pixel,
                 none of them below it
    horizontal   reads the pixel to the left, and the vertical one's features of its own row; its
                 convolutions cover 2 rows and 2 columns, none below and none to the right

    block        b = conv(f(h)) + W f(others),   f(h) = elu of h and -h side by side            (1)
                 y = h + v sigmoid(g),           (v, g) = conv(dropout(f(b))) + label table     (2)
    up           a transposed convolution: each pixel adds to 2 rows x 2 or 3 columns           (3)

The others of (1) are the vertical features at the same place, for a horizontal block, and, on the
way up, what the way down left at the same depth.

Drawing (Ramachandran et al. 2017, arXiv:1704.06001): each convolution remembers the two last rows
of what it reads. Then the vertical network runs once for a row, on that row alone, and the
horizontal one once for a pixel, on that pixel alone, with the same weights and the same code: only
what a convolution finds around a place comes from its memory (`ShiftedConv`). A level that halves
the resolution runs at every other row and column, and its last answer is kept between (`Level`).

Differences from the paper: plain weights in place of weight normalization with an initialization
that depends on data, and the input is shifted instead of the first convolutions' results, which
differs by a bias on the border.
"""

import functools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from gen_jax.errors import InputError
from gen_jax.networks.convolution import window_conv
from gen_jax.networks.layers import INTO_BRANCH, OUT_OF_BRANCH, Dropout, dense, kernel_init
from gen_jax.networks.rearrange import flat_matmul
from gen_jax.types import Array, Tree

# The paper's: what ends a block starts at a tenth of the others.
small_init = nn.initializers.variance_scaling(0.01, 'fan_avg', 'uniform')
# A pixel of the result sees one or two of a transposed kernel's taps, so they do not count as fans.
up_init = nn.initializers.variance_scaling(1.0, 'fan_avg', 'uniform', batch_axis=(0, 1))

MEMORY = 'memory'  # the collection that holds what drawing remembers


class Place(NamedTuple):
    """Where drawing stands, counted in the pixels of a level."""

    row: Array
    column: Array | None = None  # None: at the whole row

    @property
    def first(self) -> Array:
        """The first column here."""
        return 0 if self.column is None else self.column

    @property
    def halved(self) -> 'Place':
        """The place in the level below."""
        return jax.tree.map(lambda index: index // 2, self)


class Features(NamedTuple):
    """What the blocks of the vertical network answered: of a level, and of those below it."""

    down: tuple[Array | None, ...]
    lower: 'Features | None'
    up: tuple[Array | None, ...]

    def at(self, column: Array) -> 'Features':
        """Of features of a row `[B, 1, W, F]` those of one column, `[B, 1, 1, F]`."""
        lower = None if self.lower is None else self.lower.at(column // 2)
        down, up = jax.tree.map(lambda row: _columns(row, column), (self.down, self.up))
        return Features(down, lower, up)


class ShiftedConv(nn.Module):
    """A convolution of `size` rows and columns that end at a pixel's row and, unless there are
    three columns, which lie around it, at its column. Outside the image is zero.

    h `[B, H, W, C]` becomes `[B, ceil(H / stride), ceil(W / stride), features]`. Drawing, h is one
    row or one pixel of that, the next one `at` a place, and the result is that of the place.
    """

    features: int
    size: tuple[int, int]
    stride: int = 1
    scheme: nn.initializers.Initializer = kernel_init
    axes: tuple[str, str] | None = None  # names of those of the channels
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, h: Array, at: Place | None) -> Array:
        (rows, columns), inputs = self.size, h.shape[-1]
        left, right = (1, 1) if columns == 3 else (columns - 1, 0)
        init = self.scheme
        if self.axes is not None:
            init = nn.with_logical_partitioning(init, (None, None, *self.axes))
        kernel = self.param('kernel', init, (rows, columns, inputs, self.features))
        bias = self.param('bias', nn.initializers.zeros_init(), (self.features,))
        h, kernel, bias = (array.astype(self.dtype) for array in (h, kernel, bias))
        if at is None:
            window = jnp.pad(h, ((0, 0), (rows - 1, 0), (left, right), (0, 0)))
            _prepare(self, window[:, :rows])
        else:
            window = self._around(h, at, left)
        return window_conv(window, kernel, self.stride) + bias

    def _around(self, h: Array, at: Place, left: int) -> Array:
        """h, remembered, with what was remembered above it and left of it.

        Row r lies in the slot r % rows, in place of the row that is not needed any more.
        """
        rows, columns = self.size
        memory = self.variable(MEMORY, 'value')
        slot = at.row % rows
        corner = (0, slot, at.first + left, 0)
        memory.value = lax.dynamic_update_slice(memory.value, h, corner)
        window = _columns(memory.value, at.column, columns)
        return jnp.where(slot == rows - 1, window, window[:, ::-1])


class ShiftedUpConv(nn.Module):
    """Equation (3), with stride 2: low `[B, h, w, C]` to `[B, 2h, 2w, features]`, cropped to the
    `shape` of the level above; drawing, the row or pixel `at` a place of that level."""

    features: int
    size: tuple[int, int]
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, low: Array, at: Place | None, shape: tuple[int, ...]) -> Array:
        (rows, columns), (batch, height, width, inputs) = self.size, low.shape
        kernel = self.param('kernel', up_init, (rows, columns, inputs, self.features))
        bias = self.param('bias', nn.initializers.zeros_init(), (self.features,))
        low, kernel, bias = (array.astype(self.dtype) for array in (low, kernel, bias))
        added = flat_matmul(low, kernel.transpose(2, 0, 1, 3).reshape(inputs, -1))
        added = added.reshape(batch, height, width, rows, columns, self.features)
        if columns == 3:  # to the columns 2j - 1, 2j and 2j + 1
            before, even, odd = (added[:, :, :, :, k] for k in range(3))
            after = jnp.pad(before[:, :, 1:], ((0, 0), (0, 0), (0, 1), (0, 0), (0, 0)))
            added = jnp.stack([even, odd + after], 4)
        h = added.transpose(0, 1, 3, 2, 4, 5).reshape(batch, 2 * height, 2 * width, -1) + bias
        row, column = (0, 0) if at is None else (at.row % 2, at.first % 2)
        return lax.dynamic_slice(h, (0, row, column, 0), (*shape[:3], self.features))


class GatedBlock(nn.Module):
    """Equations (1) and (2): h `[B, H, W, F]` and others of that place to the next h."""

    size: tuple[int, int]
    dropout: float
    num_classes: int | None
    dtype: str = 'float32'

    @nn.compact
    def __call__(
        self,
        h: Array,
        others: tuple[Array, ...],
        label: Array | None,
        at: Place | None,
        train: bool,
    ) -> Array:
        width = h.shape[-1]
        conv = functools.partial(ShiftedConv, size=self.size, dtype=self.dtype)
        branch = conv(width, axes=INTO_BRANCH, name='conv_0')(concat_elu(h), at)
        if others:
            layer = dense(width, INTO_BRANCH, dtype=self.dtype, name='others')
            branch = branch + layer(concat_elu(jnp.concatenate(others, -1)))
        branch = Dropout(self.dropout)(concat_elu(branch), train=train)
        last = conv(2 * width, scheme=small_init, axes=OUT_OF_BRANCH, name='conv_1')
        branch = last(branch, at)
        if self.num_classes is not None:
            init = nn.initializers.normal(0.05)
            table = nn.Embed(
                self.num_classes, 2 * width, embedding_init=init, dtype=self.dtype, name='label'
            )
            branch = branch + table(label)[:, None, None]
        value, gate = jnp.split(branch, 2, -1)
        return h + value * nn.sigmoid(gate)


class Level(nn.Module):
    """A level of a U-Net, with all that are below it."""

    size: tuple[int, int]  # of the convolutions
    num_levels: int
    num_blocks: int
    dropout: float
    num_classes: int | None
    dtype: str
    remat: bool

    @nn.compact
    def __call__(
        self,
        h: Array,
        beside: Features | None,
        label: Array | None,
        at: Place | None,
        train: bool,
    ) -> tuple[Array, Features | None]:
        """h `[B, H, W, F]` to another such, and, unless other features were given to look at
        beside them, the features of all blocks."""
        gated = nn.remat(GatedBlock, static_argnums=(5,)) if self.remat else GatedBlock
        none = Features((None,) * self.num_blocks, None, (None,) * (self.num_blocks + 1))
        looked_at = none if beside is None else beside

        def block(name: str, h: Array, *others: Array | None) -> Array:
            others = tuple(other for other in others if other is not None)
            module = gated(self.size, self.dropout, self.num_classes, self.dtype, name=name)
            return module(h, others, label, at, train)

        down, lower, up = [h], None, []
        for i in range(self.num_blocks):
            down.append(block(f'down_{i}', down[-1], looked_at.down[i]))
        if self.num_levels > 1:
            low, lower = self._lower(down[-1], looked_at.lower, label, at, train)
            h = ShiftedUpConv(h.shape[-1], self.size, self.dtype, name='up')(low, at, h.shape)
            skips = down
        else:
            *skips, h = down
        for i, skip in enumerate(reversed(skips)):
            h = block(f'up_{i}', h, looked_at.up[i], skip)
            up.append(h)
        return h, None if beside is not None else Features(tuple(down[1:]), lower, tuple(up))

    def _lower(self, h, beside, label, at, train) -> tuple[Array, Features | None]:
        """What the level below answers; drawing, only where it has a place of its own, and what
        it answered last elsewhere."""
        halve = ShiftedConv(h.shape[-1], self.size, stride=2, dtype=self.dtype, name='halve')
        h = halve(h, at)
        level = self.clone(num_levels=self.num_levels - 1, parent=self, name='lower')
        if at is None:
            answer = level(h, beside, label, None, train)
            _prepare(self, jax.tree.map(lambda plane: plane[:, :1], answer))
            return answer
        memory, place = self.variable(MEMORY, 'value'), at.halved
        last = jax.tree.map(lambda row: _columns(row, place.column), memory.value)
        answer = nn.cond(
            (at.row | at.first) % 2 == 0,
            lambda level: level(h, beside, label, place, train),
            lambda level: last,
            level,
        )
        start = (0, 0, place.first, 0)
        memory.value = jax.tree.map(
            lambda row, new: lax.dynamic_update_slice(row, new, start), memory.value, answer
        )
        return answer


class PixelCNN(nn.Module):
    """What each pixel's law is, given the pixels before it, row after row from the top left.

    Each of `num_levels` levels has `num_blocks` blocks on the way down and as many, and one more
    but in the last level, on the way up, in both networks. `out_channels` is how many numbers
    describe one of the `num_mixtures` components of the law (`losses/logistic_mixture.py`). With
    `num_classes` a label must be told. `dtype` is what is computed in. `remat` computes a block
    anew in the backward pass instead of keeping what it computed: less memory, more time.

    Raises:
      InputError: fields that make no network.
    """

    out_channels: int
    channels: int = 160
    num_blocks: int = 5
    num_levels: int = 3
    num_mixtures: int = 10
    dropout: float = 0.5
    num_classes: int | None = None
    dtype: str = 'float32'
    remat: bool = False

    def __post_init__(self):
        for name in ('channels', 'num_blocks', 'num_levels', 'num_mixtures'):
            if getattr(self, name) < 1:
                raise InputError(f'{name}: {getattr(self, name)} must be at least 1')
        if not 0 <= self.dropout < 1:
            raise InputError(f'dropout: {self.dropout} must be from 0 to below 1')
        super().__post_init__()

    def setup(self):
        conv = functools.partial(ShiftedConv, self.channels, dtype=self.dtype)
        self.above = conv(size=(2, 3))
        self.straight_above = conv(size=(1, 3))
        self.left = conv(size=(2, 1))
        same = (self.num_levels, self.num_blocks, self.dropout, self.num_classes, self.dtype)
        self.vertical = Level((2, 3), *same, self.remat)
        self.horizontal = Level((2, 2), *same, self.remat)
        self.out = nn.Dense(self.num_mixtures * self.out_channels, dtype=self.dtype)

    def __call__(self, x: Array, label: Array | None = None, *, train: bool) -> Array:
        """The laws of all pixels of x.

        Args:
          x: float32 `[B, H, W, C]`, data in [-1, 1].
          label: int32 `[B]` in [0, num_classes), or None where there are none.
          train: whether to drop out; draws from the 'dropout' key.

        Returns:
          float32 `[B, H, W, num_mixtures, out_channels]`.
        """
        canvas = framed(x)
        rows = self.rows(canvas[:, :-1, 1:], label, train=train)
        return self.pixels(canvas[:, 1:, :-1], rows, label, train=train)

    def rows(
        self, above: Array, label: Array | None, at: Place | None = None, train: bool = False
    ) -> tuple[Array, Features]:
        """What the horizontal network needs of the rows above.

        `above` holds, for every pixel, the one above it, `[B, H, W, C + 1]` of a framed image;
        drawing, those above the row `at` a place, `[B, 1, W, C + 1]`.
        """
        if (label is None) != (self.num_classes is None):
            raise InputError(
                'label: num_classes is None, so no label can be used'
                if self.num_classes is None
                else f'label: one of the {self.num_classes} classes is needed for each image'
            )
        _, features = self.vertical(self.above(above, at), None, label, at, train)
        return self.straight_above(above, at), features

    def pixels(
        self,
        left: Array,
        rows: tuple[Array, Features],
        label: Array | None,
        at: Place | None = None,
        train: bool = False,
    ) -> Array:
        """The laws of the pixels whose neighbors to the left are `left` `[B, H, W, C + 1]`;
        drawing, of the one `at` a place, left `[B, 1, 1, C + 1]`. `rows` is of the same rows."""
        above, beside = rows
        if at is not None:
            above, beside = _columns(above, at.column), beside.at(at.column)
        h, _ = self.horizontal(self.left(left, at) + above, beside, label, at, train)
        law = self.out(nn.elu(h)).astype('float32')
        return law.reshape(*law.shape[:-1], self.num_mixtures, self.out_channels)


def framed(x: Array) -> Array:
    """x `[B, H, W, C]` with a row of zeros above and a column of zeros to the left, and a last
    channel that is one inside and zero on this frame: `[B, H + 1, W + 1, C + 1]`."""
    with_ones = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, 1)), constant_values=1)
    return jnp.pad(with_ones, ((0, 0), (1, 0), (1, 0), (0, 0)))


def concat_elu(x: Array) -> Array:
    """elu(x) and elu(-x), side by side along the last axis; one exponential serves both."""
    positive = x > 0
    tail = jnp.expm1(jnp.where(positive, -x, x))
    return jnp.concatenate([jnp.where(positive, x, tail), jnp.where(positive, tail, -x)], -1)


def _columns(row: Array, first: Array | None, num: int = 1) -> Array:
    """So many columns of row `[B, H, W, F]` from the first; all of them if it is None."""
    return row if first is None else lax.dynamic_slice_in_dim(row, first, num, axis=2)


def _prepare(module: nn.Module, like: Tree) -> None:
    """Makes a module's memory, empty, where a pass over whole images was asked for memories."""
    if module.is_mutable_collection(MEMORY) and not module.is_initializing():
        module.variable(MEMORY, 'value', lambda: jax.tree.map(jnp.zeros_like, like))
