"""PixelCNN++: an exact model of images, drawn pixel after pixel (Salimans et al. 2017).

    (1) log p(x) = sum_i log p(x_i | x_1..x_{i-1})
        over the pixels i in raster order, each with the law of `losses/logistic_mixture.py`
    (2) loss = -log p(x) / D,   D the number of dimensions (pixels x channels), in nats

Labels, where the model is told them, stand behind the bar in (1). A draw takes the pixels in the
same order; what a network has computed for those before, it remembers (`networks/pixelcnn.py`).
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from gen_jax.errors import InputError
from gen_jax.losses import likelihood, logistic_mixture
from gen_jax.methods.method import Method, Phase, check_label, check_players
from gen_jax.networks.pixelcnn import MEMORY, Place, framed
from gen_jax.types import Array, Batch, DataSpec, Key, Tree


def pixelcnn(
    networks: Mapping[str, Callable], spec: DataSpec, *, class_conditional: bool = False
) -> Method:
    """A PixelCNN++ of images of this `spec`.

    Args:
      networks: `{'model': factory}`; the factory's module is a `networks.pixelcnn.PixelCNN`.
      spec: shape `(H, W, C)` and levels of the data; its classes where `class_conditional`.
      class_conditional: whether the network is told the label.

    Raises:
      InputError: data that is no image of levels; labels asked of data that has none; other
        players.
    """
    if len(spec.shape) != 3 or spec.levels is None:
        raise InputError(
            f'data: examples of shape {spec.shape} with {spec.levels} levels; '
            'PixelCNN needs images [H, W, C] whose pixels take a number of levels'
        )
    if spec.dequantized:
        raise InputError('data.dequantize: PixelCNN models the levels themselves; set it to False')
    if class_conditional and spec.num_classes is None:
        raise InputError('method.class_conditional: this data has no labels; set it to False')
    check_players(networks, ('model',))
    num_classes = spec.num_classes if class_conditional else None
    out_channels = logistic_mixture.num_parameters(spec.shape[-1])
    network = networks['model'](out_channels=out_channels, num_classes=num_classes)
    model = PixelModel(network, spec, num_classes)
    p = 'p(x)' if num_classes is None else 'p(x | label)'
    return Method(
        init=functools.partial(_init, model),
        phases=(Phase('model', functools.partial(_loss, model)),),
        sample=functools.partial(_sample, model),
        evaluate=functools.partial(_evaluate, model),
        estimators={
            'loss': f'exact (-log {p} of the levels, nats per dimension)',
            'bits_per_dim': f'exact (-log2 {p} of the levels)',
        },
        averaged=('model',),
        num_classes=num_classes,
        nfe=functools.partial(_nfe, model),
    )


class PixelModel(NamedTuple):
    """A network and the images that it is of; parameters come and go as arguments."""

    network: nn.Module
    spec: DataSpec
    num_classes: int | None  # None: the network is told no labels

    def nats(self, params: Mapping, batch: Batch, **options) -> Array:
        """-log p(x), equation (1), of each example: `[B]`."""
        x, label = batch['x'], None if self.num_classes is None else batch['label']
        laws = self.network.apply({'params': params['model']}, x, label, **options)
        return -logistic_mixture.log_mass(x, laws, self.spec.levels)

    def empty_memory(self, params: Mapping, x: Array, label: Array | None) -> Tree:
        """The network's memory before the first pixel of images shaped like x."""
        whole = functools.partial(self.network.apply, train=False, mutable=[MEMORY])
        _, made = jax.eval_shape(whole, {'params': params['model']}, x, label)
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), made[MEMORY])

    def recall(self, params: Mapping, memory: Tree, part: str, *arguments) -> tuple[Tree, Tree]:
        """What a part of the network, 'rows' or 'pixels', answers, and the memory after it."""
        variables = {'params': params['model'], MEMORY: memory}
        answer, changed = self.network.apply(variables, *arguments, method=part, mutable=[MEMORY])
        return answer, changed[MEMORY]


