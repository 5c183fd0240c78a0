"""What a run does about losses and gradients that are not finite.

The step skips them (`step.py`), so the state stays as it was before them. The sentinel reads how
many were skipped in a row; at the limit it ends the run, and a record says all that is needed to
compute the first of these steps again: `divergence.json`, read by `--mode=replay`.
"""

import json
import sys
from pathlib import Path

import jax

from gen_jax.errors import Diverged, InputError
from gen_jax.state import TrainState
from gen_jax.types import Array
from gen_jax.writers import write_json

FILE = 'divergence.json'


class Sentinel:
    """Follows a run's steps, always one behind, so that the devices never wait for it.

    `limit` is how many steps may be skipped one after the other.
    """

    def __init__(self, limit: int):
        self._limit, self._held = limit, None

    def follow(self, step: int, in_a_row: Array | int) -> None:
        """Takes this step's count, and looks at the one before.

        A run that reached the limit there and took a good step here has recovered, and its state
        is no longer the one before the bad steps.

        Raises:
          Diverged: there the limit was reached, and this step was skipped too.
        """
        held, self._held = self._held, (step, in_a_row)
        if held is not None and self._look(*held) >= self._limit:
            self._end_if_reached()

    def finish(self) -> None:
        """Looks at the last one.

        Raises:
          Diverged: the limit was reached.
        """
        if self._held is not None:
            self._look(*self._held)
            self._end_if_reached()

    def _look(self, step: int, in_a_row: Array | int) -> int:
        count = int(in_a_row)
        if count == 1 and jax.process_index() == 0:
            print(f'warning: step {step} skipped: loss or gradient not finite', file=sys.stderr)
        return count

    def _end_if_reached(self) -> None:
        step, count = self._held[0], int(self._held[1])
        if count >= self._limit:
            raise Diverged(
                f'losses or gradients of {count} steps in a row, to step {step}, were not finite'
            )


def write_record(workdir: Path, state: TrainState, examples: list[int], data_seed: int) -> dict:
    """Writes and returns the record of a run that ended with this state.

    `examples` are the numbers of the training examples in the batch of the first skipped step.
    """
    step = int(state.guard.since)
    record = {
        'step': step,
        'checkpoint': int(state.step),
        'skipped_in_a_row': int(state.guard.in_a_row),
        'skipped': int(state.guard.skipped),
        'loss_scale': float(state.guard.loss_scale),
        'seed': data_seed,
        'base_key': jax.random.key_data(state.key).tolist(),
        'step_key': jax.random.key_data(jax.random.fold_in(state.key, step - 1)).tolist(),
        'batch_indices': examples,
    }
    if jax.process_index() == 0:
        write_json(workdir / FILE, record)
    return record


def read_record(workdir: Path) -> dict:
    """What `write_record` wrote.

    Raises:
      InputError: there is no such record, or it cannot be read.
    """
    path = workdir / FILE
    try:
        record = json.loads(path.read_text())
        examples = {'batch_indices': list(record['batch_indices'])}
        return record | {name: int(record[name]) for name in ('step', 'checkpoint')} | examples
    except FileNotFoundError:
        raise InputError(f'--workdir: there is no {path}; this run has not diverged') from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f'--workdir: cannot read {path} ({error})') from None
