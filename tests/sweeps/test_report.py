"""A report's table and pictures are made of its results."""

import pytest

from gen_jax.errors import InputError
from gen_jax.sweeps import results
from gen_jax.sweeps.report import markdown, progress, report
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


def test_the_table(folder, capsys):
    report(folder / 'sweep.py', folder / 'runs')
    assert (folder / 'table.md').read_text().splitlines() == [
        '| decay | num_steps | seeds | FD ↓ | FD: difference |',
        '| --- | --- | --- | --- | --- |',
        '| 0.9 | 100 | 2 | 8.06 ± 0.79 | -0.9 |',
        '| 0.9 | 200 | 2 | 7.06 ± 0.79 | -1.9 |',
        '| 0.99 | 100 | 2 | 8.96 ± 0.79 | baseline |',
        '| 0.99 | 200 | 1 of 2 | 7.9 | -1 |',
    ]
    assert '7 of 8 trials are done; missing: decay=0.99-num_steps=200-seed=1-' in (
        capsys.readouterr().out
    )


def test_trials_that_are_not_done_are_named():
    rows = [{'trial': name, 'status': 'missing'} for name in 'abcde']
    rows += [{'trial': 'f', 'status': 'done'}, {'trial': 'g', 'status': 'failed (3)'}]
    assert progress(rows) == (
        '1 of 7 trials are done; missing: a, b, c (and 2 more); failed (3): g'
    )
    assert progress(rows[5:6]) == '1 of 1 trials are done'


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


def test_what_is_better_nowhere_has_no_best():
    from gen_jax.sweeps.report import _best

    measured = {('a',): {'0': 1.0, '1': 1.1}, ('b',): {'0': 9.0, '1': 9.1}}
    assert _best('FD', measured) == ('a',)
    assert _best('logit_of_real', measured) is None


def test_many_numbers_stand_where_they_lie():
    pytest.importorskip('matplotlib')
    from matplotlib.figure import Figure

    from gen_jax.sweeps.plots import _places

    panel = Figure().subplots()
    assert _places(panel, [('v',), ('epsilon',)]) == {('v',): 0, ('epsilon',): 1}
    assert _places(panel, [('10', 'a'), ('9', 'b')]) == {('9', 'b'): 0, ('10', 'a'): 1}
    assert [text.get_text() for text in panel.get_xticklabels()] == ['9\nb', '10\na']
    assert panel.get_xscale() == 'linear'
    many = [(f'3e-{i}',) for i in range(9)]
    assert _places(panel, many) == {value: float(*value) for value in many}
    assert panel.get_xscale() == 'log' and {*panel.get_xticks()} == {float(*v) for v in many}


def test_fields_that_rise_together_share_a_panel():
    pytest.importorskip('matplotlib')
    from gen_jax.sweeps.plots import _groups

    assert _groups([('9', '0.2', 'x'), ('10', '0.3', 'y'), ('11', '0.4', 'x')]) == [[0, 1], [2]]
    assert _groups([('1', '2'), ('2', '1')]) == [[0], [1]] and _groups([()]) == [[]]


@pytest.mark.parametrize(
    ('values', 'is_bold'),
    [
        (((0.3, 0.4), (0.7, 0.81)), True),
        (((0.3, 0.8), (0.7, 0.81)), False),  # the interval holds 0
        (((0.7, 0.8), (0.7, 0.8)), False),  # a tie
        (((0.3,), (0.7,)), False),  # one seed has no interval
    ],
)
def test_the_best_is_bold_where_it_is_told_from_the_next(values, is_bold):
    """Of a share that is better when it is higher, that is the highest."""
    rows = [
        {'trial': 't', 'x': x, 'seed': str(seed), 'status': 'done', 'precision': str(value)}
        for x, of_point in zip('ab', values, strict=True)
        for seed, value in enumerate(of_point)
    ]
    head, _, first, second = markdown(Study(CONFIG, metrics=('precision',)), rows).splitlines()
    assert '| precision ↑ |' in head and '**' not in first and ('**' in second) == is_bold


def test_columns_of_one_last_word_are_told_apart():
    rows = [
        {'trial': v, 'a.rate': v, 'b.rate': '1', 'seed': '0', 'status': 'done', 'FD': '1'}
        for v in '12'
    ]
    assert markdown(Study(CONFIG, metrics=('FD',)), rows).startswith('| a.rate | seeds | FD ↓ |')


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
