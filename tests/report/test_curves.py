"""Curves: axes with round numbers, spikes and gaps that stay, and dots for single points."""

import math
import re

import pytest

from gen_jax.report import curves


def paths(figure: str, kind: str = 'line') -> list[list[tuple[float, float]]]:
    """The strokes of a figure's line: lists of (x, y)."""
    (path,) = re.findall(rf'<path class="{kind}" d="([^"]*)"', figure)
    strokes = [stroke for stroke in path.split('M') if stroke]
    return [[tuple(map(float, p.split())) for p in stroke.split('L')] for stroke in strokes]


@pytest.mark.parametrize(
    ('low', 'high', 'ticks'),
    [
        (0.21, 0.87, [0.2, 0.4, 0.6, 0.8, 1.0]),
        (0, 4000, [0, 1000, 2000, 3000, 4000]),
        (-3.2, 1.1, [-4, -2, 0, 2]),
        (0.1, 0.3, [0.1, 0.15, 0.2, 0.25, 0.3]),
        (1e-7, 3e-7, [1e-7, 1.5e-7, 2e-7, 2.5e-7, 3e-7]),
    ],
)
def test_ticks_are_round_and_hold_what_they_mark(low, high, ticks):
    assert curves.round_ticks(low, high) == ticks


def test_ticks_of_any_range_are_1_2_or_5_times_a_power_of_ten_apart():
    for number in range(200):
        low = -5 + 0.37 * number
        high = low + 10 ** (number / 20 - 5)
        ticks = curves.round_ticks(low, high)
        step = ticks[1] - ticks[0]
        digit = step / 10 ** math.floor(math.log10(step) + 1e-6)
        assert min(abs(digit - d) for d in (1, 2, 5)) < 1e-3
        assert ticks[0] <= low + 1e-6 * step and ticks[-1] >= high - 1e-6 * step
        assert 2 <= len(ticks) <= 7


def test_steps_are_marked_up_to_the_last_one():
    assert curves.step_ticks(4000) == [0, 1000, 2000, 3000, 4000]
    assert curves.step_ticks(3) == [0, 1, 2, 3]
    assert curves.step_ticks(4999)[-1] == 4000
    assert curves.step_ticks(0) == [0]


def test_one_spike_among_many_points_stays():
    points = [(step, 0.5 + 1e-3 * (step % 7)) for step in range(100_000)]
    points[54_321], points[12_345] = (54_321, 9.0), (12_345, -3.0)
    thinned = curves.thin(points, 99_999)
    assert points[54_321] in thinned and points[12_345] in thinned
    assert len(thinned) <= 4 * 320
    assert thinned == sorted(thinned)
    figure = curves.draw('loss', points, 99_999)
    ((*line,),) = paths(figure, 'line raw')
    heights = sorted(y for _, y in line)
    assert heights[0] < heights[1] - 50 and heights[-1] > heights[-2] + 20
    assert len(figure) < 40_000


def test_few_points_are_all_drawn():
    points = [(step, float(step % 3)) for step in range(100)]
    assert curves.thin(points, 99) == points


def test_the_strong_line_is_the_median():
    points = [(step, 1.0 + (step % 2) - 50 * (step % 100 == 0)) for step in range(8001)]
    found = curves.medians(points, 8000)
    assert len(found) == 80
    assert all(1 <= value <= 2 for _, value in found)
    assert curves.medians([(1, None), (2, None)], 2, windows=1) == [(1.5, None)]


def test_a_gap_is_not_bridged():
    points = [(0, 1.0), (1, 2.0), (2, None), (3, 2.0), (4, 1.0)]
    first, second = paths(curves.draw('loss', points, 4))
    assert len(first) == len(second) == 2
    assert first[1][1] == second[0][1]  # equal values lie at one height
    many = [(step, None if 4000 <= step < 6000 else 1.0) for step in range(10_000)]
    assert len(paths(curves.draw('loss', many, 9999), 'line raw')) == 2
    assert len(paths(curves.draw('loss', many, 9999))) == 2


def test_a_point_alone_is_a_dot():
    figure = curves.draw('eval/loss', [(1000, 0.25)], 1000)
    assert figure.count('<circle class="dot"') == 1
    assert '<title>step 1,000: 0.25</title>' in figure
    gap = set(range(450, 550)) - {500}
    points = [(step, None if step in gap else 1.0) for step in range(1, 2001)]
    assert curves.draw('loss', points, 2000).count('<circle class="dot"') == 1


def test_values_lie_where_the_axis_says():
    figure = curves.draw('loss', [(0, 0.0), (50, 0.5), (100, 1.0)], 100)
    ((start, middle, end),) = paths(figure)
    assert middle == pytest.approx([(a + b) / 2 for a, b in zip(start, end, strict=True)], abs=0.1)
    assert '>0.0</text>' in figure and '>1.0</text>' in figure


def test_a_wide_range_of_positive_values_has_a_log_axis():
    points = [(0, 100.0), (1, 1.0), (2, 0.01)]
    figure = curves.draw('loss', points, 2)
    assert 'log scale' in figure
    ((start, middle, end),) = paths(figure)
    assert middle[1] - start[1] == pytest.approx(end[1] - middle[1], abs=0.2)
    for narrow in (points[:2], [*points, (3, 0.0)], [*points, (3, -1.0)]):
        assert 'log scale' not in curves.draw('loss', narrow, 3)


@pytest.mark.parametrize('value', [0.0, 3.0, -2.5e-12, 1e20])
def test_a_constant_is_drawn(value):
    figure = curves.draw('loss', [(1, value), (2, value)], 2)
    ((left, right),) = paths(figure)
    assert left[1] == right[1] and 'nan' not in figure


def test_no_finite_value_is_said():
    assert 'no finite value' in curves.draw('loss', [(1, None)], 1)
