"""Optimizers from a config section: clipping, a learning-rate schedule, and any of optax's.

(0) skip     nothing changes where ||g|| > skip_above                     (Child 2021)
(1) clip     g <- g min(1, clip_norm / ||g||)
(2) warm-up  rate(n) = learning_rate min(1, (n + 1) / warmup_steps)       (Ho et al. 2020)
(3) decay    after the warm-up, and `stable_steps` at the peak, to `learning_rate` times
             `final_rate` over `decay_steps`: 'cosine' along half a period, 'linear' along a line;
             in (2) and (3) n is the step: the updates so far, divided by a step's
(4) the update of `optax.<name>` or `optax.contrib.<name>`, with its own keyword arguments

'linear' with a plateau is the schedule WSD: warm-up, stable, decay (Hu et al. 2024, MiniCPM; that
the decay may be a line is from Hägele et al. 2024).

'muon' (Jordan et al. 2024) moves every matrix W [in, out] inside a block by its momentum with the
singular values made about 1:

(5) m <- beta m + (1 - beta) g
    u  = beta m / (1 - beta^(n + 2)) + (1 - beta) g / (1 - beta^(n + 1))
    X <- u / ||u||_F, and `ns_steps` times  X <- a X + (b X X' + c (X X')^2) X,
         (a, b, c) = (3.4445, -4.7750, 2.0315); singular values that were above 0.003 then lie,
         for 5 such steps, between 0.68 and 1.21
    W <- W - rate(n) (s X + weight_decay W)
(6) s = sqrt(max(1, out / in))                     (Jordan et al. 2024), or
    s = consistent_rms sqrt(max(in, out))          (Liu et al. 2025)

and everything else by AdamW (Loshchilov & Hutter 2019). With the second s the numbers of s X have
a root mean square of about `consistent_rms` whatever the matrix's shape, where X has full rank. By
Liu et al. 0.2 is about that of AdamW's updates, so that its rate and its decay can be kept.
"""

import functools
import inspect
import re
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from gen_jax.build import check_keywords
from gen_jax.errors import InputError
from gen_jax.types import Array, Tree

SCHEDULES = ('constant', 'cosine', 'linear')
DECAYED = ('all', 'matrices')

# Leaves are told apart by their names. Their axes would not do: `nn.scan` adds one to each.
_MATRICES = ('kernel', 'embedding')
_STACKED = 'blocks'
_BLOCK = re.compile(rf'{_STACKED}|block_\d+')
# What optax's optimizers call the tree that says where weights decay.
_MASKS = ('mask', 'weight_decay_mask')
_RATES = ('learning_rate', 'adam_learning_rate')


def optimizer(
    name: str,
    *,
    learning_rate: float,
    schedule: str = 'constant',
    warmup_steps: int = 0,
    stable_steps: int = 0,
    decay_steps: int | None = None,
    final_rate: float = 0.0,
    clip_norm: float | None = None,
    skip_above: float | None = None,
    decayed: str = 'all',
    updates_per_step: float = 1,
    field: str = 'optim',
    **options,
) -> optax.GradientTransformation:
    """One player's optimizer.

    Args:
      name: of an optax optimizer that takes a learning rate ('adam', 'adamw', 'sgd', 'lion',
        'schedule_free_adamw', ...), or 'muon', whose arguments are those of the function below.
      learning_rate: the peak of the schedule.
      schedule: 'constant', 'cosine' or 'linear', after the warm-up.
      warmup_steps: steps of (2); 0 for none.
      stable_steps: steps at the peak between the warm-up and the decay; for the decays only.
      decay_steps: steps of the decay; for the decays only.
      final_rate: the share of the peak that the decay ends at.
      clip_norm: the global norm that gradients are held to; None for no limit.
      skip_above: the global norm, before clipping, above which a gradient is not used at all; None
        for no limit. See `skip_large`.
      decayed: the parameters that weight decay pulls to zero: 'all', or 'matrices', which leaves
        out the biases and the scales of norms: the leaves named 'kernel' and 'embedding'.
      updates_per_step: how often the player is updated in a step of training, which the schedule
        goes by: `Method.updates_per_step`.
      field: the config section's name, for messages.
      **options: keyword arguments of the optax optimizer.

    Raises:
      InputError: an unknown optimizer, schedule or option, or a value out of its range.
    """
    make = getattr(optax, name, None) or getattr(optax.contrib, name, None)
    if name == 'muon':
        make = functools.partial(muon, field=field)
    if make is None or 'learning_rate' not in _parameters(make):
        raise InputError(f'{field}.name: optax has no optimizer {name!r}; try adam, adamw or sgd')
    check_keywords(make, options, field, hidden=('learning_rate', 'field', *_MASKS))
    options |= {'learning_rate': learning_rate, **_mask(name, make, decayed, field)}
    _check_values(name, options, clip_norm, skip_above, field)
    for rate in _RATES:
        if rate in options:
            options[rate] = learning_rate_schedule(
                options[rate], schedule, warmup_steps, stable_steps, decay_steps, final_rate, field
            )
            if updates_per_step != 1:
                options[rate] = _by_update(options[rate], updates_per_step)
    update = make(**options)
    if clip_norm is not None:
        update = optax.chain(optax.clip_by_global_norm(clip_norm), update)
    return update if skip_above is None else skip_large(update, skip_above)


