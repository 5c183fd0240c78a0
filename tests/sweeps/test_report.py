"""A report's table and pictures are made of its results."""

import pytest

from gen_jax.errors import InputError
from gen_jax.sweeps import results
from gen_jax.sweeps.report import markdown, report
from gen_jax.sweeps.runner import write_trials
from gen_jax.sweeps.study import Study, grid, trials
from tests.sweeps.test_results import CONFIG, evaluated

FIELDS = {'ema.decay': (0.9, 0.99), 'train.num_steps': (100, 200)}
TEXT = f"""
from gen_jax.sweeps.study import Study, grid
def sweep():
    baseline = {{'ema.decay': 0.99, 'train.num_steps': 100}}
    return Study({CONFIG!r}, grid({FIELDS!r}), 2, ('FD',), baseline)
"""


@pytest.fixture
def folder(tmp_path):
    """A study, and the runs of it: one trial is missing."""
    (tmp_path / 'sweep.py').write_text(TEXT)
    (tmp_path / 'runs').mkdir()
    asked = trials(Study(CONFIG, grid(FIELDS), 2))
    write_trials(asked, tmp_path / 'runs')
    for trial in asked[:-1]:
        better = trial.fields['train.num_steps'] / 100
        value = 10 * trial.fields['ema.decay'] - better + 0.125 * trial.fields['seed']
        evaluated(tmp_path / 'runs', trial, value)
    return tmp_path


def test_the_table(folder):
    report(folder / 'sweep.py', folder / 'runs')
    assert (folder / 'table.md').read_text().splitlines() == [
        '| decay | num_steps | seeds | FD | FD: difference |',
        '| --- | --- | --- | --- | --- |',
        '| 0.9 | 100 | 2 | 8.06 ± 0.79 | -0.9 |',
        '| 0.9 | 200 | 2 | **7.06 ± 0.79** | -1.9 |',
        '| 0.99 | 100 | 2 | 8.96 ± 0.79 | baseline |',
        '| 0.99 | 200 | 1 of 2 | 7.9 | -1 |',
    ]


def test_results_alone_make_the_same_report(folder):
    first = report(folder / 'sweep.py', folder / 'runs')
    texts = [path.read_bytes() for path in first]
    again = report(folder / 'sweep.py', folder / 'no_runs_any_more')
    assert again == first and [path.read_bytes() for path in again] == texts


def test_a_picture_of_each_metric(folder):
    pytest.importorskip('matplotlib')
    from PIL import Image

    *_, picture = report(folder / 'sweep.py', folder / 'runs', str(folder))
    assert picture.name == 'FD.png'
    with Image.open(picture) as image:
        assert image.width > image.height > 200 and len(image.getcolors(1 << 20)) > 50


def test_many_numbers_stand_where_they_lie():
    pytest.importorskip('matplotlib')
    from matplotlib.figure import Figure

    from gen_jax.sweeps.plots import _places

    panel = Figure().subplots()
    assert _places(panel, ['v', 'epsilon']) == {'v': 0, 'epsilon': 1}
    assert _places(panel, ['10', '9']) == {'9': 0, '10': 1}
    assert panel.get_xscale() == 'linear'
    many = [f'1e-{i}' for i in range(9)]
    assert _places(panel, many) == {value: float(value) for value in many}
    assert panel.get_xscale() == 'log'


def test_the_best_is_that_of_the_metric():
    """Of a share that is better when it is higher, the highest is bold."""
    rows = [
        {'trial': v, 'ema.decay': v, 'seed': '0', 'status': 'done', 'precision': v}
        for v in ('0.3', '0.7')
    ]
    table = markdown(Study(CONFIG, metrics=('precision',)), rows)
    assert '| 0.7 | 1 | **0.7** | +0.4 |' in table and '| 0.3 | 1 | 0.3 | baseline |' in table


def test_what_cannot_be_reported_is_refused(folder):
    (folder / 'empty').mkdir()
    with pytest.raises(InputError, match=r'cannot read .*sweep\.json'):
        report(folder / 'sweep.py', folder / 'empty')
    write_trials(trials(Study(CONFIG, [{}])), folder / 'empty')
    with pytest.raises(InputError, match=r'no trial in .* is done'):
        report(folder / 'sweep.py', folder / 'empty')
    with pytest.raises(InputError, match=r'cannot be read .* sweep first'):
        report(folder / 'sweep.py', folder / 'none')
    rows = [{'trial': 'a', 'ema.decay': v, 'seed': '0', 'status': 'done'} for v in ('1', '2')]
    with pytest.raises(InputError, match=r'baseline: there are no results of ema.decay=3'):
        results.baseline_of(Study(CONFIG, baseline={'ema.decay': 3}), rows)
