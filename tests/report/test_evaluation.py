"""The report of an evaluation: one page, well formed, complete, and sufficient to itself."""

import re
from html import unescape
from html.parser import HTMLParser

import pytest
from PIL import Image

from gen_jax.report.evaluation import write_report

VOID = {'meta', 'img', 'col', 'br'}
COMMON = {'step': 4000, 'seed': 0, 'extractor': {'name': 'reader', 'hash': '3f0a9c'}}
RECORDS = {
    'bits_per_dim': {
        'value': 3.0729009230128845,
        'stderr': 0.020456397742555695,
        'interval': [3.0328, 3.1130],
        'n': 10000,
        'estimator': 'upper bound on -log2 p',
        'metric': 'bits_per_dim',
        'better': 'lower',
        **COMMON,
    },
    'FD at 2048': {
        'value': 14.2817,
        'stderr': None,
        'interval': None,
        'n': 2048,
        'estimator': 'features of a network & Gaussians',
        'metric': 'FD',
        'better': 'lower',
        'nfe': 250,
        **COMMON,
    },
}
ROWS = [
    {'step': 1, 'model/grad_norm': 3.0, 'model/loss': 0.99, 'seconds': 1.5},
    {'step': 50, 'model/grad_norm': None, 'model/loss': 0.63, 'seconds': 2.5},
    {'step': 50, 'eval/bits_per_dim': 4.1},
]


class Parser(HTMLParser):
    """Collects every tag with its attributes, and objects to one that is not closed in order."""

    def __init__(self, html: str):
        super().__init__()
        self.open, self.tags, self.text = [], [], ''
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):  # <path/>, inside SVG
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != 'style':
            self.text += data


@pytest.fixture
def report(tmp_path):
    """`report(**changes)` -> the page as text."""

    def write(**changes) -> str:
        arguments = {'name': 'ddpm', 'records': RECORDS, 'rows': ROWS} | {
            'config': {'seed': 0, 'data': {'name': 'digits'}},
            'facts': {'commit': 'abc', 'parameters': {'model': 702753}},
        }
        write_report(tmp_path / 'report.html', **(arguments | changes))
        return (tmp_path / 'report.html').read_text()

    return write


@pytest.fixture
def png(tmp_path):
    Image.new('L', (10, 10)).save(tmp_path / 'grid.png')
    return tmp_path / 'grid.png'


def test_values_and_all_that_is_known_of_them_appear(report, png):
    html = report(pictures=[('Samples', 'Ten steps.', png)])
    text = Parser(html).text
    for part in (
        *('3.073', '\u00b1 0.020', '3.033 to 3.113', '10,000', '\u2193 lower'),
        *('3.0729009230128845', 'upper bound on -log2 p', '14.28', '2,048', 'nfe', '250'),
        *('model/loss', 'eval/bits_per_dim', '702753', 'digits', 'Samples', 'Ten steps.', 'ddpm'),
        *('upper bound', 'Fr\u00e9chet distance:'),  # the metric's meaning, also under another name
    ):
        assert part in text, part


def test_what_all_records_share_is_said_once(report):
    text = Parser(report()).text
    assert text.count('3f0a9c') == 1 and text.count('extractor') == 1
    assert text.index('What all of them share') < text.index('3f0a9c') < text.index('3.073')
    alone = Parser(report(records={'loss': RECORDS['bits_per_dim']})).text
    assert 'What all of them share' not in alone and '3f0a9c' in alone


def test_training_losses_come_first_and_the_rest_is_folded(report):
    html = report()
    order = [html.index(f'>{name}</span>') for name in ('model/loss', 'eval/bits_per_dim')]
    order += [html.index('<details class="fold">'), html.index('>model/grad_norm</span>')]
    assert order == sorted(order)
    assert html.count('<svg ') == 4