def _check_values(
    name: str, options: dict, clip_norm: float | None, skip_above: float | None, field: str
) -> None:
    """Raises InputError for a value out of its range."""
    if clip_norm is not None and not clip_norm > 0:
        raise InputError(f'{field}.clip_norm: {clip_norm} must be above 0, or None for no clipping')
    if skip_above is not None and not skip_above > (clip_norm or 0):
        raise InputError(
            f'{field}.skip_above: {skip_above} must be above 0 and {field}.clip_norm, or None to '
            'skip no gradient'
        )
    for rate in _RATES:
        if rate in options and not options[rate] > 0:
            raise InputError(f'{field}.{rate}: {options[rate]} must be above 0')
    for beta in ('b1', 'b2'):
        if not 0 <= options.get(beta, 0) < 1:
            raise InputError(f'{field}.{beta}: {options[beta]} must be from 0 to below 1')
    if 'schedule_free' in name and options.get('b1') == 0:
        raise InputError(f'{field}.b1: 0 leaves no average to evaluate; it must be above 0')


def _by_update(by_step: optax.Schedule, updates_per_step: float) -> optax.Schedule:
    """A schedule of steps as one of updates."""
    return lambda count: by_step(count / updates_per_step)


class SkipLarge(NamedTuple):
    """The state of `skip_large`: how many gradients were too large so far, and that of the rest."""

    num_too_large: Array
    inner: optax.OptState


def skip_large(
    inner: optax.GradientTransformation, skip_above: float
) -> optax.GradientTransformation:
    """`inner`, but a gradient of a norm above `skip_above` moves nothing: neither a parameter, by
    weight decay either, nor a moment, nor the count that the schedule goes by.

    The step (`step.py`) shows the count. `optax.MultiSteps` with `skip_large_updates` would do the
    same, with a gradient more in memory and in every checkpoint, and no count.
    """

    def init(params: Tree) -> SkipLarge:
        return SkipLarge(jnp.int32(0), inner.init(params))

    def update(gradient: Tree, state: SkipLarge, params: Tree | None = None):
        too_large = optax.tree.norm(gradient) > skip_above
        updates, after = inner.update(gradient, state.inner, params)
        updates = jax.tree.map(lambda u: jnp.where(too_large, jnp.zeros_like(u), u), updates)
        after = jax.tree.map(lambda new, old: jnp.where(too_large, old, new), after, state.inner)
        return updates, SkipLarge(state.num_too_large + too_large, after)

    return optax.GradientTransformation(init, update)


