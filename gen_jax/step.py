"""The train step, for every method: a pure function of a state and a batch.

    for each phase, in order:
        (1) g = grad of phase.loss with respect to params[phase.player]
        (2) under an axis name, g, model_state and metrics are averaged over that axis
        (3) params[player] <- params[player] + update(g)
    (4) ema <- decay ema + (1 - decay) params, for the averaged players
    (5) step <- step + 1

Keys: step n draws from fold_in(base, n), its phase i from fold_in(., i), and under an axis name
each device from fold_in(., axis index). Nothing else is random, so a resumed run is the same run.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax

from gen_jax.methods.method import Method, Phase
from gen_jax.state import TrainState
from gen_jax.types import Array, Batch, Key


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    method: Method,
    optimizers: Mapping[str, optax.GradientTransformation],
    ema_decay: float,
    axis_name: str | None = None,
) -> tuple[TrainState, dict[str, Array]]:
    """One update of every phase's player.

    Args:
      state: the state before.
      batch: the global batch, or with `axis_name` this device's part of it.
      method: what is trained.
      optimizers: one for each trained player.
      ema_decay: of equation (4), for each step.
      axis_name: the mapped axis to average over; None under jit, where means are global already.

    Returns:
      The state after, and `{'<player>/<name>': scalar}`. The metrics of a phase that this step
      skips are NaN.
    """
    step_key = jax.random.fold_in(state.key, state.step)
    before, metrics = state.step, {}
    for index, phase in enumerate(method.phases):
        key = jax.random.fold_in(step_key, index)
        if axis_name is not None:
            key = jax.random.fold_in(key, jax.lax.axis_index(axis_name))

        def run(state, phase=phase, key=key):
            optimizer = optimizers[phase.player]
            return run_phase(state, batch, phase, optimizer, key, axis_name)

        if phase.every == 1:
            state, phase_metrics = run(state)
        else:
            skipped = jax.tree.map(
                lambda m: jnp.full(m.shape, jnp.nan, m.dtype), jax.eval_shape(run, state)[1]
            )
            state, phase_metrics = jax.lax.cond(
                (before + 1) % phase.every == 0,
                run,
                lambda state, skipped=skipped: (state, skipped),
                state,
            )
        metrics |= phase_metrics
    averaged = {player: state.params[player] for player in method.averaged}
    ema_params = optax.incremental_update(averaged, state.ema_params, 1 - ema_decay)
    return state.replace(step=before + 1, ema_params=ema_params), metrics


def run_phase(
    state: TrainState,
    batch: Batch,
    phase: Phase,
    optimizer: optax.GradientTransformation,
    key: Key,
    axis_name: str | None,
) -> tuple[TrainState, dict[str, Array]]:
    """Equations (1) to (3) for one phase; adds the gradient's norm to its metrics."""
    player = phase.player

    def loss_of(own):
        return phase.loss({**state.params, player: own}, state, batch, key)

    gradient, (model_state, metrics) = jax.grad(loss_of, has_aux=True)(state.params[player])
    if axis_name is not None:
        gradient, model_state, metrics = jax.lax.pmean((gradient, model_state, metrics), axis_name)
    own = state.params[player]
    updates, opt_state = optimizer.update(gradient, state.opt_state[player], own)
    state = state.replace(
        params={**state.params, player: optax.apply_updates(own, updates)},
        opt_state={**state.opt_state, player: opt_state},
        model_state=model_state,
    )
    metrics = {**metrics, 'grad_norm': optax.tree.norm(gradient)}
    return state, {f'{player}/{name}': value for name, value in metrics.items()}
