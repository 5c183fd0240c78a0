"""Intervals and paired differences against SciPy's, and what does not compare."""

import json

import numpy as np
import pytest
from scipy import stats

from gen_jax.errors import InputError
from gen_jax.sweeps import results
from gen_jax.sweeps.runner import DONE
from gen_jax.sweeps.study import Study, grid, trials

CONFIG = 'configs/ddpm_8gaussians.py:smoke'


def evaluated(folder, trial, value, **changed):
    """A trial that is done, with this FD."""
    record = {'value': value, 'stderr': 0.5, 'metric': 'FD', 'n': 10, 'estimator': 'estimate'}
    record |= {'step': 7, 'commit': 'abc', 'better': 'lower', **changed}
    (folder / trial.name).mkdir()
    (folder / trial.name / 'evaluation.json').write_text(json.dumps({'FD-01': record}))
    (folder / trial.name / DONE).write_text('{}')


def test_an_interval_is_students():
    values = [1.0, 2.0, 4.0, 4.5]
    found = results.estimate(values)
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert np.isclose(found.mean - found.spread, low) and np.isclose(
        found.mean + found.spread, high
    )
    assert results.estimate([3.0]) == (3.0, None, 1) and results.estimate([]) is None


def test_intervals_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(0)
    found = [results.estimate([*rng.normal(5, 2, 3)]) for _ in range(4000)]
    held = np.mean([abs(e.mean - 5) <= e.spread for e in found])
    assert abs(held - 0.95) < 0.015


def test_a_paired_difference_is_of_equal_seeds_and_drops_what_they_share():
    rng = np.random.default_rng(1)
    shared = rng.normal(0, 10, 6)
    base = {str(s): shared[s] + rng.normal(0, 0.1) for s in range(6)}
    other = {str(s): shared[s] + 1 + rng.normal(0, 0.1) for s in (5, 4, 3, 2, 1, 0)}
    found = results.paired(other, base)
    test = stats.ttest_rel([other[s] for s in base], [base[s] for s in base])
    low, high = test.confidence_interval(0.95)
    assert np.isclose(found.mean - found.spread, low) and np.isclose(
        found.mean + found.spread, high
    )
    assert low > 0.8  # while either mean alone is known to ten
    assert results.paired({'0': 1.0, '9': 3.0}, {'0': 0.5}) == (0.5, None, 1)


def test_rows_are_read_as_they_were_written(tmp_path):
    asked = trials(Study(CONFIG, grid({'ema.decay': (0.9, 0.99), 'x.y': (None, (1, 2))}), seeds=1))
    evaluated(tmp_path, asked[0], 1.5)
    evaluated(tmp_path, asked[3], None, stderr=None)
    rows = results.rows_of(('FD',), asked, tmp_path)
    results.write(rows, tmp_path / 'results.csv')
    again = results.read(tmp_path / 'results.csv')
    assert again == rows
    assert results.fields_of(again) == ['ema.decay', 'x.y']
    assert [*results.points_of(again)][1] == ('0.9', '[1, 2]')
    assert [row['status'] for row in again] == ['done', 'missing', 'missing', 'done']
    assert results.values_of(again, 'FD') == {'0': 1.5}
    assert (again[0]['FD_stderr'], again[0]['step'], again[0]['commit']) == ('0.5', '7', 'abc')


def test_numbers_that_do_not_compare_are_refused(tmp_path):
    asked = trials(Study(CONFIG, grid({'ema.decay': (0.9, 0.99)})))
    evaluated(tmp_path, asked[0], 1.5)
    evaluated(tmp_path, asked[1], 1.5, n=20)
    with pytest.raises(InputError, match=r'FD of decay=0.99.*n is 10 and 20'):
        results.rows_of(('FD',), asked, tmp_path)
    with pytest.raises(InputError, match=r'no trial in .* measured KID; there are FD'):
        results.rows_of(('KID',), asked[:1], tmp_path)


@pytest.mark.parametrize('text', [None, '', 'a,b\n1,2\n'])
def test_a_file_without_results_is_refused(tmp_path, text):
    path = tmp_path / 'results.csv'
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=r'results\.csv'):
        results.read(path)
