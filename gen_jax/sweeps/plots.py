"""Pictures of a study: one for each metric, with a panel for each field that is varied."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use('Agg')  # writes files and needs no screen
from matplotlib.figure import Figure

from gen_jax.sweeps import results
from gen_jax.sweeps.study import short

# That can be told apart; more of them, as of random points, are dots of one color.
_MOST_LINES = 10
# Values that are named side by side.
_MOST_TICKS = 6
# Between numbers that are all named where they lie, as a share of the axis.
_LEAST_GAP = 0.04
# Of a picture, in inches.
_HEIGHT = 3.4


def plot(metrics: Sequence[str], rows: Sequence[Mapping[str, str]], folder: Path) -> list[Path]:
    """Writes `<metric>.png` for each metric; returns the paths."""
    return [_plot(metric, rows, folder / f'{metric}.png') for metric in metrics]


def _plot(metric: str, rows: Sequence[Mapping[str, str]], path: Path) -> Path:
    """A panel for each field: the field along x, a line for each combination of the others; dots
    are seeds, bars 95 % intervals over them. Fields that rise together share a panel."""
    names, points = results.labels_of(rows), results.points_of(rows)
    groups = _groups([*points])
    figure = Figure(figsize=(4.2 * len(groups), _HEIGHT), layout='constrained')
    panels = figure.subplots(1, len(groups), squeeze=False)[0]
    for panel, group in zip(panels, groups, strict=True):
        rest = [i for i in range(len(names)) if i not in group]
        lines = {}
        for key, own in points.items():
            line = lines.setdefault(tuple(key[i] for i in rest), {})
            line[tuple(key[i] for i in group)] = own
        places = _places(
            panel, [*dict.fromkeys(value for line in lines.values() for value in line)]
        )
        step = 0.12 / max(len(lines) - 1, 1) if _are_ranks(places) else 0.0
        for number, (others, line) in enumerate(lines.items()):
            moved = {
                v: place + step * (number - (len(lines) - 1) / 2) for v, place in places.items()
            }
            color = 'C0' if len(lines) > _MOST_LINES else f'C{number}'
            _draw(panel, line, metric, moved, ', '.join(map(short, others)), color)
        panel.set_xlabel('\n'.join(names[i] for i in group))
        panel.set_ylabel(metric)
        if 1 < len(lines) <= _MOST_LINES:
            title = textwrap.fill(', '.join(names[i] for i in rest), 24, break_long_words=False)
            panel.legend(fontsize='small', title=title)
    # Without a version the same results make the same file.
    figure.savefig(path, dpi=110, metadata={'Software': None})
    return path


def _groups(keys: Sequence[tuple[str, ...]]) -> list[list[int]]:
    """The fields of each panel, by number: those whose panels would be the same, as of `zipped`."""
    found = {}
    for index, values in enumerate(zip(*keys, strict=True)):
        order = _sorted([*dict.fromkeys(values)])
        found.setdefault(tuple(map(order.index, values)), []).append(index)
    return [*found.values()] or [[]]


def _sorted(values: Sequence[str]) -> list[str]:
    """Numbers by size; else the values as they stand."""
    return sorted(values, key=float) if all(map(_is_number, values)) else [*values]


def _places(panel, values: Sequence[tuple[str, ...]]) -> dict[tuple[str, ...], float]:
    """Where values of a panel's fields stand along x: side by side with their names, or, if they
    are many numbers, where those of the first field lie."""
    firsts = {''.join(value[:1]): value for value in values}
    if len(values) > _MOST_TICKS and all(map(_is_number, firsts)):
        places = {value: float(first) for first, value in firsts.items()}
        numbers = np.sort([*places.values()])
        if numbers[0] > 0 and numbers[-1] > 10 * numbers[0]:
            panel.set_xscale('log')
            numbers = np.log(numbers)
        if np.diff(numbers).min() < _LEAST_GAP * (numbers[-1] - numbers[0]):
            return places
        panel.minorticks_off()
        panel.figure.set_figheight(_HEIGHT + 0.5)  # room for names that are upright
    else:
        places = {firsts[first]: float(i) for i, first in enumerate(_sorted([*firsts]))}
    turned = 'horizontal' if _are_ranks(places) else 'vertical'
    names = ['\n'.join(map(short, value)) for value in places]
    panel.set_xticks([*places.values()], names, rotation=turned)
    return places


def _are_ranks(places: Mapping[str, float]) -> bool:
    return {*places.values()} == {float(i) for i in range(len(places))}


def _draw(panel, line: Mapping, metric: str, places: Mapping, label: str, color: str) -> None:
    at, means, spreads = [], [], []
    for value in sorted(line, key=places.__getitem__):
        values = [*results.values_of(line[value], metric).values()]
        found = results.estimate(values)
        if found is not None:
            panel.plot([places[value]] * len(values), values, '.', color=color, alpha=0.4)
            at.append(places[value])
            means.append(found.mean)
            spreads.append(found.spread or 0.0)
    panel.errorbar(at, means, spreads, marker='o', capsize=3, color=color, label=label)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
