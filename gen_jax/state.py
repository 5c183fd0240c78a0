"""Everything that a run is at one step. What is not here or in the config does not exist."""

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax
from flax import struct

from gen_jax import keys
from gen_jax.errors import InputError
from gen_jax.methods.method import Method
from gen_jax.types import Array, Batch, Key, Tree


@struct.dataclass
class TrainState:
    """One step's state; a checkpoint is exactly this.

    step: int32 scalar, updates done so far; also the position in the data.
    params: `{player: tree}`, every player, frozen ones too.
    model_state: what the method carries besides parameters (batch statistics, codebooks); floats.
    opt_state: `{player: state}` for the trained players.
    ema_params: `{player: tree}` for the averaged players.
    key: the base key, which never changes; step n draws from `fold_in(key, n)`.
    """

    step: Array
    params: dict[str, Tree]
    model_state: dict
    opt_state: dict[str, Tree]
    ema_params: dict[str, Tree]
    key: Key


def init_state(
    method: Method,
    optimizers: Mapping[str, optax.GradientTransformation],
    seed: int | Array,
    batch: Batch,
) -> TrainState:
    """The state before the first update; only the shapes and types of `batch` matter.

    Raises:
      InputError: the optimizers are not those of the players that the method trains.
    """
    if set(optimizers) != set(method.trained):
        raise InputError(
            f'optim: has sections for {sorted(optimizers)}, '
            f'and this method trains {sorted(method.trained)}'
        )
    params, model_state = method.init(keys.stream(seed, 'init'), batch)
    return TrainState(
        step=jnp.int32(0),
        params=params,
        model_state=model_state,
        opt_state={player: optimizers[player].init(params[player]) for player in method.trained},
        # Copies: the step donates its state, and one buffer cannot be given away twice.
        ema_params=jax.tree.map(jnp.copy, {player: params[player] for player in method.averaged}),
        key=keys.stream(seed, 'train'),
    )


def sampling_params(state: TrainState) -> dict[str, Tree]:
    """Every player's parameters as samples and evaluations use them: averaged where they can be."""
    return {**state.params, **state.ema_params}


def count_parameters(tree: Tree) -> int:
    """How many numbers a tree of arrays, or of their shapes, holds."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
