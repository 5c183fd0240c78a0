"""A study: one question, the runs that answer it, and what is measured of them.

It is a folder, `experiments/<study>/`, whose file `sweep.py` has one function:

    from gen_jax.sweeps.study import Study, grid

    def sweep() -> Study:
        return Study(
            config='configs/ddpm_digits.py',
            points=grid({'method.prediction': ('epsilon', 'v'), 'ema.decay': (0.99, 0.999)}),
            seeds=3,
            metrics=('FD',),
            baseline={'method.prediction': 'epsilon', 'ema.decay': 0.999},
        )

A point gives values to fields of the config. Points are made by `grid`, `zipped`, `draws` and
`crossed`, or written down. The name `config` in a point stands for the file itself, for what no
field can say. A trial is one point with one seed.
"""

import hashlib
import itertools
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from gen_jax.errors import InputError
from gen_jax.workdir import plain

CONFIG, SEED = 'config', 'seed'
Point = Mapping[str, Any]


class Study(NamedTuple):
    """What `sweep()` returns.

    Attributes:
      config: the file of the runs, with its argument if it has one: 'configs/X.py:smoke'.
      points: what is varied, in the order of the table.
      seeds: how many, from 0, or which; each point is trained with all of them.
      metrics: names of `evaluation.json`, without the features' fingerprint: 'FD', 'bits_per_dim'.
      baseline: the point that others are compared with, seed by seed; None: the first one.
      search: instead of `points`, what to look for; see `search.py`.
    """

    config: str
    points: Sequence[Point] = ()
    seeds: int | Sequence[int] = 1
    metrics: Sequence[str] = ()
    baseline: Point | None = None
    search: 'Search | None' = None


class Search(NamedTuple):
    """Points that are chosen one after the other, by what the ones before them gave.

    Attributes:
      fields: a `Law` for each field.
      metric: what is made small, or large where it is better so.
      num_trials: how many.
      seed: of the first ones, which are random.
    """

    fields: Mapping[str, 'Law']
    metric: str
    num_trials: int
    seed: int = 0


class Uniform(NamedTuple):
    """Numbers from `low` to `high`, whole ones if these are."""

    low: float
    high: float


class LogUniform(NamedTuple):
    """Numbers from `low` to `high` whose logarithm is uniform."""

    low: float
    high: float


class Choice(NamedTuple):
    """One of these."""

    values: Sequence


Law = Uniform | LogUniform | Choice


class Trial(NamedTuple):
    """One run: the `index`-th of the study, in the folder `name`; its seed is one of the fields."""

    index: int
    name: str
    config: str
    fields: Point


def grid(fields: Mapping[str, Sequence]) -> list[Point]:
    """Every combination of these values; the last field changes fastest."""
    _check_values('grid', fields)
    return [
        dict(zip(fields, values, strict=True)) for values in itertools.product(*fields.values())
    ]


def zipped(fields: Mapping[str, Sequence]) -> list[Point]:
    """The first values of all fields, the second ones, and so on."""
    _check_values('zipped', fields)
    lengths = {name: len(values) for name, values in fields.items()}
    if len(set(lengths.values())) > 1:
        said = ', '.join(f'{length} of {name}' for name, length in lengths.items())
        raise InputError(f'zipped: {said}; give as many values of each')
    return [dict(zip(fields, values, strict=True)) for values in zip(*fields.values(), strict=True)]


def draws(num: int, seed: int, fields: Mapping[str, Law]) -> list[Point]:
    """So many random points; the same ones for the same arguments, numbers to four digits."""
    check_laws('draws', fields)
    if num < 1:
        raise InputError(f'draws: {num} points; ask for 1 or more')
    rng = np.random.default_rng(seed)
    return [{name: _draw(rng, law) for name, law in fields.items()} for _ in range(num)]


def crossed(*several: Sequence[Point]) -> list[Point]:
    """Every point of the first with every one of the second, and so on."""
    points = []
    for parts in itertools.product(*several):
        names = [name for part in parts for name in part]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise InputError(f'crossed: {twice} is in more than one of the parts')
        points.append({name: value for part in parts for name, value in part.items()})
    return points


def check_types(study: Study) -> None:
    """Raises InputError for a study whose parts are of other kinds than `Study` says."""
    kinds = {
        'config': (study.config, str, "'configs/X.py'"),
        'points': (study.points, list | tuple, 'a list of points'),
        'seeds': (study.seeds, int | list | tuple | range, 'a number, or a list of seeds'),
        'metrics': (study.metrics, list | tuple, "a tuple of names, ('FD',)"),
        'baseline': (study.baseline, Mapping | None, 'a point, or None'),
        'search': (study.search, Search | None, 'a Search, or None'),
        **{f'points[{i}]': (p, Mapping, '{field: value}') for i, p in enumerate(study.points)},
    }
    for name, (value, kind, right) in kinds.items():
        if not isinstance(value, kind):
            raise InputError(f'{name}: {value!r}; give {right}')
    for seed in () if isinstance(study.seeds, int) else study.seeds:
        if not isinstance(seed, int) or seed < 0:
            raise InputError(f'seeds: {seed!r} must be a whole number from 0')