def test_nothing_comes_from_elsewhere(report, png):
    records = {'x': {'value': 1.0, 'note': 'https://example.org/a.png url(http://example.org)'}}
    html = report(records=records, pictures=[('Samples', '', png)])
    parser = Parser(html)
    assert not {tag for tag, _ in parser.tags} & {'script', 'link', 'iframe', 'object', 'base'}
    for tag, attributes in parser.tags:
        for name, value in attributes.items():
            assert name not in ('src', 'href', 'xlink:href', 'data') or value.startswith('data:')
            assert not name.startswith('on'), (tag, name)
    style = re.search(r'<style>(.*)</style>', html, re.DOTALL)[1]
    assert 'url(' not in style and '@import' not in style
    assert "default-src 'none'" in html  # and the browser is told to refuse it


def test_everything_from_outside_is_escaped(report, png):
    bad = '<script>alert("x")</script>'
    html = report(
        name=bad,
        records={
            bad: {'value': 1.0, 'n': bad, 'estimator': bad, 'metric': bad, bad: [bad, {bad: bad}]},
            'b': {'value': 2.0, 'stderr': bad, 'interval': bad, 'better': bad, 'flagged': bad},
        },
        rows=[{'step': 1, f'{bad}loss': 1.0, bad: bad}],
        config={bad: {bad: bad}},
        facts={bad: bad},
        pictures=[(bad, bad, png)],
    )
    assert '<script' not in html
    parser = Parser(html)
    assert 'script' not in {tag for tag, _ in parser.tags}
    assert parser.text.count(bad) > 12


@pytest.mark.parametrize(
    ('figures', 'shown'),
    [
        ({'value': 0.5, 'stderr': None}, '0.5000'),
        ({'value': 0.0, 'stderr': None}, '0'),
        ({'value': 0.0, 'stderr': 0.0}, '0\u00b1 0'),
        ({'value': -0.00031, 'stderr': 0.00072}, '\u22120.00031\u00b1 0.00072'),
        ({'value': 1234567.0, 'stderr': 1500.0}, '(1.2346\u00b1 0.0015) \u00d7 106'),
        ({'value': 3.36e-20, 'stderr': 2.83e-20}, '(3.4\u00b1 2.8) \u00d7 10\u221220'),
        ({'value': 3.36e-20}, '3.360 \u00d7 10\u221220'),
        ({'value': 5e-324, 'stderr': 5e-324}, '(4.9\u00b1 4.9) \u00d7 10\u2212324'),
        ({'value': 12345.6, 'stderr': 150.0}, '12,346\u00b1 150'),
        ({'value': 0.7, 'interval': [0.65, 0.75]}, '0.70095 % interval 0.650 to 0.750'),
        ({'value': None, 'stderr': None}, 'none'),
        ({'value': float('nan'), 'stderr': float('inf')}, 'none'),
        ({}, 'none'),
    ],
)
def test_a_value_is_rounded_to_its_error(report, figures, shown):
    html = report(records={'loss': {'n': 8, **figures}})
    row = re.search(r'<span class="score">(.*)<span class="n">', html)[1]
    assert unescape(re.sub(r'<[^>]*>', '', row)).strip() == shown
    Parser(html)


def test_a_flagged_record_is_a_warning(report):
    flagged = {'nearer': {'value': 0.61, 'stderr': 0.02, 'n': 297, 'flagged': True}}
    assert 'class="warning"' not in report(records={'nearer': {'value': 0.5, 'flagged': False}})
    html = report(records={**RECORDS, **flagged})
    warning = re.search(r'<p class="warning".*?</p>', html)[0]
    assert 'memorized' in warning and 'nearer' in warning and 'bits_per_dim' not in warning
    assert html.count('class="flag"') == 1


def test_a_report_of_nothing_is_a_page(report):
    parser = Parser(report(records={}, rows=[], config={}, facts={}))
    assert 'None were recorded' in parser.text and 'No curves' in parser.text
    assert 'Pictures' not in parser.text
    assert 'img' not in {tag for tag, _ in parser.tags}
    Parser(report(rows=[{'step': 1}]))
    Parser(report(rows=[{'step': 0, 'seconds': None}]))


def test_a_page_that_fails_leaves_the_old_one(report, tmp_path):
    before = report()
    with pytest.raises(FileNotFoundError):
        report(name='new', pictures=[('Samples', '', tmp_path / 'absent.png')])
    assert (tmp_path / 'report.html').read_text() == before
