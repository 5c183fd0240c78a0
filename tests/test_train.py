"""The loop: what is kept, what is refused, and a run on eight devices that is ended and goes on.

That killed and resumed is never killed is in `test_certify.py`.
"""

import functools
import importlib

import jax
import numpy as np
import pytest

from gen_jax.checkpoint import restore_for_use
from gen_jax.errors import InputError
from gen_jax.run import assemble
from gen_jax.selection import chosen_step
from gen_jax.train import train
from gen_jax.writers import read_rows


def test_the_best_checkpoint_stays_and_can_be_asked_for(tmp_path):
    """Here the first one: weights that grow by themselves make everything worse."""
    config = importlib.import_module('configs.feature_net_digits').get_config('smoke')
    config.optim.model.update(learning_rate=0.02, warmup_steps=1, weight_decay=-50.0)
    config.ema.decay = 0.0
    config.train.update(
        num_steps=6,
        evaluate_every=1,
        checkpoint_every=2,
        keep_checkpoints=1,
        best_by='loss',
    )
    train(config, tmp_path)
    rows = [row for row in read_rows(tmp_path / 'metrics.jsonl') if 'eval/loss' in row]
    best = min(rows, key=lambda row: row['eval/loss'])['step']
    kept = sorted(int(path.name) for path in (tmp_path / 'checkpoints').glob('[0-9]*'))
    assert best < 6 and kept == sorted({best, 6})
    run = assemble(config)
    assert int(restore_for_use(run.template, tmp_path).step) == 6
    choose = functools.partial(chosen_step, tmp_path, 'best', config.train.best_by)
    assert int(restore_for_use(run.template, tmp_path, choose).step) == best
    with pytest.raises(InputError, match=rf'--checkpoint: none of step 5; there are \[{best}, 6\]'):
        restore_for_use(run.template, tmp_path, lambda steps: 5)


def test_a_best_asked_for_later_is_the_best_from_then_on(tmp_path):
    """The best row so far may be of a step that nobody kept."""
    config = importlib.import_module('configs.feature_net_digits').get_config('smoke')
    config.optim.model.update(learning_rate=0.02, warmup_steps=1, weight_decay=-50.0)
    config.ema.decay = 0.0
    config.train.update(num_steps=3, evaluate_every=1, checkpoint_every=3, keep_checkpoints=1)
    train(config, tmp_path)
    config.train.update(num_steps=6, checkpoint_every=6, best_by='loss')
    train(config, tmp_path)
    kept = sorted(int(path.name) for path in (tmp_path / 'checkpoints').glob('[0-9]*'))
    assert kept == [3, 6]  # it only gets worse, so the best of what there is is the one from before


def test_a_preview_that_a_kill_cut_short_is_drawn_again(tmp_path):
    config = importlib.import_module('configs.ddpm_8gaussians').get_config('smoke')
    train(config, tmp_path)
    preview = tmp_path / 'samples' / 'step_00000003.png'
    preview.rename(preview.with_name(f'{preview.name}.host-1.partial'))
    train(config, tmp_path)
    assert preview.exists()


@pytest.mark.parametrize('first', ['evaluate', 'score'])
def test_what_is_asked_for_later_is_measured_of_the_last_step_too(first, tmp_path):
    """And what was measured before is not measured again."""
    config = importlib.import_module('configs.ddpm_8gaussians').get_config('smoke')
    config.train.update(sample_every=None, evaluate_every=None, score_every=None)
    config.train.update(score_num=10, score_metrics=('SW',))
    config.train[f'{first}_every'] = 3
    train(config, tmp_path)
    config.train.update(evaluate_every=3, score_every=3, best_by='SW')
    train(config, tmp_path)
    train(config, tmp_path)
    measured = [row for row in read_rows(tmp_path / 'metrics.jsonl') if 'seconds' not in row]
    assert [row['step'] for row in measured] == [3, 3]
    assert len({*measured[0]} & {*measured[1]} - {'step'}) == 0
    assert ['eval/loss' in row for row in measured] == [first == 'evaluate', first == 'score']
    assert chosen_step(tmp_path, 'best', 'SW', [3]) == 3


def test_a_best_that_nobody_measures_is_refused(launch, tmp_path):
    flags = ('--config=configs/ddpm_digits.py:smoke', f'--workdir={tmp_path}')
    done = launch(*flags, '--config.train.best_by=FIX')
    assert done.returncode == 2 and "train.best_by: 'FIX' is not measured" in done.stderr
    assert not (tmp_path / 'config.json').exists()


def test_other_data_under_the_same_config_is_refused(launch, tmp_path):
    from PIL import Image

    folder, workdir = tmp_path / 'images', tmp_path / 'run'
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(24):
        Image.fromarray(rng.integers(0, 255, (9, 8, 3), np.uint8)).save(folder / f'{i}.png')
    flags = (
        '--config=configs/vqvae_cifar.py:smoke',
        '--config.data.source=folder',
        f'--config.data.data_dir={folder}',
        '--config.data.name=mine',
        '--config.data.image_size=8',
        *(f'--config.train.{name}_every=None' for name in ('evaluate', 'score', 'sample')),
        f'--workdir={workdir}',
    )
    done = launch(*flags)
    assert done.returncode == 0, done.stderr
    Image.fromarray(rng.integers(0, 255, (9, 8, 3), np.uint8)).save(folder / '0.png')
    for mode in ('train', 'evaluate'):
        done = launch(*flags, f'--mode={mode}')
        assert done.returncode == 2
        last = done.stderr.splitlines()[-1]
        assert last.startswith('error: data: ') and 'began with data of fingerprint' in last
    assert not (workdir / 'evaluation.json').exists()


@pytest.mark.parametrize(
    'layout',
    [
        {'strategy': 'jit', 'data': 2, 'fsdp': 2, 'tensor': 2},
        {'strategy': 'pmap'},
    ],
    ids=['jit', 'pmap'],
)
def test_a_resumed_run_on_eight_devices_is_the_same_run(layout, tmp_path):
    """Ended early, then made longer: the state goes through a checkpoint on the way."""

    def run(workdir, num_steps):
        config = importlib.import_module('configs.ddpm_8gaussians').get_config('smoke')
        config.networks.model.width = 64  # wide enough to be split
        config.parallel.update(layout)
        config.train.update(
            num_steps=num_steps,
            checkpoint_every=2,
            evaluate_every=None,
            sample_every=None,
            score_every=None,
            best_by=None,
        )
        return train(config, workdir)

    whole = run(tmp_path / 'whole', 5)
    run(tmp_path / 'parts', 3)
    parts = run(tmp_path / 'parts', 5)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
        if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    losses = [
        [row['model/loss'] for row in read_rows(tmp_path / name / 'metrics.jsonl')]
        for name in ('whole', 'parts')
    ]
    assert len(losses[0]) == 5 and losses[0] == losses[1]
