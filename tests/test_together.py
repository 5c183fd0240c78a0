"""Runs in one program are what they would be alone."""

import importlib
import json

import jax
import numpy as np
import pytest

from gen_jax.checkpoint import Checkpoints
from gen_jax.errors import Diverged, InputError, Preempted
from gen_jax.run import assemble
from gen_jax.sweeps.runner import DONE, failure, write_trials
from gen_jax.sweeps.study import make_trial
from gen_jax.together import together, train_together
from gen_jax.train import train
from gen_jax.writers import read_rows

CLOCK = {'seconds', 'examples_per_second'}


@pytest.fixture(autouse=True)
def _quickly(compiled_quickly):
    """Every test here compiles much."""


def config_of(name: str, num_steps: int = 4, **fields):
    """The smoke of this config with these fields; it trains and does nothing else."""
    config = importlib.import_module(f'configs.{name}').get_config('smoke')
    config = config.copy_and_resolve_references().unlock()
    config.train.update(num_steps=num_steps, evaluate_every=None, sample_every=None)
    config.train.update(score_every=None, log_every=1, checkpoint_every=2)
    config.ema.snapshot_every = None
    for field, value in fields.items():
        *sections, last = field.split('__')
        section = config
        for part in sections:
            section = section[part]
        section[last] = value
    return config.lock()


def final_state(config, workdir):
    with Checkpoints(workdir) as checkpoints:
        return checkpoints.restore(assemble(config).template)


def assert_equal(config, one, other):
    """Both folders hold the same run, within float error."""
    rows, others = (read_rows(folder / 'metrics.jsonl') for folder in (one, other))
    assert [row['step'] for row in rows] == [row['step'] for row in others]
    for row, same in zip(rows, others, strict=True):
        assert row.keys() - CLOCK == same.keys() - CLOCK
        for name in row.keys() - CLOCK:
            np.testing.assert_allclose(row[name], same[name], rtol=2e-4, atol=1e-5, err_msg=name)
    states = [final_state(config, folder) for folder in (one, other)]
    for a, b in zip(*map(jax.tree.leaves, states), strict=True):
        if not jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
            np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)


def test_each_run_equals_the_run_alone(tmp_path):
    """Two players, a penalty, and numbers of all three sections that may vary."""
    fields = {'method__r1': 0.3, 'optim__generator__b2': 0.9, 'ema__decay': 0.5}
    configs = [config_of('gan_8gaussians', **fields), config_of('gan_8gaussians', seed=1)]
    folders = [tmp_path / f'together_{i}' for i in range(len(configs))]
    assert train_together(configs, folders) == [None] * len(configs)
    losses = set()
    for i, config in enumerate(configs):
        train(config, tmp_path / f'alone_{i}')
        assert_equal(config, folders[i], tmp_path / f'alone_{i}')
        losses.add(json.dumps(read_rows(folders[i] / 'metrics.jsonl')[-1]))
    assert len(losses) == len(configs)


def test_runs_go_on_each_from_its_own_checkpoint(tmp_path, monkeypatch):
    """One has come to its end, one is halfway and one has not begun; then a signal comes."""
    configs = [config_of('ddpm_8gaussians', 6, seed=seed) for seed in range(3)]
    folders = [tmp_path / f'{i}' for i in range(3)]
    train(configs[0], folders[0])
    from gen_jax import preemption

    calls = []

    def check():
        calls.append(1)
        if len(calls) > 2:
            raise Preempted

    with monkeypatch.context() as patch:
        patch.setattr(preemption, 'check', check)
        with pytest.raises(Preempted, match='step 3 is saved'):
            train(configs[1], folders[1])
        with pytest.raises(Preempted):
            train_together(configs, folders)  # at once: each saves
    assert read_rows(folders[1] / 'metrics.jsonl')[-1]['step'] == 4
    assert train_together(configs, folders) == [None] * 3
    for i in (1, 2):
        train(configs[i], tmp_path / f'alone_{i}')
        assert_equal(configs[i], folders[i], tmp_path / f'alone_{i}')


def test_one_that_diverges_ends_alone(tmp_path):
    """Its rate is beyond float32, so that its parameters are not finite from the first step on."""
    fields = {'train__stop_after_skipped': 2}
    configs = [
        config_of('ddpm_8gaussians', 8, optim__model__learning_rate=rate, **fields)
        for rate in (1e-3, 3e38)
    ]
    told = []
    ends = train_together(
        configs,
        [tmp_path / 'fine', tmp_path / 'wild'],
        lambda i, end: told.append((i, end, len(read_rows(tmp_path / 'fine' / 'metrics.jsonl')))),
    )
    assert ends[0] is None and isinstance(ends[1], Diverged)
    assert told == [(1, ends[1], told[0][2])] and told[0][2] < 8  # while the other one trained
    train(configs[0], tmp_path / 'alone')
    assert_equal(configs[0], tmp_path / 'fine', tmp_path / 'alone')


def test_trials_of_a_sweep_are_marked_as_they_end(tmp_path, monkeypatch):
    evaluated = []
    monkeypatch.setattr(
        'gen_jax.together.evaluate', lambda config, workdir: evaluated.append(workdir.name)
    )
    config = 'configs/ddpm_8gaussians.py:smoke'
    rate = 'optim.model.learning_rate'
    trials = [make_trial(i, config, {rate: r, 'seed': i}) for i, r in enumerate((1e-3, 1e-2))]
    write_trials(trials, tmp_path)
    together(tmp_path, [trials[1].name])
    assert (tmp_path / trials[1].name / DONE).exists() and not (tmp_path / trials[0].name).exists()
    together(tmp_path, [trial.name for trial in trials])
    for trial in trials:
        assert (tmp_path / trial.name / DONE).exists() and failure(trial, tmp_path) is None
    assert evaluated == [trials[1].name, trials[0].name]
    with pytest.raises(InputError, match='--trials: no nobody in'):
        together(tmp_path, ['nobody'])


def test_runs_that_are_not_one_program_are_refused(tmp_path):
    first = config_of('ddpm_8gaussians')
    other = config_of('ddpm_8gaussians', data__batch_size=16)
    with pytest.raises(InputError, match=r'data\.batch_size: 8 and 16 are not one program'):
        train_together([first, other], [tmp_path / 'a', tmp_path / 'b'])
    assert not [*tmp_path.iterdir()]
    decides = [config_of('gan_8gaussians', method__r1=r) for r in (0.0, 0.1)]
    with pytest.raises(InputError, match=r'method\.r1: 0\.0, 0\.1 make different programs'):
        train_together(decides, [tmp_path / 'a', tmp_path / 'b'])
    assert not [*tmp_path.iterdir()]
