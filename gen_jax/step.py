"""The train step, for every method: a pure function of a state and a batch.

    for each phase, in order:
        (1) g = grad of phase.loss with respect to params[phase.player]
        (2) under an axis name, g, model_state and metrics are averaged over that axis
        (3) params[player] <- params[player] + update(g), where the loss and g are finite
    (4) ema <- decay ema + (1 - decay) params, and the averages of `averaging.py`;
        of a schedule-free optimizer's params the ones it evaluates
    (5) step <- step + 1

In (1) a batch may be taken in parts, one after the other, whose gradients are averaged: the memory
of a part, and the gradient of the whole, for losses that are means over examples.

In (3) a phase whose loss, gradient or model state is not finite leaves its player, its optimizer
and the model state as they were; (4) then waits too. The step counts what it skips in
`state.guard`. In float16 the loss is first multiplied by a scale, so that small gradients are not
rounded to zero (Micikevicius et al. 2018); the scale is halved when it makes something overflow,
and doubled after many steps in which nothing did.

Keys: step n draws from fold_in(base, n), its phase i from fold_in(., i), under an axis name each
device from fold_in(., axis index), and each part of a batch from fold_in(., part). Nothing else is
random, so a resumed run is the same run.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import optax

from gen_jax import averaging
from gen_jax.methods.method import Method, Phase
from gen_jax.optim import evaluated_params
from gen_jax.state import Guard, TrainState
from gen_jax.types import Array, Batch, Key, Tree

# Of the loss scale: doubled after so many finite steps, and never above this.
STEPS_TO_DOUBLE = 2000
LARGEST_LOSS_SCALE = 2.0**24


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    method: Method,
    optimizers: Mapping[str, optax.GradientTransformation],
    ema_decay: float,
    ema_lengths: tuple[float, ...] = (),
    num_parts: int = 1,
    scale_loss: bool = False,
    axis_name: str | None = None,
) -> tuple[TrainState, dict[str, Array]]:
    """One update of every phase's player.

    Args:
      state: the state before.
      batch: the global batch, or with `axis_name` this device's part of it.
      method: what is trained.
      optimizers: one for each trained player.
      ema_decay: of equation (4), for each step.
      ema_lengths: of the averages in `state.power_ema`.
      num_parts: the parts that a batch is taken in; it divides the batch.
      scale_loss: whether losses are scaled, for float16.
      axis_name: the mapped axis to average over; None under jit, where means are global already.

    Returns:
      The state after, and `{'<player>/<name>': scalar}`, or `'<player>/<phase>_<name>'` of a phase
      with a name, with `skipped`, the steps skipped so far, and `skipped_in_a_row`. The metrics of
      a phase that this step leaves out are NaN. Where a player's optimizer skips large gradients
      (`optim.py`), `too_large` is how many so far.
    """
    step_key = jax.random.fold_in(state.key, state.step)
    before, finite, metrics = state, jnp.bool_(True), {}
    for index, phase in enumerate(method.phases):
        key = jax.random.fold_in(step_key, index)
        if axis_name is not None:
            key = jax.random.fold_in(key, jax.lax.axis_index(axis_name))

        def run(state, phase=phase, key=key):
            scale = state.guard.loss_scale if scale_loss else None
            optimizer = optimizers[phase.player]
            return run_phase(state, batch, phase, optimizer, key, num_parts, scale, axis_name)

        if phase.every == 1:
            state, phase_metrics, phase_finite = run(state)
        else:
            left_out = jax.tree.map(
                lambda m: jnp.full(m.shape, jnp.nan, m.dtype), jax.eval_shape(run, state)[1]
            )
            state, phase_metrics, phase_finite = jax.lax.cond(
                (before.step + 1) % phase.every == 0,
                run,
                lambda state, left_out=left_out: (state, left_out, jnp.bool_(True)),
                state,
            )
        finite &= phase_finite
        metrics |= phase_metrics

    step = before.step + 1
    averages = next_averages(state, method.averaged, step, ema_decay, ema_lengths)
    ema_params, power_ema = where(finite, averages, (state.ema_params, state.power_ema))
    guard = next_guard(before.guard, finite, step, scale_loss)
    metrics |= {'skipped': guard.skipped, 'skipped_in_a_row': guard.in_a_row}
    if scale_loss:
        metrics['loss_scale'] = guard.loss_scale
    after = state.replace(step=step, ema_params=ema_params, power_ema=power_ema, guard=guard)
    return after, metrics


def next_averages(
    state: TrainState,
    players: Sequence[str],
    step: Array,
    decay: float,
    lengths: tuple[float, ...],
) -> tuple[Tree, tuple[Tree, ...]]:
    """Equation (4), of the parameters after `step` updates."""
    params = {
        player: evaluated_params(state.opt_state.get(player, ()), state.params[player])
        for player in players
    }
    return (
        optax.incremental_update(params, state.ema_params, 1 - decay),
        tuple(
            averaging.power(average, params, step, length)
            for average, length in zip(state.power_ema, lengths, strict=True)
        ),
    )


def run_phase(
    state: TrainState,
    batch: Batch,
    phase: Phase,
    optimizer: optax.GradientTransformation,
    key: Key,
    num_parts: int,
    scale: Array | None,
    axis_name: str | None,
) -> tuple[TrainState, dict[str, Array], Array]:
    """Equations (1) to (3) for one phase: the state, its metrics with the gradient's norm, and
    whether all was finite."""
    player = phase.player
    gradient, loss, model_state, metrics = gradient_of(state, batch, phase, key, num_parts, scale)
    if axis_name is not None:
        gradient, loss, model_state, metrics = jax.lax.pmean(
            (gradient, loss, model_state, metrics), axis_name
        )
    norm = optax.tree.norm(gradient)
    finite = jnp.isfinite(norm) & jnp.isfinite(loss)
    for leaf in jax.tree.leaves(model_state):
        finite &= jnp.isfinite(leaf).all()
    own, own_state = state.params[player], state.opt_state[player]
    updates, opt_state = optimizer.update(gradient, own_state, own)
    changed = (optax.apply_updates(own, updates), opt_state, model_state)
    own, own_state, model_state = where(finite, changed, (own, own_state, state.model_state))
    state = state.replace(
        params={**state.params, player: own},
        opt_state={**state.opt_state, player: own_state},
        model_state=model_state,
    )
    metrics = {**metrics, 'grad_norm': norm}
    num_too_large = optax.tree.get(own_state, 'num_too_large')
    if num_too_large is not None:
        metrics['too_large'] = num_too_large.astype(jnp.float32)
    stem = f'{player}/' if phase.name is None else f'{player}/{phase.name}_'
    return state, {f'{stem}{name}': value for name, value in metrics.items()}, finite


def gradient_of(
    state: TrainState, batch: Batch, phase: Phase, key: Key, num_parts: int, scale: Array | None
) -> tuple[Tree, Array, Tree, dict[str, Array]]:
    """Equation (1): gradient, loss, model state and metrics, averaged over the parts of the batch.

    With a `scale` the loss is multiplied by it before, and the gradient divided after.
    """

    def loss_of(own, rows, key):
        params = {**state.params, phase.player: own}
        loss, (model_state, metrics) = phase.loss(params, state, rows, key)
        return loss if scale is None else loss * scale, (loss, model_state, metrics)

    def differentiate(rows, key):
        return jax.grad(loss_of, has_aux=True)(state.params[phase.player], rows, key)

    if num_parts == 1:
        gradient, (loss, model_state, metrics) = differentiate(batch, key)
    else:

        def add_part(total, part):
            rows, number = part
            return jax.tree.map(jnp.add, total, differentiate(rows, fold(number))), None

        def fold(number):
            return jax.random.fold_in(key, number)

        parts = jax.tree.map(lambda rows: in_parts(rows, num_parts), batch)
        first = jax.tree.map(lambda rows: rows[0], parts)
        zero = jax.tree.map(
            lambda leaf: jnp.zeros(leaf.shape, leaf.dtype),
            jax.eval_shape(differentiate, first, key),
        )
        total, _ = jax.lax.scan(add_part, zero, (parts, jnp.arange(num_parts)))
        gradient, (loss, model_state, metrics) = jax.tree.map(lambda s: s / num_parts, total)
    if scale is not None:
        gradient = jax.tree.map(lambda g: g / scale, gradient)
    return gradient, loss, model_state, metrics


def in_parts(rows: Array, num_parts: int) -> Array:
    """Rows `[B, ...]` as `[num_parts, B / num_parts, ...]`.

    A part takes every `num_parts`-th row, so that where rows are split over devices, so is each
    part, and no row moves.
    """
    return rows.reshape(-1, num_parts, *rows.shape[1:]).swapaxes(0, 1)


def next_guard(guard: Guard, finite: Array, step: Array, scale_loss: bool) -> Guard:
    """The guard after a step. Where a scale of losses can still be lowered, it may be the culprit:
    then the step is skipped, but does not count in the row."""
    scale, calm = guard.loss_scale, guard.finite_in_a_row
    counts = ~finite
    if scale_loss:
        counts &= scale <= 1
        calm = jnp.where(finite, calm + 1, 0)
        doubles = calm >= STEPS_TO_DOUBLE
        raised = jnp.minimum(scale * 2, LARGEST_LOSS_SCALE)
        scale = jnp.where(finite, jnp.where(doubles, raised, scale), jnp.maximum(scale / 2, 1))
        calm = jnp.where(doubles, 0, calm)
    return Guard(
        skipped=guard.skipped + ~finite,
        in_a_row=jnp.where(counts, guard.in_a_row + 1, 0),
        since=jnp.where(counts & (guard.in_a_row == 0), step, guard.since),
        loss_scale=scale,
        finite_in_a_row=calm,
    )


def where(condition: Array, new: Tree, old: Tree) -> Tree:
    """`new` where the condition, one boolean, holds; else `old`."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)
