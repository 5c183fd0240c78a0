"""The program that downloads and prepares; what needs TensorFlow and a network is not run here."""

import socket
import subprocess
import sys
import threading

import pytest

from gen_jax.data import prepare
from gen_jax.errors import InputError


def unused_port() -> int:
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        return listener.getsockname()[1]


@pytest.fixture(autouse=True)
def direct(monkeypatch):
    monkeypatch.setenv('NO_PROXY', '127.0.0.1')


def test_a_source_that_does_not_answer_is_named():
    url = f'http://127.0.0.1:{unused_port()}/images.tar.gz'
    with pytest.raises(InputError, match=r'no network.*127\.0\.0\.1'):
        prepare._check_network([url])


def test_one_source_that_answers_is_enough():
    with socket.create_server(('127.0.0.1', 0)) as server:

        def answer():
            connection, _ = server.accept()
            connection.recv(1000)
            connection.sendall(b'HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n')
            connection.close()

        threading.Thread(target=answer, daemon=True).start()
        dead = f'http://127.0.0.1:{unused_port()}/a'
        prepare._check_network([dead, f'http://127.0.0.1:{server.getsockname()[1]}/b'])


def test_sets_without_addresses_need_no_network():
    prepare._check_network([])


def test_the_reason_is_the_last_line_on_stdout(tmp_path):
    command = [sys.executable, '-m', 'gen_jax.data.prepare', '--name=cifar11']
    command.append(f'--data_dir={tmp_path}')
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 2
    assert 'cifar11' in result.stdout.strip().splitlines()[-1]
