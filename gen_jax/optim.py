"""Optimizers from a config section: clipping, a learning-rate schedule, and any of optax's.

(1) clip     g <- g min(1, clip_norm / ||g||)
(2) warm-up  rate(n) = learning_rate min(1, (n + 1) / warmup_steps)       (Ho et al. 2020)
(3) decay    after the warm-up, to `learning_rate` times 0 over `decay_steps`:
             'cosine' along half a period, 'linear' along a line
(4) the update of `optax.<name>`, with its own keyword arguments
"""

import inspect

import jax.numpy as jnp
import optax

from gen_jax.build import check_keywords
from gen_jax.errors import InputError

SCHEDULES = ('constant', 'cosine', 'linear')


def optimizer(
    name: str,
    *,
    learning_rate: float,
    schedule: str = 'constant',
    warmup_steps: int = 0,
    decay_steps: int | None = None,
    clip_norm: float | None = None,
    field: str = 'optim',
    **options,
) -> optax.GradientTransformation:
    """One player's optimizer.

    Args:
      name: of an optax optimizer that takes a learning rate ('adam', 'adamw', 'sgd', 'lion', ...).
      learning_rate: the peak of the schedule.
      schedule: 'constant', 'cosine' or 'linear', after the warm-up.
      warmup_steps: steps of (2); 0 for none.
      decay_steps: steps from the end of the warm-up to a rate of zero; for the decays only.
      clip_norm: the global norm that gradients are held to; None for no limit.
      field: the config section's name, for messages.
      **options: keyword arguments of the optax optimizer.

    Raises:
      InputError: an unknown optimizer, schedule or option, or a value out of its range.
    """
    make = getattr(optax, name, None)
    if make is None or 'learning_rate' not in _parameters(make):
        raise InputError(f'{field}.name: optax has no optimizer {name!r}; try adam, adamw or sgd')
    check_keywords(make, options, field, hidden=('learning_rate',))
    if not learning_rate > 0:
        raise InputError(f'{field}.learning_rate: {learning_rate} must be above 0')
    if clip_norm is not None and not clip_norm > 0:
        raise InputError(f'{field}.clip_norm: {clip_norm} must be above 0, or None for no clipping')
    rate = learning_rate_schedule(learning_rate, schedule, warmup_steps, decay_steps, field)
    update = make(learning_rate=rate, **options)
    if clip_norm is None:
        return update
    return optax.chain(optax.clip_by_global_norm(clip_norm), update)


def learning_rate_schedule(
    peak: float, schedule: str, warmup_steps: int, decay_steps: int | None, field: str
) -> optax.Schedule:
    """The rate of update n (from 0): equations (2) and (3).

    Raises:
      InputError: an unknown schedule, or a decay without `decay_steps` and the reverse.
    """
    if schedule not in SCHEDULES:
        raise InputError(f'{field}.schedule: no {schedule!r}; choose from {", ".join(SCHEDULES)}')
    if (schedule == 'constant') != (decay_steps is None):
        raise InputError(
            f'{field}.decay_steps: {decay_steps} with schedule {schedule!r}; '
            'cosine and linear need it, constant has none'
        )

    if warmup_steps < 0 or (decay_steps is not None and decay_steps < 1):
        raise InputError(
            f'{field}.warmup_steps, {field}.decay_steps: {warmup_steps}, {decay_steps}; '
            'the first must be at least 0, the second at least 1'
        )

    def rate(count):
        warm = jnp.minimum(1.0, (count + 1) / max(warmup_steps, 1))
        if schedule == 'constant':
            return peak * warm
        progress = jnp.clip((count - warmup_steps) / decay_steps, 0.0, 1.0)
        left = 1 - progress if schedule == 'linear' else 0.5 * (1 + jnp.cos(jnp.pi * progress))
        return peak * warm * left

    return rate


def _parameters(function) -> tuple[str, ...]:
    try:
        return tuple(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return ()
