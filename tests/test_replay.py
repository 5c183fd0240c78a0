"""`--mode=replay`: the step at which a run diverged, again."""

import importlib
import json

import numpy as np
import pytest

import gen_jax.replay
import gen_jax.train
from gen_jax.errors import Diverged, InputError
from gen_jax.replay import replay
from gen_jax.run import load_data
from gen_jax.train import train

FLAGS = (
    '--config=configs/ddpm_8gaussians.py:smoke',
    '--config.optim.model.learning_rate=1e30',
    '--config.optim.model.warmup_steps=0',
    '--config.train.num_steps=10',
    '--config.train.stop_after_skipped=3',
    '--config.train.evaluate_every=None',
    '--config.train.sample_every=None',
    '--config.train.score_every=None',
)


def test_a_run_that_diverges_ends_with_its_status_and_can_be_replayed(launch, tmp_path):
    """The rate is absurd: after one step everything overflows."""
    done = launch(*FLAGS, f'--workdir={tmp_path}')
    assert done.returncode == Diverged.status
    assert 'Traceback' not in done.stderr and '--mode=replay' in done.stderr
    record = json.loads((tmp_path / 'divergence.json').read_text())
    assert record['step'] == 2 and record['skipped_in_a_row'] >= 3

    done = launch(*FLAGS, '--mode=replay', f'--workdir={tmp_path}')
    assert done.returncode == 0, done.stderr
    lines = dict(line.split(maxsplit=1) for line in done.stdout.splitlines() if '/' in line)
    assert lines['model/loss'] in ('nan', 'inf')
    assert 'no example' in done.stdout and 'skipped again           yes' in done.stdout


def spoil(monkeypatch, number: int) -> None:
    """Makes one training example NaN, wherever data is loaded."""

    def load(config):
        dataset = load_data(config)
        fetch = dataset.train.fetch

        def spoiled(indices):
            raw = fetch(indices)
            x = raw['x'].copy()
            x[indices == number] = np.nan
            return {**raw, 'x': x}

        return dataset._replace(train=dataset.train._replace(fetch=spoiled))

    for module in (gen_jax.train, gen_jax.replay):
        monkeypatch.setattr(module, 'load_data', load)


@pytest.fixture
def spoiled_run(monkeypatch, tmp_path):
    """A run of four examples, all in every batch, that an example ended: config and folder."""
    config = importlib.import_module('configs.ddpm_8gaussians').get_config('smoke')
    config.data.num_train = 4
    config.train.update(num_steps=8, stop_after_skipped=2)
    config.train.update(evaluate_every=None, sample_every=None, score_every=None)
    spoil(monkeypatch, 2)
    with pytest.raises(Diverged):
        train(config, tmp_path)
    return config, tmp_path


def test_the_example_that_is_not_finite_is_named(spoiled_run):
    facts = replay(*spoiled_run)
    assert set(facts['examples']) == {2} and facts['parameters'] == []
    assert facts['repeated'] and np.isnan(facts['metrics']['model/loss'])


def test_without_the_bad_example_the_same_step_is_a_good_one(spoiled_run, monkeypatch):
    """The replay computes; it does not repeat what the record says."""
    monkeypatch.setattr(gen_jax.replay, 'load_data', load_data)
    facts = replay(*spoiled_run)
    assert not facts['repeated'] and np.isfinite(facts['metrics']['model/loss'])


def test_other_data_or_no_record_are_refused(spoiled_run, tmp_path):
    config, folder = spoiled_run
    record = json.loads((folder / 'divergence.json').read_text())
    record['batch_indices'][0] += 1
    (folder / 'divergence.json').write_text(json.dumps(record))
    with pytest.raises(InputError, match='had other examples'):
        replay(config, folder)
    (folder / 'divergence.json').write_text('{"step": "')
    with pytest.raises(InputError, match='cannot read'):
        replay(config, folder)
    (folder / 'divergence.json').unlink()
    with pytest.raises(InputError, match='has not diverged'):
        replay(config, folder)
