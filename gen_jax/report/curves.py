"""Learning curves as SVG for a page: one series, one chart, and no library.

A chart has few pixels and a run may have many steps. Of each pixel column the lowest and the
highest point stay, so that a spike of one step is seen however long the run.
"""

import itertools
import math
import statistics
from collections.abc import Iterator, Sequence
from html import escape
from typing import NamedTuple

Point = tuple[float, float | None]  # step and value; None is a gap

_WIDTH, _HEIGHT, _EDGE = 340, 190, 8
_BASE = _HEIGHT - 22  # where the horizontal axis lies
_COLUMNS = 320
_DOTS, _HOVERS = 40, 300  # up to so many points: dots on the line, values under the pointer
_MANY, _WINDOWS = 1000, 80  # from so many points: medians in so many windows, over faint values
_EQUAL = 1e-9  # values that differ by less than this share of themselves draw a flat line


class _Axes(NamedTuple):
    """Where a chart's values lie, and the levels that are marked."""

    left: float
    ticks: list[float]
    labels: list[str]
    is_log: bool
    ends: tuple[float, float]  # the values at the bottom and at the top
    last_step: float

    def place(self, step: float, value: float) -> tuple[float, float]:
        down = math.log10 if self.is_log else float
        bottom, top = map(down, self.ends)
        across = (_WIDTH - _EDGE - self.left) * step / max(self.last_step, 1)
        return self.left + across, _BASE - (_BASE - _EDGE) * (down(value) - bottom) / (top - bottom)


def draw(name: str, points: Sequence[Point], last_step: float) -> str:
    """A `<figure>` with the curve of one series, on a horizontal axis from 0 to `last_step`.

    Args:
      name: the series.
      points: in the order of their steps; None for a value that is no finite number.
      last_step: the same for charts that are to be compared.
    """
    values = [value for _, value in points if value is not None]
    label = f'<span class="name">{escape(name)}</span>'
    if not values:
        return f'<figure class="curve"><figcaption>{label}no finite value</figcaption></figure>'
    low, high, last = min(values), max(values), _short(values[-1])
    axes = _axes(low, high, last_step)
    kind = '<span>log scale</span>' if axes.is_log else ''
    described = f'{name}: {len(values)} values from {_short(low)} to {_short(high)}, last {last}'
    thinned = thin(points, last_step)
    if len(values) > _MANY:
        lines = [_line(thinned, axes, 'line raw'), _line(medians(points, last_step), axes, 'line')]
    else:
        lines = [_line(thinned, axes, 'line')]
    parts = [
        f'<figure class="curve"><figcaption>{label}{kind}<span>{last}</span></figcaption>',
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(described)}">',
        *_grid(axes),
        *lines,
        *_marks(thinned, axes, len(values)),
        '</svg></figure>',
    ]
    return '\n'.join(parts)


def thin(points: Sequence[Point], last_step: float, columns: int = _COLUMNS) -> list[Point]:
    """At most four points for each pixel column: its first, last, lowest and highest."""
    kept = []
    for part in _windows(points, last_step, columns):
        column = list(enumerate(part))
        numbers = [item for item in column if item[1][1] is not None]
        chosen = [column[0], column[-1]]
        if numbers:
            chosen += [pick(numbers, key=lambda item: item[1][1]) for pick in (min, max)]
        kept += [point for _, point in sorted(dict(chosen).items())]
    return kept


def medians(points: Sequence[Point], last_step: float, windows: int = _WINDOWS) -> list[Point]:
    """The median of the values in each of so many equal windows, in its middle; None of no value.

    A median is the same point on a linear and on a log axis, and a spike does not move it.
    """
    found = []
    for window in _windows(points, last_step, windows):
        values = [value for _, value in window if value is not None]
        middle = (window[0][0] + window[-1][0]) / 2
        found.append((middle, statistics.median(values) if values else None))
    return found