def trials(study: Study) -> list[Trial]:
    """The trials of the points, all points with the first seed first.

    Raises:
      InputError: parts of another kind, no points or seeds, one of them twice, or a baseline that
        is none of the points.
    """
    check_types(study)
    seeds = seeds_of(study)
    if not study.points:
        raise InputError('points: there are none; give at least one, {} for the config as it is')
    for number, point in enumerate(study.points):
        if SEED in point:
            raise InputError(
                f'points[{number}]: seed is no field of a point; set seeds of the study'
            )
        first = [*map(identity, study.points)].index(identity(point))
        if first < number:
            raise InputError(f'points[{number}]: is points[{first}] again, {describe(point)}')
    if study.baseline is not None and identity(study.baseline) not in map(identity, study.points):
        raise InputError(f'baseline: {describe(study.baseline)} is none of the points')
    pairs = [(seed, point) for seed in seeds for point in study.points]
    return [
        make_trial(i, study.config, {**point, SEED: seed}) for i, (seed, point) in enumerate(pairs)
    ]


def seeds_of(study: Study) -> list[int]:
    """The seeds that every point is trained with."""
    seeds = [*range(study.seeds)] if isinstance(study.seeds, int) else [*study.seeds]
    if not seeds:
        raise InputError('seeds: there are none; give 1 or more')
    if len(set(seeds)) < len(seeds):
        raise InputError(f'seeds: {seeds} has one twice')
    return seeds


def make_trial(index: int, config: str, fields: Point) -> Trial:
    """A trial with the name that its config and fields give it, wherever in a study they stand."""
    own = str(fields.get(CONFIG, config))
    fields = plain({name: value for name, value in fields.items() if name != CONFIG})
    words = [] if own == config else [short(own)]
    said = labels([*fields])
    words += [f'{said[name]}={short(value)}' for name, value in fields.items()]
    slug = re.sub(r'[^A-Za-z0-9_.=-]+', '_', ','.join(words).replace(',', '-'))[:80]
    digest = hashlib.sha256(identity({CONFIG: own, **fields}).encode()).hexdigest()[:8]
    return Trial(index, f'{slug}-{digest}', own, fields)


def identity(point: Point) -> str:
    """The same text for the same fields, in whatever order they stand."""
    return json.dumps(point, sort_keys=True, default=str)


def describe(point: Point) -> str:
    """For people."""
    return ', '.join(f'{name}={value}' for name, value in point.items()) or 'the config as it is'


def labels(fields: Sequence[str]) -> dict[str, str]:
    """Fields for people: the last word of each, or the section's where that is 'name', with as many
    words before it as tell it from the other fields."""
    words = {field: field.removesuffix('.name').split('.') for field in fields}
    found = {}
    for field, own in words.items():
        others = [other for name, other in words.items() if name != field]
        ends = (own[start:] for start in reversed(range(len(own))))
        alone = (end for end in ends if all(other[-len(end) :] != end for other in others))
        found[field] = '.'.join(next(alone, [field]))
    return found


def short(value) -> str:
    """The value for people: numbers with four digits, of a config's file its argument or name, of
    'module.name' the name."""
    file = re.fullmatch(r'(?:.*/)?(\w+)\.py(?::(\w+))?', str(value))
    if file:
        return file[2] or file[1]
    room = re.fullmatch(r'[a-z]\w*\.([A-Za-z]\w*)', str(value))
    if room:
        return room[1]
    try:
        return str(value) if isinstance(value, bool | int) else f'{float(value):.4g}'
    except (TypeError, ValueError):
        return str(value)


def check_laws(where: str, fields: Mapping[str, Law]) -> None:
    """Raises InputError for fields that nothing can be drawn for."""
    if not fields:
        raise InputError(f'{where}: no fields; give at least one')
    for name, law in fields.items():
        if isinstance(law, Choice):
            if not law.values:
                raise InputError(f'{where}: {name} has no values to choose from')
        elif not isinstance(law, Uniform | LogUniform):
            raise InputError(f'{where}: {name} is {law!r}; use Uniform, LogUniform or Choice')
        elif not (law.low < law.high and (law.low > 0 or isinstance(law, Uniform))):
            raise InputError(
                f'{where}: {name} is drawn from {law.low} to {law.high}; '
                'low must be below high, and above 0 for LogUniform'
            )


def _check_values(where: str, fields: Mapping[str, Sequence]) -> None:
    if not fields:
        raise InputError(f'{where}: no fields; give at least one')
    for name, values in fields.items():
        if isinstance(values, str) or not isinstance(values, Sequence):
            raise InputError(f'{where}: {name} is {values!r}; give a tuple of values')
        if not values:
            raise InputError(f'{where}: {name} has no values')


def _draw(rng: np.random.Generator, law: Law):
    if isinstance(law, Choice):
        return law.values[rng.integers(len(law.values))]
    if isinstance(law, LogUniform):
        return float(f'{math.exp(rng.uniform(math.log(law.low), math.log(law.high))):.4g}')
    if isinstance(law.low, int) and isinstance(law.high, int):
        return int(rng.integers(law.low, law.high + 1))
    return float(f'{rng.uniform(law.low, law.high):.4g}')
