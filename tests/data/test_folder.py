"""Folders of files: what is found in them, held out, and left out."""

from pathlib import Path

import pytest

from gen_jax.data import folder
from gen_jax.errors import InputError


def test_files_are_found_all_the_way_down_and_hidden_ones_left_out(tmp_path):
    for name in ('b.mid', 'a/deep/c.MIDI', '.hidden.mid', 'a/.trash/d.mid', 'notes.txt'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    root, paths = folder.search(str(tmp_path), ('.mid', '.midi'), 'MIDI file')
    assert root == tmp_path
    assert paths == [Path('a/deep/c.MIDI'), Path('b.mid')]


@pytest.mark.parametrize(
    ('data_dir', 'message'),
    [
        (None, r"data\.data_dir: give the folder of MIDI files when data\.source is 'folder'"),
        ('absent', r'data\.data_dir: there is no folder'),
        ('.', r'data\.data_dir: .* holds 1 MIDI file\(s\) \(\.mid\); at least two'),
    ],
)
def test_folders_that_cannot_be_used_are_input_errors(tmp_path, monkeypatch, data_dir, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'one.mid').touch()
    with pytest.raises(InputError, match=message):
        folder.search(data_dir, ('.mid',), 'MIDI file')


def test_one_in_sixteen_is_held_out_and_stays_so_when_files_are_added():
    few, many = ([Path(f'{i}.mid') for i in range(num)] for num in (500, 1000))
    held_out = [{paths[i] for i in folder.divide(paths)[1]} for paths in (few, many)]
    assert 15 <= len(held_out[0]) <= 48  # 31 are expected, and this is within three deviations
    assert held_out[0] == held_out[1] & set(few)
    train, evaluation = folder.divide(few)
    assert sorted([*train, *evaluation]) == list(range(500))
    for num in (2, 3):  # one at least on both sides
        assert all(len(rows) >= 1 for rows in folder.divide(few[:num]))


def test_some_of_those_left_out_are_named():
    bad = [f'{i}.mid (broken)' for i in range(7)]
    with pytest.warns(UserWarning, match=r'7 file\(s\) in x cannot .*: 0\.mid \(broken\), .* …'):
        folder.check_readable(Path('x'), bad, 2, 'cannot be read')
    with pytest.raises(InputError, match=r'data\.data_dir: only 1 of 2 files in x .*0\.mid'):
        folder.check_readable(Path('x'), bad[:1], 1, 'cannot be read')
    folder.check_readable(Path('x'), [], 2, 'cannot be read')
