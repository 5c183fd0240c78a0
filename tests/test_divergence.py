"""What a run does about bad batches: survives a few, and ends with a record of many."""

import importlib
import json
import shutil

import jax
import numpy as np
import pytest

import gen_jax.train
from gen_jax import divergence
from gen_jax.checkpoint import restore_for_use
from gen_jax.data.dataset import batch_indices
from gen_jax.divergence import Sentinel
from gen_jax.errors import Diverged, InputError
from gen_jax.run import assemble, load_data
from gen_jax.train import train
from gen_jax.writers import read_rows

SEED = 3


def config_of(num_steps: int, limit: int = 3, **options):
    """A tiny diffusion of points that only trains."""
    config = importlib.import_module('configs.ddpm_8gaussians').get_config('smoke')
    config.seed = SEED
    config.ema.snapshot_every = 50
    config.train.update(
        num_steps=num_steps,
        stop_after_skipped=limit,
        evaluate_every=None,
        sample_every=None,
        score_every=None,
        checkpoint_every=100,
        **options,
    )
    return config


@pytest.fixture
def plant(monkeypatch):
    """`plant(steps)` spoils one number in the batch of each of these steps; `plant(())` none."""

    def patch(steps):
        def load(config):
            dataset, size = load_data(config), config.data.batch_size
            # A transform is told no step, but the random bits are those of one.
            marks = {
                np.random.SeedSequence((SEED, 1, step - 1)).generate_state(size, np.uint64)[0]
                for step in steps
            }

            def transform(raw, bits):
                x = raw['x'].copy()
                if bits[0] in marks:
                    x[-1, 0] = np.nan
                return {**raw, 'x': x}

            return dataset._replace(train=dataset.train._replace(transform=transform))

        monkeypatch.setattr(gen_jax.train, 'load_data', load)

    return patch


def assert_same_learning(a, b) -> None:
    for part in ('params', 'opt_state', 'model_state', 'ema_params', 'power_ema'):
        for x, y in zip(*(jax.tree.leaves(getattr(s, part)) for s in (a, b)), strict=True):
            assert np.asarray(x).tobytes() == np.asarray(y).tobytes(), part


def saved_steps(workdir) -> list[str]:
    return sorted(path.name for path in (workdir / 'checkpoints').iterdir())


def test_one_bad_batch_is_survived(plant, tmp_path, capsys):
    plant({4})
    state = train(config_of(9, limit=2), tmp_path)
    assert (int(state.step), int(state.guard.skipped), int(state.guard.in_a_row)) == (9, 1, 0)
    rows = read_rows(tmp_path / 'metrics.jsonl')
    assert [row['step'] for row in rows] == list(range(1, 10))
    assert [row['step'] for row in rows if row['model/loss'] is None] == [4]
    assert [row['skipped'] for row in rows] == [0, 0, 0, 1, 1, 1, 1, 1, 1]
    assert not (tmp_path / divergence.FILE).exists()
    said = [line for line in capsys.readouterr().err.splitlines() if 'skipped' in line]
    assert said == ['warning: step 4 skipped: loss or gradient not finite']


def test_fewer_in_a_row_than_the_limit_are_survived_however_many(plant, tmp_path):
    plant({2, 3, 5, 6, 8, 9})
    state = train(config_of(10, limit=3), tmp_path)
    assert (int(state.step), int(state.guard.skipped)) == (10, 6)


@pytest.fixture
def diverged(plant, tmp_path, capsys):
    """A run that meets bad batches from step 5 on, the message that it ends with, and what it
    said before."""
    plant(range(5, 100))
    with pytest.raises(Diverged) as ended:
        train(config_of(20), tmp_path)
    return tmp_path, str(ended.value), capsys.readouterr().err


def test_many_bad_batches_end_the_run_with_a_record(diverged, plant, tmp_path):
    workdir, message, said = diverged
    assert message.startswith('losses or gradients of 4 steps in a row, to step 8, were not finite')
    assert 'step 8 is saved' in message and str(workdir / divergence.FILE) in message
    assert [line for line in said.splitlines() if 'warning' in line] == [
        'warning: step 5 skipped: loss or gradient not finite'
    ]

    record = divergence.read_record(workdir)
    # The sentinel looks one step behind, so there is one bad step more than the limit.
    assert (record['step'], record['checkpoint']) == (5, 8)
    assert (record['skipped_in_a_row'], record['skipped'], record['seed']) == (4, 4, SEED)
    config = config_of(20)
    dataset = load_data(config)
    assert record['batch_indices'] == batch_indices(dataset.train, 8, SEED, 4).tolist()
    run = assemble(config)
    state = restore_for_use(run.template, workdir)
    assert int(state.step) == 8 and saved_steps(workdir) == ['8']
    assert record['base_key'] == jax.random.key_data(state.key).tolist()
    step_key = jax.random.fold_in(state.key, 4)  # what step 5 draws from
    assert record['step_key'] == jax.random.key_data(step_key).tolist()

    rows = read_rows(workdir / 'metrics.jsonl')
    assert [row['step'] for row in rows] == list(range(1, 9))
    assert [row['model/loss'] is None for row in rows] == [False] * 4 + [True] * 4

    plant(())
    before = train(config_of(4), tmp_path / 'before')
    assert_same_learning(state, before)


