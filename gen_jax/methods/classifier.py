"""A classifier: no generative model, but what other models' samples are looked at with.

    (1) loss = -sum_k q_k log p(k | x),   q = (1 - s) onehot(label) + s / K   (Szegedy et al. 2016)

with the smoothing s. Its features, the numbers before the last layer, are what distances between
samples and data are measured in where no published network fits the data.
"""

import functools
from collections.abc import Callable, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from gen_jax.errors import InputError
from gen_jax.methods.method import Method, Phase, check_players
from gen_jax.types import Array, Batch, DataSpec, Key

# What the number of this name is, of every method that has one.
ACCURACY = 'exact (share of held-out examples whose most probable class is right)'


def classifier(
    networks: Mapping[str, Callable],
    spec: DataSpec,
    *,
    label_smoothing: float = 0.0,
    max_shift: int = 0,
) -> Method:
    """A classifier of data of this `spec`; it draws no samples.

    Args:
      networks: `{'model': factory}`; the factory's module is called as `(x, train=)` and returns
        features `[B, D]` and logits `[B, K]`.
      spec: shape and classes of the data.
      label_smoothing: s of equation (1).
      max_shift: training images are moved by up to so many pixels each way, their border repeated.

    Raises:
      InputError: data without classes, other players, or a value out of its range.
    """
    if spec.num_classes is None:
        raise InputError('method: a classifier needs labels, and this data has none')
    if not 0 <= label_smoothing < 1:
        raise InputError(f'method.label_smoothing: {label_smoothing} must be from 0 to below 1')
    check_shift(max_shift, spec)
    check_players(networks, ('model',))
    network = networks['model'](num_classes=spec.num_classes)
    return Method(
        init=functools.partial(_init, network),
        phases=(Phase('model', functools.partial(_loss, network, label_smoothing, max_shift)),),
        sample=None,
        evaluate=functools.partial(_evaluate, network),
        estimators={
            'loss': 'exact (cross entropy of the held-out labels, nats)',
            'accuracy': ACCURACY,
        },
        averaged=('model',),
    )


def _init(network: nn.Module, key: Key, batch: Batch) -> tuple[dict, dict]:
    return {'model': network.init(key, jnp.zeros_like(batch['x']), train=False)['params']}, {}


def _loss(
    network: nn.Module,
    label_smoothing: float,
    max_shift: int,
    params: Mapping,
    state,
    batch: Batch,
    key: Key,
) -> tuple[Array, tuple[dict, dict]]:
    shift_key, dropout_key = jax.random.split(key)
    x = shifted(batch['x'], shift_key, max_shift)
    variables, rngs = {'params': params['model']}, {'dropout': dropout_key}
    _, logits = network.apply(variables, x, train=True, rngs=rngs)
    target = optax.smooth_labels(jax.nn.one_hot(batch['label'], logits.shape[-1]), label_smoothing)
    loss = optax.softmax_cross_entropy(logits, target).mean()
    right = (logits.argmax(-1) == batch['label']).astype(jnp.float32).mean()
    return loss, (state.model_state, {'loss': loss, 'accuracy': right})


def _evaluate(
    network: nn.Module, params: Mapping, model_state: Mapping, batch: Batch, key: Key
) -> dict[str, Array]:
    _, logits = network.apply({'params': params['model']}, batch['x'], train=False)
    label = batch['label']
    return {
        'loss': optax.softmax_cross_entropy_with_integer_labels(logits, label),
        'accuracy': (logits.argmax(-1) == label).astype(jnp.float32),
    }


def check_shift(max_shift: int, spec: DataSpec) -> None:
    """Raises InputError unless images of this spec can be moved by so many pixels."""
    if max_shift and len(spec.shape) != 3:
        raise InputError(
            f'method.max_shift: only images are moved, and examples are of shape {spec.shape}; set '
            'it to 0'
        )
    if not 0 <= max_shift < min(spec.shape[:2]):
        raise InputError(f'method.max_shift: {max_shift} must be from 0 to below the image size')


def shifted(x: Array, key: Key, most: int) -> Array:
    """Images x `[B, H, W, C]`, each moved by up to `most` pixels, drawn from the key."""
    if most == 0:
        return x
    wide = jnp.pad(x, ((0, 0), (most, most), (most, most), (0, 0)), mode='edge')
    corners = jax.random.randint(key, (len(x), 2), 0, 2 * most + 1)

    def cut(image: Array, corner: Array) -> Array:
        return jax.lax.dynamic_slice(image, (*corner, 0), x.shape[1:])

    return jax.vmap(cut)(wide, corners)