def round_ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About `count` equal steps of 1, 2 or 5 times a power of ten, from `low` or below to `high`
    or above. `low` must be less than `high`."""
    rough = (high - low) / count
    power = math.floor(math.log10(rough))
    factor = next((f for f in (1, 2, 5) if f * 10.0**power >= rough * (1 - _EQUAL)), 10)
    step = factor * 10.0**power
    first, last = math.floor(low / step + _EQUAL), math.ceil(high / step - _EQUAL)
    # By way of the decimal digits: 3 * 0.1 would be 0.30000000000000004.
    return [float(f'{number * factor}e{power}') for number in range(first, last + 1)]


def step_ticks(last_step: float) -> list[float]:
    """Round steps from 0 to `last_step`, none beyond it."""
    ticks = round_ticks(0, max(last_step, 1))
    return [tick for tick in ticks if tick <= last_step and tick == int(tick)]


def minus(text: str) -> str:
    """The same number with the sign that printers use, as wide as a digit."""
    return text.replace('-', '\N{MINUS SIGN}')


def _windows(points: Sequence[Point], last_step: float, count: int) -> Iterator[list[Point]]:
    """The points in each of `count` equal parts of the axis, the empty ones left out."""
    scale = count / max(last_step, 1)
    for _, part in itertools.groupby(points, lambda point: min(int(point[0] * scale), count - 1)):
        yield list(part)


def _short(value: float) -> str:
    return minus(f'{value:,.0f}' if 1e4 <= abs(value) < 1e7 else f'{value:.4g}')


def _axes(low: float, high: float, last_step: float) -> _Axes:
    is_log = low > 0 and high > 100 * low
    ticks, labels = _log_ticks(low, high) if is_log else _linear_ticks(low, high)
    ends = (low, high) if is_log else (ticks[0], ticks[-1])
    left = 8 + 6.4 * max(map(len, labels))
    return _Axes(left, ticks, labels, is_log, ends, last_step)


def _linear_ticks(low: float, high: float) -> tuple[list[float], list[str]]:
    size = max(abs(low), abs(high))
    if high - low <= _EQUAL * size:
        room = 0.1 * size or 1.0
        low, high = low - room, high + room
    ticks = round_ticks(low, high)
    step = ticks[1] - ticks[0]
    plain = step >= 1e-4 and max(map(abs, ticks)) < 1e6
    form = f',.{max(0, -math.floor(math.log10(step) + _EQUAL))}f' if plain else '.8g'
    return ticks, [minus(format(tick, form)) for tick in ticks]


def _log_ticks(low: float, high: float) -> tuple[list[float], list[str]]:
    first, last = math.ceil(math.log10(low)), math.floor(math.log10(high))
    every = max(1, math.ceil((last - first) / 5))
    ticks = [10.0**power for power in range(first, last + 1, every)]
    return ticks, [minus(f'{tick:,.0f}' if 1 <= tick < 1e6 else f'{tick:g}') for tick in ticks]


def _grid(axes: _Axes) -> Iterator[str]:
    """The marked levels, and the marked steps below them."""
    for tick, text in zip(axes.ticks, axes.labels, strict=True):
        _, y = axes.place(0, tick)
        yield f'<path class="grid" d="M{axes.left:.1f} {y:.1f}H{_WIDTH - _EDGE}"/>'
        yield f'<text x="{axes.left - 6:.1f}" y="{y + 3.5:.1f}" text-anchor="end">{text}</text>'
    for step in step_ticks(axes.last_step):
        x, _ = axes.place(step, axes.ends[0])
        anchor = 'end' if x > _WIDTH - 30 else 'middle'  # the last one would leave the chart
        yield f'<text x="{x:.1f}" y="{_HEIGHT - 6}" text-anchor="{anchor}">{step:,.0f}</text>'


def _line(points: Sequence[Point], axes: _Axes, kind: str) -> str:
    path, command = [], 'M'
    for step, value in points:
        if value is None:
            command = 'M'
            continue
        x, y = axes.place(step, value)
        path.append(f'{command}{x:.1f} {y:.1f}')
        command = 'L'
    return f'<path class="{kind}" d="{"".join(path)}"/>'


def _marks(points: Sequence[Point], axes: _Axes, count: int) -> Iterator[str]:
    """Points that tell their values; one between two gaps is seen, for it is on no line."""
    values = [None, *(value for _, value in points), None]
    for (step, value), before, after in zip(points, values, values[2:], strict=False):
        is_alone = before is None and after is None
        if value is None or not (is_alone or count <= _HOVERS):
            continue
        x, y = axes.place(step, value)
        kind = 'dot' if is_alone or count <= _DOTS else 'hover'
        title = f'<title>step {step:,}: {_short(value)}</title>'
        yield f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="2.2">{title}</circle>'
