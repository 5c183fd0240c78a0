"""The folder of a run: one config, one data set, one trainer at a time."""

import importlib
import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from gen_jax import workdir
from gen_jax.errors import InputError
from gen_jax.types import DataSpec

SPEC = DataSpec((2,))


@pytest.fixture
def config():
    return importlib.import_module('configs.ddpm_digits').get_config('smoke')


def test_a_start_is_recorded_and_a_second_one_added(config, tmp_path):
    for _ in range(2):
        with workdir.opened(tmp_path / 'run', config, 'abc', SPEC, {'parameters': {'model': 7}}):
            pass
    assert json.loads((tmp_path / 'run' / 'config.json').read_text())['seed'] == 0
    record = json.loads((tmp_path / 'run' / 'run.json').read_text())
    assert record['data_fingerprint'] == 'abc' and record['parameters'] == {'model': 7}
    assert len(record['starts']) == 2
    assert {'time', 'commit', 'versions', 'devices'} <= record['starts'][1].keys()


def test_other_data_is_refused_and_changes_nothing(config, tmp_path):
    with workdir.opened(tmp_path, config, 'abc', SPEC, {}):
        pass
    before = (tmp_path / 'run.json').read_bytes()
    with (
        pytest.raises(InputError, match=r'data: .* fingerprint abc, and this is def'),
        workdir.opened(tmp_path, config, 'def', SPEC, {}),
    ):
        pass
    assert (tmp_path / 'run.json').read_bytes() == before


# Opens the folder named, says so, and waits to be killed.
HOLD = """
import importlib, sys, time
from pathlib import Path
from gen_jax import workdir
from gen_jax.types import DataSpec
config = importlib.import_module('configs.ddpm_digits').get_config('smoke')
with workdir.opened(Path(sys.argv[1]), config, 'abc', DataSpec((2,)), {}):
    print('open', flush=True)
    time.sleep(60)
"""


def test_two_trainers_cannot_share_a_folder_and_a_killed_one_leaves_it_free(config, tmp_path):
    root = os.path.dirname(os.path.dirname(__file__))
    other = subprocess.Popen(
        [sys.executable, '-c', HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=root
    )
    try:
        assert other.stdout.readline() == 'open\n'
        begun = tmp_path / 'samples' / f'x.png.{socket.gethostname()}-{other.pid}.partial'
        begun.touch()
        before = (tmp_path / 'run.json').read_bytes()
        with (
            pytest.raises(InputError, match='another process is training in'),
            workdir.opened(tmp_path, config, 'abc', SPEC, {}),
        ):
            pass
        assert (tmp_path / 'run.json').read_bytes() == before and begun.exists()
    finally:
        other.send_signal(signal.SIGKILL)
        other.communicate()
    with workdir.opened(tmp_path, config, 'abc', SPEC, {}):
        assert len(json.loads((tmp_path / 'run.json').read_text())['starts']) == 2
        assert not begun.exists()


def test_a_folder_of_another_config_names_what_differs(config, tmp_path):
    with workdir.opened(tmp_path, config, 'abc', SPEC, {}):
        pass
    workdir.check(tmp_path, config)
    config.train.num_steps = 99  # how long is no part of what a run is
    workdir.check(tmp_path, config)
    config.precision = 'bfloat16'
    config.networks.model.remat = True
    config.ema.snapshot_every = 7  # whatever snapshots there are, other lengths come from them
    workdir.check(tmp_path, config)
    config.seed = 5
    with pytest.raises(InputError, match='seed is 0 there and 5 here'):
        workdir.check(tmp_path, config)


def test_a_folder_gives_back_the_config_of_its_run(config, tmp_path):
    with workdir.opened(tmp_path, config, 'abc', SPEC, {}):
        pass
    saved = workdir.saved_config(tmp_path)
    assert saved.to_dict() == config.copy_and_resolve_references().to_dict()
    workdir.check(tmp_path, saved)
    with pytest.raises(InputError, match=r'it has no config\.json'):
        workdir.saved_config(tmp_path / 'samples')


def test_a_folder_tells_of_another_commit(config, tmp_path, monkeypatch):
    assert workdir.other_commit(tmp_path) is None
    monkeypatch.setattr(workdir, 'commit', lambda: 'abc')
    with workdir.opened(tmp_path, config, 'abc', SPEC, {}):
        pass
    for now, other in (('abc', None), ('abc+changes', None), (None, None), ('def', 'abc')):
        monkeypatch.setattr(workdir, 'commit', lambda now=now: now)
        assert workdir.other_commit(tmp_path) == other


def test_the_file_of_a_tokenizer_may_lie_elsewhere(config, tmp_path):
    """What is in it is part of the data, whose fingerprint tells."""
    config = importlib.import_module('configs.gpt_text').get_config()
    config.data.tokenizer = 'here/tokenizer.json'
    with workdir.opened(tmp_path, config, 'abc', SPEC, {}):
        pass
    config.data.tokenizer = 'there/tokenizer.json'
    workdir.check(tmp_path, config)
    config.data.tokenizer = 'bpe'
    with pytest.raises(InputError, match=r"data\.tokenizer is 'here/tokenizer\.json' there"):
        workdir.check(tmp_path, config)


@pytest.mark.parametrize('text', ['{"seed": ', '[1]'])
def test_an_unreadable_record_is_named(text, config, tmp_path):
    (tmp_path / 'config.json').write_text(text)
    with pytest.raises(InputError, match=r'config\.json'):
        workdir.check(tmp_path, config)


def test_what_examples_are_like_is_kept_for_who_has_no_data(config, tmp_path):
    assert workdir.saved_spec(tmp_path) is None
    image = DataSpec((8, 8, 1), levels=17, num_classes=10)
    text = DataSpec(
        (4,), 'int32', vocab_size=9, start_token=8, units=('char', 'byte'), tokenizer='{"é": 1}'
    )
    music = text._replace(units=('note',), tokenizer=None, words=('EOS_None', 'Pitch_60'))
    for name, spec in {'image': image, 'text': text, 'music': music}.items():
        with workdir.opened(tmp_path / name, config, 'abc', spec, {}):
            pass
        assert workdir.saved_spec(tmp_path / name) == spec
    assert (tmp_path / 'text' / 'tokenizer.json').read_text() == '{"é": 1}'
    (tmp_path / 'text' / 'spec.json').write_text('{"shapes": 1}')
    with pytest.raises(InputError, match=r'spec\.json'):
        workdir.saved_spec(tmp_path / 'text')
