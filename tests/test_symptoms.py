"""The watch over a run whose numbers are finite and wrong."""

import importlib

import jax.numpy as jnp
import pytest

import gen_jax.train
from gen_jax.checkpoint import restore_for_use
from gen_jax.errors import Collapsed
from gen_jax.methods.method import Symptom
from gen_jax.run import assemble
from gen_jax.symptoms import PATIENCE, Watch
from gen_jax.train import train
from gen_jax.writers import finite, read_rows

SYMPTOM = Symptom('model/diversity', 0.5, 'all samples are one')


def rows(*values, first: int = 1) -> list[dict]:
    return [{'step': first + i, 'model/diversity': value} for i, value in enumerate(values)]


def test_it_says_so_once_until_the_metric_recovers(capsys):
    watch = Watch((SYMPTOM,), None, ())
    low, good = [0.1] * PATIENCE, [0.9]
    watch.follow(rows(*low[1:], *good, *low[1:]))
    assert capsys.readouterr().err == ''
    watch.follow(rows(0.2, 0.2, 0.2, *good, *low, first=20))
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2 and all(line.startswith('warning: model/diversity is ') for line in said)
    assert said[0].endswith('to step 20: all samples are one') and '0.2, below 0.5' in said[0]
    watch.finish()
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith('warning: to the end model/diversity was below 0.5')
    watch.follow(rows(*good, first=40))
    watch.finish()
    assert capsys.readouterr().err == ''


def test_rows_of_other_things_and_of_phases_left_out_do_not_count(capsys):
    watch = Watch((SYMPTOM,), 3, ())
    with pytest.raises(Collapsed, match=r'in 3 rows one after the other, to step 9'):
        watch.follow(
            [*rows(0.1), {'step': 2, 'eval/loss': 0.0}, *rows(0.1, first=8), *rows(0.1, first=9)]
        )
    # A value that is no number is no symptom: the guard of the step is for those.
    Watch((SYMPTOM,), 1, ()).follow(rows(float('nan'), float('-inf')))


def test_a_value_that_is_no_number_counts_as_the_null_that_is_written_of_it():
    before = rows(0.1, float('nan'), 0.1)
    live, resumed = Watch((SYMPTOM,), 3, ()), Watch((SYMPTOM,), 3, finite(before))
    live.follow(before)
    for watch in (live, resumed):
        with pytest.raises(Collapsed, match='in 3 rows'):
            watch.follow(rows(0.1, first=4))


def test_a_run_that_goes_on_remembers_the_rows_before(capsys):
    Watch((SYMPTOM,), 3, rows(0.1, 0.1)).follow(rows(0.9, 0.1, 0.1, first=3))
    with pytest.raises(Collapsed):
        Watch((SYMPTOM,), 3, rows(0.1, 0.1)).follow(rows(0.1, first=3))


@pytest.fixture
def low_from_step_3(monkeypatch):
    """Diffusion of points with a metric that is low from step 3 on."""

    def build(config, **options):
        run = assemble(config, **options)
        (phase,) = run.method.phases

        def loss(params, state, batch, key):
            value, (model_state, metrics) = phase.loss(params, state, batch, key)
            return value, (model_state, {**metrics, 'diversity': jnp.where(state.step < 2, 1.0, 0)})

        method = run.method._replace(phases=(phase._replace(loss=loss),), symptoms=(SYMPTOM,))
        return run._replace(method=method)

    monkeypatch.setattr(gen_jax.train, 'assemble', build)


def config_of(limit: int | None):
    config = importlib.import_module('configs.ddpm_8gaussians').get_config('smoke')
    never = {'evaluate_every': None, 'sample_every': None, 'score_every': None}
    config.train.update(num_steps=20, stop_after_symptoms=limit, checkpoint_every=100, **never)
    return config


def test_a_run_ends_where_it_is_asked_to_with_its_last_step_saved(low_from_step_3, tmp_path):
    with pytest.raises(Collapsed, match=r'all samples are one; step \d+ is saved$') as ended:
        train(config_of(4), tmp_path)
    assert ended.value.status == 3
    (saved,) = (int(path.name) for path in (tmp_path / 'checkpoints').iterdir())
    # Rows are read one step late, and the fourth low one is that of step 6.
    assert saved in (6, 7)
    state = restore_for_use(assemble(config_of(4)).template, tmp_path)
    assert int(state.step) == saved
    assert [row['step'] for row in read_rows(tmp_path / 'metrics.jsonl')] == list(
        range(1, saved + 1)
    )


def test_the_last_row_is_looked_at_too(low_from_step_3, tmp_path):
    config = config_of(4)
    config.train.num_steps = 6
    with pytest.raises(Collapsed, match=r'to step 6: all samples are one; step 6 is saved$'):
        train(config, tmp_path)


def test_without_a_limit_it_is_a_warning(low_from_step_3, tmp_path, capsys):
    assert int(train(config_of(None), tmp_path).step) == 20
    said = [line for line in capsys.readouterr().err.splitlines() if 'all samples' in line]
    assert len(said) == 2 and said[0].startswith('warning: model/diversity is 0')
