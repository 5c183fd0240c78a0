"""Everything that a run is at one step. What is not here or in the config does not exist."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from gen_jax import keys
from gen_jax.errors import InputError
from gen_jax.methods.method import Method
from gen_jax.types import Array, Batch, Key, Tree

# What a loss is multiplied by at first where it is computed in float16; see `step.py`.
FIRST_LOSS_SCALE = 2.0**15


@struct.dataclass
class Guard:
    """What the step remembers of losses and gradients that were not finite; all scalars.

    skipped: int32, steps so far in which some player was not updated.
    in_a_row: int32, how many of them were the last ones, one after the other.
    since: int32, the first step of that row; the last one's where the row is over.
    loss_scale: float32, for float16: what losses are multiplied by before they are differentiated.
    finite_in_a_row: int32, for float16: good steps since the scale last changed.
    """

    skipped: Array
    in_a_row: Array
    since: Array
    loss_scale: Array
    finite_in_a_row: Array


def first_guard() -> Guard:
    """That of a run that has not begun."""
    # Four zeros, not one: the step donates its state, and no buffer can be given away twice.
    return Guard(
        skipped=jnp.int32(0),
        in_a_row=jnp.int32(0),
        since=jnp.int32(0),
        loss_scale=jnp.float32(FIRST_LOSS_SCALE),
        finite_in_a_row=jnp.int32(0),
    )


@struct.dataclass
class TrainState:
    """One step's state; a checkpoint is exactly this.

    step: int32 scalar, updates done so far; also the position in the data.
    params: `{player: tree}`, every player, frozen ones too.
    model_state: what the method carries besides parameters (codebooks, statistics); floats. What
      belongs to one player, and goes with its weights, has the player's name.
    opt_state: `{player: state}` for the trained players.
    ema_params: `{player: tree}` for the averaged players.
    power_ema: the same once for each length of the config's `ema.lengths`; see `averaging.py`.
    guard: what was skipped because it was not finite.
    key: the base key, which never changes; step n draws from `fold_in(key, n)`.
    """

    step: Array
    params: dict[str, Tree]
    model_state: dict
    opt_state: dict[str, Tree]
    ema_params: dict[str, Tree]
    power_ema: tuple[dict[str, Tree], ...]
    guard: Guard
    key: Key


class Weights(NamedTuple):
    """What a run of its own has made of one player: its parameters, and its entry of `model_state`;
    None for a player that has none."""

    params: Tree
    model_state: Tree | None = None


def init_state(
    method: Method,
    optimizers: Mapping[str, optax.GradientTransformation],
    seed: int | Array,
    batch: Batch,
    num_profiles: int = 0,
    given: Mapping[str, Weights] | None = None,
) -> TrainState:
    """The state before the first update; only the shapes and types of `batch` matter.

    `num_profiles` is how many power-function averages are kept. `given` has, by player, what to
    begin with instead of what is random.

    Raises:
      InputError: the optimizers are not those of the players that the method trains.
    """
    if set(optimizers) != set(method.trained):
        raise InputError(
            f'optim: has sections for {sorted(optimizers)}, '
            f'and this method trains {sorted(method.trained)}'
        )
    params, model_state = method.init(keys.stream(seed, 'init'), batch)
    given = given or {}
    params |= {player: weights.params for player, weights in given.items()}
    model_state |= {
        player: weights.model_state
        for player, weights in given.items()
        if weights.model_state is not None
    }

    def average() -> dict[str, Tree]:
        # Copies, for the same reason.
        return jax.tree.map(jnp.copy, {player: params[player] for player in method.averaged})

    return TrainState(
        step=jnp.int32(0),
        params=params,
        model_state=model_state,
        opt_state={player: optimizers[player].init(params[player]) for player in method.trained},
        ema_params=average(),
        power_ema=tuple(average() for _ in range(num_profiles)),
        guard=first_guard(),
        key=keys.stream(seed, 'train'),
    )


def sampling_params(state: TrainState) -> dict[str, Tree]:
    """Every player's parameters as samples and evaluations use them: averaged where they can be."""
    return {**state.params, **state.ema_params}


def count_parameters(tree: Tree) -> int:
    """How many numbers a tree of arrays, or of their shapes, holds."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