def _init(model: PixelModel, key: Key, batch: Batch) -> tuple[dict, dict]:
    x = jnp.zeros_like(batch['x'])
    label = None if model.num_classes is None else jnp.zeros(len(x), jnp.int32)
    return {'model': model.network.init(key, x, label, train=False)['params']}, {}


def _loss(
    model: PixelModel, params: Mapping, state, batch: Batch, key: Key
) -> tuple[Array, tuple[dict, dict]]:
    nats = model.nats(params, batch, train=True, rngs={'dropout': key})
    loss = jnp.mean(nats) / math.prod(model.spec.shape)
    return loss, (state.model_state, {'loss': loss})


def _evaluate(
    model: PixelModel, params: Mapping, model_state: Mapping, batch: Batch, key: Key
) -> dict[str, Array]:
    nats, num_dims = model.nats(params, batch, train=False), math.prod(model.spec.shape)
    bits = likelihood.bits_per_dim(nats, num_dims)
    return {'loss': nats / num_dims, 'bits_per_dim': bits}


def _sample(
    model: PixelModel,
    params: Mapping,
    model_state: Mapping,
    key: Key,
    num: int,
    *,
    cond: Array | None = None,
    given: tuple[Array, Array] | None = None,
    temperature: float = 1.0,
) -> Array:
    """Pixels that are given stay if all their channels are known, and the others are drawn, each
    given those before it. `temperature` is that of `logistic_mixture.sample`."""
    check_label(cond, model.num_classes)
    if not temperature > 0:
        raise InputError(f'temperature: {temperature} must be above 0')
    (height, width, channels), levels = model.spec.shape, model.spec.levels
    x, known = _checked(given, num, model.spec)

    def draw_row(row: Array, carry: tuple[Array, Tree]) -> tuple[Array, Tree]:
        canvas, memory = carry
        above = lax.dynamic_slice_in_dim(canvas, row, 1, axis=1)[:, :, 1:]
        rows, memory = model.recall(params, memory, 'rows', above, cond, Place(row))

        def draw_pixel(column: Array, carry: tuple[Array, Tree]) -> tuple[Array, Tree]:
            canvas, memory = carry
            here, corner = Place(row, column), (0, row + 1, column + 1, 0)
            left = lax.dynamic_slice(canvas, (0, row + 1, column, 0), (num, 1, 1, channels + 1))
            laws, memory = model.recall(params, memory, 'pixels', left, rows, cond, here)
            pixel = logistic_mixture.sample(
                jax.random.fold_in(key, row * width + column),
                laws,
                channels=channels,
                levels=levels,
                temperature=temperature,
            )
            old = lax.dynamic_slice(canvas, corner, pixel.shape)
            is_known = lax.dynamic_slice(known, (0, row, column, 0), (num, 1, 1, 1))
            pixel = jnp.where(is_known, old, pixel)
            return lax.dynamic_update_slice(canvas, pixel, corner), memory

        return lax.fori_loop(0, width, draw_pixel, (canvas, memory))

    start = framed(x), model.empty_memory(params, x, cond)
    canvas, _ = lax.fori_loop(0, height, draw_row, start)
    return canvas[:, 1:, 1:, :channels]


def _checked(given: tuple[Array, Array] | None, num: int, spec: DataSpec) -> tuple[Array, Array]:
    """`given` as float32 `[num, H, W, C]` and bool `[num, H, W, 1]`; without it nothing is known.

    Raises:
      InputError: arrays of other shapes.
    """
    shape = (num, *spec.shape)
    if given is None:
        return jnp.zeros(shape), jnp.zeros((*shape[:-1], 1), bool)
    x, known = (jnp.asarray(part) for part in given)
    if x.shape != shape:
        raise InputError(f'given: images of shape {x.shape}; they must be {shape}')
    try:
        known = jnp.broadcast_to(known, shape)
    except ValueError:
        raise InputError(
            f'given: what is known is of shape {known.shape}; it must broadcast to {shape}'
        ) from None
    return x.astype('float32'), known.astype(bool).all(-1, keepdims=True)


def _nfe(model: PixelModel, **options) -> int:
    """The network runs once for each pixel, on what is new there."""
    height, width, _ = model.spec.shape
    return height * width
