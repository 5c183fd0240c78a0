"""`--mode=report`: what a study found, as files that belong into its folder.

    results.csv          a row for each trial
    table.md             mean ± 95 % over seeds, and the difference from the baseline, of each point
    <metric>.png         the same as a picture, for each field that is varied; needs matplotlib

Table and pictures are made of `results.csv` alone. Where the runs are gone, that of before is read.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from gen_jax.errors import InputError
from gen_jax.selection import better, cost
from gen_jax.sweeps import results
from gen_jax.sweeps.configs import load_study
from gen_jax.sweeps.results import Estimate
from gen_jax.sweeps.runner import read_trials
from gen_jax.sweeps.study import Study, short
from gen_jax.workdir import check_out_folder
from gen_jax.writers import write_atomically

# Trials that are not done, named on the console.
_MOST_NAMES = 3
# Beside a metric's name: where its better values lie.
_DIRECTIONS = {'lower': '↓', 'higher': '↑', 'half': '→ 0.5', 'nowhere': '—'}


def report(file: Path, folder: Path, out: str | None = None) -> list[Path]:
    """Writes the files above; returns their paths.

    Args:
      file: the study's `sweep.py`.
      folder: that of the sweep; where it is not there, the `results.csv` of before is used.
      out: the folder to write in; None: that of `file`.

    Raises:
      InputError: no results, no metrics, or numbers that do not compare.
    """
    study = load_study(file)
    target = file.parent if out is None else check_out_folder(out)
    target.mkdir(parents=True, exist_ok=True)
    table = target / 'results.csv'
    if folder.is_dir():
        rows = results.rows_of(study.metrics, read_trials(folder), folder)
        if not any(row['status'] == 'done' for row in rows):
            raise InputError(f'--workdir: no trial in {folder} is done; run --mode=sweep first')
        results.write(rows, table)
    rows = results.read(table)
    print(progress(rows))
    written = [table, target / 'table.md']
    write_atomically(written[1], markdown(study, rows))
    try:
        from gen_jax.sweeps.plots import plot
    except ImportError:
        print("no pictures: matplotlib is not there; pip install 'gen_jax[plots]'")
    else:
        written += plot(study.metrics, rows, target)
    for path in written:
        print(f'wrote {path}')
    return written


def progress(rows: Sequence[Mapping[str, str]]) -> str:
    """How many trials are done, and which are not."""
    left = {}
    for row in rows:
        left.setdefault(row['status'], []).append(row['trial'])
    num_done = len(left.pop('done', []))
    said = [f'{num_done} of {len(rows)} trials are done']
    for status, names in left.items():
        more = f' (and {len(names) - _MOST_NAMES} more)' if len(names) > _MOST_NAMES else ''
        said.append(f'{status}: {", ".join(names[:_MOST_NAMES])}{more}')
    return '; '.join(said)


def markdown(study: Study, rows: Sequence[Mapping[str, str]]) -> str:
    """The table of a README: a row for each point. The best mean of a metric is bold where it
    is told apart from the next best: the interval of their paired difference is without 0."""
    points = results.points_of(rows)
    base = results.baseline_of(study, rows)
    heads, columns = [*results.labels_of(rows), 'seeds'], []
    for metric in study.metrics:
        measured = {key: results.values_of(own, metric) for key, own in points.items()}
        estimates = {key: results.estimate([*v.values()]) for key, v in measured.items()}
        best = _best(metric, measured)
        means, against = {}, {}
        for key, found in estimates.items():
            cell = f'**{_cell(found)}**' if key == best else _cell(found)
            done = sum(row['status'] == 'done' for row in points[key])
            means[key] = cell if found is None or found.n == done else f'{cell} (of {found.n})'
            difference = results.paired(measured[key], measured[base])
            against[key] = 'baseline' if key == base else _cell(difference, signed=True)
        columns += [means, against]
        heads += [f'{metric} {_DIRECTIONS[better(metric)]}', f'{metric}: difference']
    lines = [heads, ['---'] * len(heads)]
    for key, own in points.items():
        done = sum(row['status'] == 'done' for row in own)
        seeds = f'{done}' if done == len(own) else f'{done} of {len(own)}'
        lines.append([*map(short, key), seeds, *(column[key] for column in columns)])
    return ''.join(f'| {" | ".join(cells)} |\n' for cells in lines)


def _best(metric: str, measured: Mapping[tuple, Mapping[str, float]]) -> tuple | None:
    """The point whose mean is better than that of the next best by more than their seeds explain;
    None where there is none."""
    if better(metric) == 'nowhere':
        return None
    costs = {
        key: {seed: cost(metric, value) for seed, value in values.items()}
        for key, values in measured.items()
        if values
    }
    if len(costs) < 2:
        return None
    best, second = sorted(costs, key=lambda key: results.estimate([*costs[key].values()]).mean)[:2]
    gain = results.paired(costs[second], costs[best])
    told_apart = gain is not None and gain.spread is not None and gain.mean > gain.spread
    return best if told_apart else None


def _cell(found: Estimate | None, signed: bool = False) -> str:
    """A mean with as many digits as its interval makes sense of."""
    if found is None:
        return '-'
    sign = '+' if signed else ''
    if found.spread is None or found.spread == 0:
        return f'{found.mean:{sign}.4g}'
    digits = max(0, 1 - int(f'{found.spread:e}'.split('e')[1]))
    return f'{found.mean:{sign}.{digits}f} ± {found.spread:.{digits}f}'
