"""Pictures of a study: one for each metric, with a panel for each field that is varied."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use('Agg')  # writes files and needs no screen
from matplotlib.figure import Figure

from gen_jax.sweeps import results
from gen_jax.sweeps.study import label, short

# That can be told apart; more of them, as of random points, are dots of one color.
_MOST_LINES = 10
# Values that are named side by side.
_MOST_TICKS = 6


def plot(metrics: Sequence[str], rows: Sequence[Mapping[str, str]], folder: Path) -> list[Path]:
    """Writes `<metric>.png` for each metric; returns the paths."""
    return [_plot(metric, rows, folder / f'{metric}.png') for metric in metrics]


def _plot(metric: str, rows: Sequence[Mapping[str, str]], path: Path) -> Path:
    """A panel for each field: the field along x, a line for each combination of the others; dots
    are seeds, bars 95 % intervals over them."""
    names = results.fields_of(rows)
    points = results.points_of(rows)
    num = max(len(names), 1)
    figure = Figure(figsize=(4.2 * num, 3.4), layout='constrained')
    panels = figure.subplots(1, num, squeeze=False)[0]
    for index, panel in enumerate(panels):
        lines = {}
        for key, own in points.items():
            value = key[index] if names else ''
            lines.setdefault(key[:index] + key[index + 1 :], {})[value] = own
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
        panel.set_xlabel(label(names[index]) if names else '')
        panel.set_ylabel(metric)
        if 1 < len(lines) <= _MOST_LINES:
            others = [label(name) for i, name in enumerate(names) if i != index]
            panel.legend(fontsize='small', title=', '.join(others))
    # Without a version the same results make the same file.
    figure.savefig(path, dpi=110, metadata={'Software': None})
    return path


def _places(panel, values: Sequence[str]) -> dict[str, float]:
    """Where values stand along x: side by side with their names, or, if they are many numbers,
    where these lie."""
    numbers = {value: float(value) for value in values if _is_number(value)}
    if len(numbers) < len(values):
        places = {value: float(i) for i, value in enumerate(values)}
    elif len(values) <= _MOST_TICKS:
        places = {value: float(i) for i, value in enumerate(sorted(values, key=float))}
    else:
        if min(numbers.values()) > 0 and max(numbers.values()) > 10 * min(numbers.values()):
            panel.set_xscale('log')
        return numbers
    panel.set_xticks([*places.values()], [short(value) for value in places])
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
