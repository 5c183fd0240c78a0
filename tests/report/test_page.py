"""Parts of a page: listings and pictures."""

import re

import pytest
from PIL import Image

from gen_jax.report.page import columns, page, picture, table, words


def lines(html: str) -> list[tuple[str, ...]]:
    """The texts of each row of tables, the depth of its first cell in front."""
    rows = re.findall(r'<tr>(.*?)</tr>', html)
    return [
        (*re.findall(r'--depth: (\d)', row), *re.findall(r'>([^<>]+)</t[hd]>', row)) for row in rows
    ]


def test_a_listing_is_indented_by_depth():
    values = {'seed': 0, 'network': {'dtype': None, 'sizes': [1, 2], 'options': {}}}
    assert lines(table(values)) == [
        ('0', 'seed', '0'),
        ('0', 'network'),
        ('1', 'dtype', 'none'),
        ('1', 'sizes', '1, 2'),
        ('1', 'options', 'none'),
    ]


def test_a_list_of_mappings_is_numbered_unless_it_is_one():
    assert lines(table({'starts': [{'a': 1}]})) == [('0', 'starts'), ('1', 'a', '1')]
    assert lines(table({'starts': [{'a': 1}, {'a': 2}]})) == [
        ('0', 'starts'),
        *(('1', '1'), ('2', 'a', '1')),
        *(('1', '2'), ('2', 'a', '2')),
    ]


def test_columns_keep_groups_together():
    html = columns({'a': {'x': 1}, 'b': 2, 'c': {'y': 3}})
    assert html.count('<table>') == 3
    assert lines(html)[0] == ('0', 'b', '2')  # what is in no group comes first
    assert 'nothing' in columns({})


def test_words():
    assert [words(v) for v in (None, True, False, 1e-4, 7, 'x', [], [1, None])] == [
        *('none', 'yes', 'no', '0.0001', '7', 'x', 'none', '1, none')
    ]


def test_a_small_picture_is_enlarged_by_a_whole_number(tmp_path):
    Image.new('RGB', (134, 70)).save(tmp_path / 'small.png')
    Image.new('L', (1152, 20)).save(tmp_path / 'large.png')
    assert 'width="402" height="210"' in picture('a', 'b', tmp_path / 'small.png')
    assert 'width="1152" height="20"' in picture('a', 'b', tmp_path / 'large.png')


def test_only_a_png_is_a_picture(tmp_path):
    (tmp_path / 'page.png').write_text('<script>' * 10)
    with pytest.raises(ValueError, match='not a PNG'):
        picture('a', 'b', tmp_path / 'page.png')
    with pytest.raises(FileNotFoundError):
        picture('a', 'b', tmp_path / 'absent.png')


def test_a_page_is_ascii_whatever_it_says():
    assert page('Fr\u00e9chet', ['\u00b1 \u4e2d \udc80']).isascii()
