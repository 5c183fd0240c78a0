"""A trained model, as samples, evaluations and exports want it: which checkpoint, which average."""

import functools
from pathlib import Path
from typing import NamedTuple

from gen_jax import averaging
from gen_jax.averaging import Profile
from gen_jax.checkpoint import Checkpoints, restore_for_use
from gen_jax.errors import InputError
from gen_jax.run import Run
from gen_jax.selection import chosen_step
from gen_jax.state import TrainState
from gen_jax.types import Tree

# A combination that lies further from the average it stands for, as a share of that, is refused.
_LARGEST_ERROR = 0.1
# A share of random weights in an average, of short runs, that explains what it is worth.
_NOTABLE = 0.01


class Trained(NamedTuple):
    """A state whose `ema_params` are the weights to use, and what average these are."""

    state: TrainState
    average: str


def trained(
    run: Run, config, workdir: Path, checkpoint: str = 'latest', ema_length: float | None = None
) -> Trained:
    """A checkpoint of a run.

    Args:
      run: of the config.
      config: the run's config.
      workdir: the run's folder, which stays as it is.
      checkpoint: 'latest', 'best' or a step.
      ema_length: of the average, as a share of the training up to that checkpoint, made from the
        snapshots of the run; None for the run's own average, of `ema.decay`.

    Raises:
      InputError: there is no such checkpoint, or the average cannot be made.
    """
    choose = functools.partial(chosen_step, workdir, checkpoint, config.train.best_by)
    state = restore_for_use(run.template, workdir, choose)
    if ema_length is None:
        left = config.ema.decay ** int(state.step)
        about = '' if left < _NOTABLE else f', {left:.0%} of it from before the first step'
        return Trained(state, f'decay {config.ema.decay:g}{about}')
    lengths = tuple(config.ema.lengths)
    average, error = average_of(run, workdir, state, lengths, ema_length)
    words = f'length {ema_length:g} (combined from snapshots, {error:.1%} off)'
    return Trained(state.replace(ema_params=average), words)


def average_of(
    run: Run, workdir: Path, state: TrainState, lengths: tuple[float, ...], length: float
) -> tuple[Tree, float]:
    """The average of this length up to the state's step, from that state's own averages, which are
    of `lengths`, and the snapshots before it; and how far it lies from the true one, as a share of
    its norm as a function of time.

    Raises:
      InputError: the run kept none, or none that make such an average.
    """
    averaging.check_length(length, '--ema_length')
    if not state.power_ema:
        raise InputError(
            '--ema_length: this run kept no averages of other lengths; train with '
            'ema.snapshot_every set'
        )
    now, exponents = int(state.step), [averaging.exponent_of(known) for known in lengths]
    with Checkpoints(workdir, read_only=True, name='averages') as snapshots:
        steps = [step for step in snapshots.steps() if step < now]
        profiles = [Profile(step, g) for step in (*steps, now) for g in exponents]
        target = Profile(now, averaging.exponent_of(length))
        weights, error = averaging.combination(profiles, target)
        if error > _LARGEST_ERROR:
            raise InputError(
                f'--ema_length: from the averages of lengths {lengths} at {len(steps) + 1} steps '
                f'one of {length:g} can only be made {error:.0%} off; use a length nearer to '
                'these, or train with more snapshots'
            )

        def kept():
            for step in steps:
                yield from snapshots.restore(run.template.power_ema, step)
            yield from state.power_ema

        return averaging.weighted_sum(weights, kept()), error
