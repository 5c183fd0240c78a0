"""What the trials of a study measured: `results.csv`, and what follows from its rows.

With values y_s of a point and b_s of the baseline, s = 1..n the seeds that both have,

    (1) mean        m = 1/n sum_s y_s
    (2) interval    m ± t sd(y) / sqrt(n),   t the 97.5 % point of Student's law with n - 1
                    degrees of freedom; none for a single seed
    (3) difference  (1) and (2) of y_s - b_s: seeds share data order and initialization,
                    so that what they have in common drops out
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import stats

from gen_jax.errors import InputError
from gen_jax.passport import differences
from gen_jax.sweeps.runner import DONE, failure
from gen_jax.sweeps.study import CONFIG, SEED, Study, Trial, describe, labels
from gen_jax.workdir import read_json
from gen_jax.writers import write_atomically

_ERROR = '_stderr'


class Estimate(NamedTuple):
    """Equations (1) and (2) over `n` seeds; `spread` is half of the interval, None for one seed."""

    mean: float
    spread: float | None
    n: int


def rows_of(metrics: Sequence[str], trials: Sequence[Trial], folder: Path) -> list[dict]:
    """A row for each trial: its fields, seed, status, these metrics, step and commit.

    Raises:
      InputError: a metric that was not measured, or numbers that do not compare.
    """
    fields = dict.fromkeys(name for trial in trials for name in trial.fields if name != SEED)
    several = len({trial.config for trial in trials}) > 1
    rows, first, names = [], {}, {}
    for trial in trials:
        row = {'trial': trial.name}
        if several:
            row[CONFIG] = trial.config
        row |= {name: _word(trial.fields.get(name, '')) for name in fields}
        row |= {SEED: str(trial.fields[SEED]), 'status': _status(trial, folder)}
        records = _records(folder / trial.name) if row['status'] == 'done' else {}
        for metric in metrics:
            found = _record(metric, records)
            if found is not None and found['value'] is not None:
                reasons = differences(first.setdefault(metric, (found, trial.name))[0], found)
                if reasons:
                    raise InputError(
                        f'metrics: {metric} of {trial.name} does not compare with that of '
                        f'{first[metric][1]}: {"; ".join(reasons)}'
                    )
            value, error = (found['value'], found['stderr']) if found else (None, None)
            row |= {metric: _number(value), f'{metric}{_ERROR}': _number(error)}
        some = next(iter(records.values()), {})
        row |= {'step': str(some.get('step', '')), 'commit': str(some.get('commit') or '')}
        rows.append(row)
        names |= dict.fromkeys(record['metric'] for record in records.values())
    missing = [metric for metric in metrics if names and metric not in names]
    if missing:
        raise InputError(
            f'metrics: no trial in {folder} measured {", ".join(missing)}; there are '
            f'{", ".join(names)}'
        )
    return rows


def write(rows: Sequence[Mapping[str, str]], path: Path) -> None:
    """Writes the rows as they are, one line each."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [*rows[0]], lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue())


def read(path: Path) -> list[dict[str, str]]:
    """The rows that `write` wrote."""
    try:
        with path.open(newline='') as file:
            rows = [*csv.DictReader(file)]
    except OSError as error:
        raise InputError(f'{path}: cannot be read ({error.strerror}); sweep first') from None
    if not rows or not {'trial', SEED, 'status'} <= rows[0].keys():
        raise InputError(f'{path}: holds no results of a study')
    return rows


def fields_of(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """The columns that say which point a row is of, without those that are the same in all."""
    return [name for name in _fields(rows) if len({row[name] for row in rows}) > 1]


def labels_of(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """These columns for people, told from those that are the same in all, too."""
    found = labels(_fields(rows))
    return [found[name] for name in fields_of(rows)]


def points_of(rows: Sequence[Mapping[str, str]]) -> dict[tuple[str, ...], list[dict]]:
    """The rows of each point, by the values of its fields, in the order of the study."""
    names, found = fields_of(rows), {}
    for row in rows:
        found.setdefault(tuple(row[name] for name in names), []).append(row)
    return found


def values_of(rows: Sequence[Mapping[str, str]], metric: str) -> dict[str, float]:
    """What a point's rows measured, by seed."""
    return {row[SEED]: float(row[metric]) for row in rows if row.get(metric)}


def estimate(values: Sequence[float]) -> Estimate | None:
    """Equations (1) and (2); None of no values."""
    if not values:
        return None
    n, mean = len(values), float(np.mean(values))
    if n == 1:
        return Estimate(mean, None, 1)
    spread = stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / np.sqrt(n)
    return Estimate(mean, float(spread), n)


def paired(values: Mapping[str, float], baseline: Mapping[str, float]) -> Estimate | None:
    """Equation (3)."""
    return estimate([values[seed] - baseline[seed] for seed in values if seed in baseline])


def baseline_of(study: Study, rows: Sequence[Mapping[str, str]]) -> tuple[str, ...]:
    """The values of the baseline's fields, as `points_of` has them."""
    if study.baseline is None:
        return next(iter(points_of(rows)))
    point = study.baseline
    wanted = {name: _word(value) for name, value in point.items()}
    wanted.setdefault(CONFIG, study.config)
    key = tuple(wanted.get(name, '') for name in fields_of(rows))
    if key not in points_of(rows):
        raise InputError(f'baseline: there are no results of {describe(point)}')
    return key


def _fields(rows: Sequence[Mapping[str, str]]) -> list[str]:
    columns = [*rows[0]]
    return columns[1 : columns.index(SEED)]


def _status(trial: Trial, folder: Path) -> str:
    if (folder / trial.name / DONE).exists():
        return 'done'
    failed = failure(trial, folder)
    return 'missing' if failed is None else f'failed ({failed.status})'


def _records(workdir: Path) -> dict[str, dict]:
    path = workdir / 'evaluation.json'
    if not path.exists():
        raise InputError(f'--workdir: {workdir} is {DONE} and has no {path.name}; remove {DONE}')
    return read_json(path)


def _record(metric: str, records: Mapping[str, Mapping]) -> Mapping | None:
    """The record of a metric, whatever its features; None where it was not measured, as where
    samples are not finite."""
    return next((record for record in records.values() if record['metric'] == metric), None)


def _word(value) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _number(value: float | None) -> str:
    return '' if value is None else f'{value:.9g}'