def evaluated_params(state: optax.OptState, params: Tree) -> Tree:
    """The parameters that a model is evaluated with: the trained ones, but for a schedule-free
    optimizer (Defazio et al. 2024), whose gradients are taken at y = (1 - b1) z + b1 x while x, the
    running average, is the model."""
    is_free = functools.partial(_is, optax.contrib.ScheduleFreeState)
    free = [leaf for leaf in jax.tree.leaves(state, is_leaf=is_free) if is_free(leaf)]
    return optax.contrib.schedule_free_eval_params(free[0], params) if free else params


def _is(kind: type, value) -> bool:
    return isinstance(value, kind)


def steps_of_schedule(
    warmup_steps: int = 0, stable_steps: int = 0, decay_steps: int | None = None, **others
) -> int:
    """The steps after which the rate stays, of an optimizer's section."""
    return warmup_steps + stable_steps + (decay_steps or 0)


def learning_rate_schedule(
    peak: float,
    schedule: str,
    warmup_steps: int,
    stable_steps: int,
    decay_steps: int | None,
    final_rate: float,
    field: str,
) -> optax.Schedule:
    """The rate of step n (from 0): equations (2) and (3).

    Raises:
      InputError: an unknown schedule, a decay without `decay_steps`, what only decays have for
        'constant', or a value out of its range.
    """
    if schedule not in SCHEDULES:
        raise InputError(f'{field}.schedule: no {schedule!r}; choose from {", ".join(SCHEDULES)}')
    if (schedule == 'constant') != (decay_steps is None):
        raise InputError(
            f'{field}.decay_steps: {decay_steps} with schedule {schedule!r}; '
            'cosine and linear need it, constant has none'
        )
    for name, value in (('stable_steps', stable_steps), ('final_rate', final_rate)):
        if schedule == 'constant' and value != 0:
            raise InputError(
                f"{field}.{name}: {value} with schedule 'constant', which stays at the peak; "
                'use 0, or cosine or linear'
            )
    if min(warmup_steps, stable_steps) < 0 or (decay_steps is not None and decay_steps < 1):
        raise InputError(
            f'{field}.warmup_steps, {field}.stable_steps, {field}.decay_steps: {warmup_steps}, '
            f'{stable_steps}, {decay_steps}; the first two must be at least 0, the last at least 1'
        )
    if not 0 <= final_rate < 1:
        raise InputError(
            f'{field}.final_rate: {final_rate} must be a share of the peak, from 0 to below 1'
        )

    def rate(count):
        warm = jnp.minimum(1.0, (count + 1) / max(warmup_steps, 1))
        if schedule == 'constant':
            return peak * warm
        progress = jnp.clip((count - (warmup_steps + stable_steps)) / decay_steps, 0.0, 1.0)
        left = 1 - progress if schedule == 'linear' else 0.5 * (1 + jnp.cos(jnp.pi * progress))
        return peak * warm * (final_rate + (1 - final_rate) * left)

    return rate