def test_a_run_that_diverged_goes_on_from_there_with_better_data(diverged, plant):
    workdir, _, _ = diverged
    plant(())
    state = train(config_of(12), workdir)
    assert (int(state.step), int(state.guard.skipped), int(state.guard.in_a_row)) == (12, 4, 0)
    losses = {r['step']: r['model/loss'] for r in read_rows(workdir / 'metrics.jsonl')}
    assert [step for step, loss in losses.items() if loss is None] == [5, 6, 7, 8]


def test_with_the_same_bad_data_it_ends_again_and_the_record_still_names_the_first(diverged):
    workdir, _, _ = diverged
    with pytest.raises(Diverged):
        train(config_of(20), workdir)
    record = divergence.read_record(workdir)
    assert record['step'] == 5 and record['checkpoint'] > 8


def test_it_ends_at_the_same_step_when_it_was_killed_in_between(plant, tmp_path):
    """The steps in a row are counted in the state; what the sentinel holds back is not lost."""
    plant(range(5, 20))
    config = config_of(20)
    config.train.checkpoint_every = 7
    for _ in range(2):
        with pytest.raises(Diverged, match='of 4 steps in a row, to step 8'):
            train(config, tmp_path)
        shutil.rmtree(tmp_path / 'checkpoints' / '8')  # as if it had been killed before that


def test_started_again_at_its_end_a_run_that_diverged_says_so_again(plant, tmp_path):
    plant({8, 9, 10})
    for _ in range(2):
        with pytest.raises(Diverged, match='of 3 steps in a row, to step 10'):
            train(config_of(10), tmp_path)
    assert saved_steps(tmp_path) == ['10']


def test_a_run_that_recovers_just_after_the_limit_goes_on(plant, tmp_path):
    """When the limit is seen the next step has been taken; if it was a good one, no state before
    the bad ones is left to save."""
    plant({5, 6, 7})
    state = train(config_of(10), tmp_path)
    assert (int(state.step), int(state.guard.skipped), int(state.guard.in_a_row)) == (10, 3, 0)
    assert not (tmp_path / divergence.FILE).exists()


def test_bad_batches_at_the_very_end_are_not_overlooked(plant, tmp_path):
    plant({8, 9, 10})
    with pytest.raises(Diverged, match='of 3 steps in a row, to step 10'):
        train(config_of(10), tmp_path)
    record = divergence.read_record(tmp_path)
    assert (record['step'], record['checkpoint'], record['skipped_in_a_row']) == (8, 10, 3)
    assert saved_steps(tmp_path) == ['10']


def test_the_sentinel_looks_one_step_behind(capsys):
    sentinel = Sentinel(limit=2)
    for step, count in ((1, 0), (2, 1), (3, 0), (4, 1), (5, 2)):
        sentinel.follow(step, np.int32(count))
    said = capsys.readouterr().err.splitlines()
    assert [line.split()[2] for line in said] == ['2', '4']  # one word for each row of bad steps
    sentinel.follow(6, np.int32(0))  # it has recovered
    for step, count in ((7, 1), (8, 2)):
        sentinel.follow(step, np.int32(count))
    with pytest.raises(Diverged, match='of 3 steps in a row, to step 9,'):
        sentinel.follow(9, np.int32(3))


def test_the_sentinel_finishes_with_the_last_step():
    Sentinel(limit=1).finish()
    sentinel = Sentinel(limit=2)
    sentinel.follow(1, np.int32(1))
    sentinel.finish()
    sentinel.follow(2, np.int32(2))
    with pytest.raises(Diverged, match='to step 2'):
        sentinel.finish()


def test_a_record_that_is_absent_or_broken_is_named(tmp_path):
    with pytest.raises(InputError, match='has not diverged'):
        divergence.read_record(tmp_path)
    broken = {'step': None, 'checkpoint': 2, 'batch_indices': []}
    without = {'step': 1, 'checkpoint': 2}
    for text in ('{"step": 1, ', '{"step": 1}', json.dumps(broken), json.dumps(without), '[]'):
        (tmp_path / divergence.FILE).write_text(text)
        with pytest.raises(InputError, match='cannot read'):
            divergence.read_record(tmp_path)
    record = {'step': 1, 'checkpoint': 2, 'batch_indices': [4], 'more': [3]}
    (tmp_path / divergence.FILE).write_text(json.dumps(record))
    assert divergence.read_record(tmp_path) == record
