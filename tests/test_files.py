"""Files that are there whole or not at all."""

import os
import socket
import subprocess

import pytest

from gen_jax.files import remove_partial, replacing


def test_a_file_appears_at_the_end_and_replaces_the_old_one(tmp_path):
    path = tmp_path / 'x'
    path.write_bytes(b'old')
    with replacing(path) as file:
        file.write(b'new')
        file.flush()
        assert path.read_bytes() == b'old'
    assert path.read_bytes() == b'new'
    assert list(tmp_path.iterdir()) == [path]


def test_what_fails_half_way_leaves_the_old_file(tmp_path):
    path = tmp_path / 'x'
    path.write_bytes(b'old')
    with pytest.raises(RuntimeError), replacing(path) as file:
        file.write(b'half')
        raise RuntimeError
    assert path.read_bytes() == b'old'
    assert list(tmp_path.iterdir()) == [path]


def test_what_killed_processes_had_begun_is_removed_and_no_others(tmp_path):
    dead, host = subprocess.Popen(['true']), socket.gethostname()
    dead.wait()
    others = [f'x.png.{host}-{os.getpid()}.partial', f'x.png.{host}2-{dead.pid}.partial', 'x.png']
    for name in (*others, f'x.png.{host}-{dead.pid}.partial'):
        (tmp_path / name).touch()
    remove_partial(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*others}
