"""`--mode=compare`: evaluations of several runs side by side, where they measured the same thing.

A number stands in the table only beside numbers of the same measure: see `passport.MUST_BE_EQUAL`.
Whatever else is refused, with the difference.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from gen_jax.errors import InputError
from gen_jax.passport import differences
from gen_jax.selection import cost

# What every record with a passport has.
_NEEDED = {'metric', 'value', 'stderr', 'better', 'n', 'estimator'}
# What may differ between runs, and is shown where it does.
_MAY_DIFFER = (
    'step',
    'average',
    'precision',
    'window',
    'sampler',
    'nfe',
    'seed',
    'commit',
    'device',
)


def compare(workdirs: Sequence[Path]) -> dict[str, list[dict]]:
    """Prints the evaluations of these runs as one table; the first one is the yardstick.

    Returns:
      `{metric: [record of each run]}` for the metrics that all runs have and that compare.

    Raises:
      InputError: fewer than two runs, one that was not evaluated, or, after the table of those
        that compare, metrics that do not.
    """
    if len(workdirs) < 2:
        raise InputError('--workdirs: give two or more evaluated runs, --workdirs=runs/A,runs/B')
    if len({workdir.resolve() for workdir in workdirs}) < len(workdirs):
        raise InputError('--workdirs: the same run is given twice')
    runs = [by_metric(workdir) for workdir in workdirs]
    names = dict.fromkeys(metric for run in runs for metric in run)
    rows, refused, missing = {}, {}, []
    for name in names:
        without = [str(w) for w, run in zip(workdirs, runs, strict=True) if name not in run]
        if without:
            missing.append(f'{name} is not in {", ".join(without)}')
            continue
        records = [run[name] for run in runs]
        if _are_of_other_tokens(records):
            missing.append(f'{name} is of tokens, and these are other tokens of the same text')
            continue
        reasons = reasons_against(workdirs, records)
        if reasons:
            refused.setdefault('; '.join(reasons), []).append(name)
        else:
            rows[name] = records
    if not rows and not refused:
        raise InputError('--workdirs: these evaluations have no metric in common')
    if rows:
        _show(workdirs, rows)
    for line in missing:
        print(f'left out: {line}')
    if refused:
        lines = (f'{", ".join(names)}: {reason}' for reason, names in refused.items())
        raise InputError('not comparable: ' + ' | '.join(lines))
    return rows


def by_metric(workdir: Path) -> dict[str, dict]:
    """The records of a run's `evaluation.json`, by what they measure.

    Raises:
      InputError: there is none, or it is no evaluation with passports.
    """
    path = workdir / 'evaluation.json'
    try:
        records = json.loads(path.read_text())
        if not all(record.keys() >= _NEEDED for record in records.values()):
            raise KeyError
        return {record['metric']: {**record, 'name': name} for name, record in records.items()}
    except FileNotFoundError:
        raise InputError(
            f'--workdirs: {workdir} has no evaluation.json; evaluate it first'
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f'--workdirs: cannot read {path}; evaluate the run anew') from None


def _are_of_other_tokens(records: Sequence[Mapping]) -> bool:
    """Whether these are numbers per token of one text, in several tokenizations."""
    texts = {record.get('text_fingerprint') for record in records}
    tokens = {record.get('data_fingerprint') for record in records}
    return len(texts) == 1 and None not in texts and len(tokens) > 1


def reasons_against(workdirs: Sequence[Path], records: Sequence[Mapping]) -> list[str]:
    """Why records of one metric do not compare with the first of them."""
    return [
        f'{difference} in {workdirs[0]} and {workdir}'
        for workdir, record in zip(workdirs[1:], records[1:], strict=True)
        for difference in differences(records[0], record)
    ]


def _show(workdirs: Sequence[Path], rows: Mapping[str, Sequence[Mapping]]) -> None:
    table = Table(
        caption='value +- standard error; * better by two errors of the difference; '
        'difference from the first run, with the error of independent numbers'
    )
    table.add_column('')
    for number, workdir in enumerate(workdirs):
        table.add_column(str(workdir), justify='right', overflow='fold')
        if number > 0:
            table.add_column('difference', justify='right')
    for records in rows.values():
        best, cells = _best(records), [records[0]['name']]
        for number, record in enumerate(records):
            mark = ' *' if number == best else ''
            cells.append(_with_error(record['value'], record['stderr']) + mark)
            if number > 0:
                cells.append(_difference(records[0], record))
        table.add_row(*cells)
    table.add_section()
    for field in _MAY_DIFFER:
        values = [_first(rows, number, field) for number in range(len(workdirs))]
        if any(value != values[0] for value in values):
            words = ['-' if value is None else str(value) for value in values]
            table.add_row(field, words[0], *(cell for word in words[1:] for cell in (word, '')))
    # Wide enough for the whole table where nobody looks at a terminal.
    console = Console()
    Console(width=None if console.is_terminal else 200).print(table)


def _first(rows: Mapping[str, Sequence[Mapping]], number: int, field: str):
    """What the first record of a run that has this field says."""
    found = (records[number][field] for records in rows.values() if field in records[number])
    return next(found, None)


def _best(records: Sequence[Mapping]) -> int | None:
    """The position of the best one, if it is better than each other by two errors."""
    costs = [np.inf if r['value'] is None else cost(r['metric'], r['value']) for r in records]
    best, errors = int(np.argmin(costs)), [r['stderr'] or 0.0 for r in records]
    ahead = (
        costs[i] - costs[best] > 2 * np.hypot(errors[i], errors[best])
        for i in range(len(records))
        if i != best
    )
    return best if all(ahead) else None


def _with_error(value: float | None, error: float | None) -> str:
    if value is None:
        return 'none'
    return f'{value:.5g}' if error is None else f'{value:.5g} +- {error:.2g}'


def _difference(first: Mapping, other: Mapping) -> str:
    """With the error of two independent numbers."""
    if None in (first['value'], other['value']):
        return ''
    errors = (first['stderr'], other['stderr'])
    error = None if None in errors else float(np.hypot(*errors))
    return _with_error(other['value'] - first['value'], error)
