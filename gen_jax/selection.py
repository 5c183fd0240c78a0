"""Which checkpoint is meant: the latest, a step, or the best by a number of the evaluations.

The best is found from the rows of `metrics.jsonl` alone, so a resumed run finds the same one.
"""

import math
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from gen_jax.errors import InputError
from gen_jax.writers import read_rows

# Of everything that is evaluated, what is better when it is higher, what is best at one half, and
# what is no better anywhere; everything else is better when it is lower.
HIGHER_IS_BETTER = (
    *('precision', 'recall', 'density', 'coverage', 'IS', 'accuracy'),
    *('confident', 'modes', 'smallest_class'),
    *('active_units', 'psnr', 'code_usage', 'code_perplexity'),
)
BEST_AT_HALF = ('C2ST', 'nearer', 'told_apart')
BEST_NOWHERE = ('discriminator_loss', 'logit_of_real', 'logit_of_made')


def better(metric: str) -> str:
    """'lower', 'higher', 'half' or 'nowhere': where the better values of a metric lie."""
    if metric in BEST_NOWHERE:
        return 'nowhere'
    if metric in BEST_AT_HALF:
        return 'half'
    return 'higher' if metric in HIGHER_IS_BETTER else 'lower'


def cost(metric: str, value: float) -> float:
    """The value as a number that is lower where it is better; infinite where none is better."""
    costs = {'lower': value, 'higher': -value, 'half': abs(value - 0.5), 'nowhere': math.inf}
    return costs[better(metric)]


def best_step(rows: Iterable[Mapping], best_by: str | None, steps: Collection[int]) -> int | None:
    """The one of `steps` whose evaluation was best, the earliest of equals; None if none has one.

    `best_by` is a metric, whatever its features: 'FD' finds 'eval/FD-1a2b3c4d', and 'eval/FID@768'
    too, for so it is called on Inception's features. Of features that a run changed on its way only
    the last ones count, for numbers on others do not compare. None asks for no best.
    """
    if best_by is None:
        return None
    found = [
        (name, cost(best_by, value), row['step'])
        for row in rows
        for name, value in row.items()
        if row['step'] in steps and value is not None and _metric_of(name) == best_by
    ]
    return min(pair for name, *pair in found if name == found[-1][0])[1] if found else None


def _metric_of(name: str) -> str | None:
    """The metric of a name in a row, without its features; None for what is no evaluation."""
    if not name.startswith('eval/'):
        return None
    metric = name.removeprefix('eval/').split('@')[0].split('-')[0]
    return 'FD' if metric == 'FID' else metric


def chosen_step(
    workdir: Path, checkpoint: str, best_by: str | None, steps: Collection[int]
) -> int | None:
    """The step that `--checkpoint` names, of the `steps` that are saved; None for the latest.

    Raises:
      InputError: neither 'latest', 'best' nor a number; or there is no best one.
    """
    if checkpoint == 'latest':
        return None
    if checkpoint.isdecimal():
        return int(checkpoint)
    if checkpoint != 'best':
        raise InputError(f"--checkpoint: {checkpoint!r}; use 'latest', 'best' or a step")
    if best_by is None:
        raise InputError('--checkpoint: this run keeps no best one; train with train.best_by set')
    step = best_step(read_rows(workdir / 'metrics.jsonl'), best_by, steps)
    if step is None:
        raise InputError(
            f'--checkpoint: no checkpoint of {workdir} was evaluated for {best_by!r} yet'
        )
    return step