def muon(
    learning_rate: float | optax.Schedule,
    *,
    adam_learning_rate: float | optax.Schedule,
    beta: float = 0.95,
    nesterov: bool = True,
    ns_steps: int = 5,
    consistent_rms: float | None = None,
    weight_decay: float = 0.0,
    adam_b1: float = 0.9,
    adam_b2: float = 0.999,
    adam_eps: float = 1e-8,
    adam_weight_decay: float = 0.0,
    mask: Callable[[Tree], Tree] | None = None,
    field: str = 'optim',
) -> optax.GradientTransformation:
    """Equations (5) and (6) for the matrices inside blocks, AdamW for all other parameters.

    Inside a block is a leaf below a module named 'block_<i>', or 'blocks' where `nn.scan` has
    stacked them. Its matrices are the leaves named 'kernel': `[in, out]`, or `[in, parts, out]` for
    parts that one product computes, such as queries, keys and values, each of which is a matrix of
    its own to (5). Stacked ones have the axis of the blocks before these.

    Args:
      learning_rate: of the matrices.
      adam_learning_rate: of the rest. `optimizer` gives both the same schedule.
      beta: of the momentum.
      nesterov: whether u looks ahead, as in (5); without, u = m / (1 - beta^(n + 1)).
      ns_steps: iterations of (5).
      consistent_rms: of the second s in (6); None for the first.
      weight_decay: of the matrices.
      adam_b1, adam_b2, adam_eps, adam_weight_decay: of the rest, as `optax.adamw` has them.
      mask: which of the rest decay; None for all. The matrices do.
      field: the config section's name, for messages.

    Raises:
      InputError: a value out of its range; later, in `init`, a network with no such matrix, or with
        one whose axes are others.
    """
    if not 0 <= beta < 1:
        raise InputError(f'{field}.beta: {beta} must be from 0 to below 1')
    if ns_steps < 1:
        raise InputError(f'{field}.ns_steps: {ns_steps} must be at least 1')
    if consistent_rms is not None and not consistent_rms > 0:
        raise InputError(f'{field}.consistent_rms: {consistent_rms} must be above 0, or None')

    # optax's muon would give the rest Nesterov's momentum too, and no mask.
    return optax.partition(
        {
            'muon': optax.contrib.muon(
                learning_rate,
                beta=beta,
                nesterov=nesterov,
                ns_steps=ns_steps,
                consistent_rms=consistent_rms,
                weight_decay=weight_decay,
                muon_weight_dimension_numbers=functools.partial(_axes, field=field),
            ),
            'adamw': optax.adamw(
                adam_learning_rate,
                b1=adam_b1,
                b2=adam_b2,
                eps=adam_eps,
                weight_decay=adam_weight_decay,
                mask=mask,
            ),
        },
        functools.partial(_parts, field=field),
    )


def _parts(params: Tree, field: str) -> Tree:
    """'muon' for the matrices inside blocks, 'adamw' for others."""

    def part(path, _):
        *modules, name = _names(path) or ('',)
        inside = any(_BLOCK.fullmatch(module) for module in modules)
        return 'muon' if inside and name == 'kernel' else 'adamw'

    parts = jax.tree_util.tree_map_with_path(part, params)
    if 'muon' not in jax.tree.leaves(parts):
        raise InputError(
            f"{field}.name: muon is for matrices inside blocks, leaves 'kernel' below a module "
            f"'block_<i>' or '{_STACKED}', and this network has none; use adamw"
        )
    return parts


def _axes(matrices: Tree, field: str) -> Tree:
    """Which axes of each matrix are its inputs and its outputs; others count matrices."""

    def axes(path, kernel):
        names = _names(path)
        first = names.count(_STACKED)  # a stack within a stack has two axes more
        if kernel.ndim - first not in (2, 3):
            raise InputError(
                f'{field}.name: muon takes kernels [in, out] or [in, parts, out] inside blocks, '
                f'and {"/".join(names)} is {list(kernel.shape)}; use adamw'
            )
        return optax.contrib.MuonDimensionNumbers(first, kernel.ndim - 1)

    return jax.tree_util.tree_map_with_path(axes, matrices)


def _mask(name: str, make: Callable, decayed: str, field: str) -> dict[str, Callable]:
    """The argument that tells an optimizer which parameters decay."""
    if decayed not in DECAYED:
        raise InputError(f'{field}.decayed: no {decayed!r}; choose from {", ".join(DECAYED)}')
    if decayed == 'all':
        return {}
    for mask in _MASKS:
        if mask in _parameters(make):
            return {mask: _is_matrix}
    raise InputError(
        f"{field}.decayed: {name} decays all parameters or none; use 'all', or adamw, lion or muon"
    )


def _is_matrix(params: Tree) -> Tree:
    """Whether each leaf is a kernel or a table of embeddings, those of positions too."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: _names(path)[-1:] in [(name,) for name in _MATRICES], params
    )


def _names(path: tuple) -> tuple[str, ...]:
    """Of the modules above a leaf, and its own; a box around it (`nn.LogicallyPartitioned`) has
    none."""
    return tuple(key.key for key in path if isinstance(key, jax.tree_util.DictKey))


def _parameters(function) -> tuple[str, ...]:
    try:
        return tuple(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return ()
