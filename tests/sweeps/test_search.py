"""A search asks, runs and is told; killed in between, it goes on."""

import sys
from pathlib import Path

import pytest

from gen_jax.errors import InputError, Preempted
from gen_jax.sweeps import pool
from gen_jax.sweeps.configs import config_of
from gen_jax.sweeps.runner import outcome_of, task_of
from gen_jax.sweeps.search import check_search, search_points
from gen_jax.sweeps.study import Choice, LogUniform, Search, Study, Uniform
from gen_jax.workdir import config_values
from gen_jax.writers import write_json

pytest.importorskip('optuna')
CONFIG = 'configs/ddpm_8gaussians.py:smoke'
FIELDS = {'optim.model.learning_rate': LogUniform(1e-4, 1e-1), 'train.num_steps': Uniform(1, 3)}


@pytest.fixture(autouse=True)
def stand_in(monkeypatch):
    monkeypatch.setattr(sys, 'argv', [str(Path(__file__).with_name('stand_in.py'))])


def runner(folder: Path):
    """Runs trials in this folder."""
    return lambda asked: pool.run_all([task_of(t, folder) for t in asked], folder, 2, 0)


def study(num: int, fields=FIELDS, seeds: int = 1) -> Study:
    return Study(CONFIG, seeds=seeds, metrics=('SW',), search=Search(fields, 'SW', num))


def test_a_search_finds_small_values(tmp_path):
    """The stand-in's metric is 100 times the rate, of which 3 in 10 random ones are below 1e-3."""
    fields = {'optim.model.learning_rate': LogUniform(1e-4, 1e-1)}
    found = search_points(study(20, fields), tmp_path, 2, runner(tmp_path))
    rates = [trial.fields['optim.model.learning_rate'] for trial in found]
    assert len({trial.name for trial in found}) == 20
    assert sorted(rates[12:])[4] < 1e-3  # more than half of the last eight


def test_a_search_that_was_stopped_takes_up_what_it_had_asked(tmp_path):
    rounds = []

    def stopped(asked):
        rounds.append(asked)
        if len(rounds) == 2:
            raise Preempted
        runner(tmp_path)(asked)

    with pytest.raises(Preempted):
        search_points(study(3, seeds=2), tmp_path, 1, stopped)
    found = search_points(
        study(3, seeds=2),
        tmp_path,
        1,
        lambda asked: rounds.append(asked) or runner(tmp_path)(asked),
    )
    assert len(found) == 6 and [trial.fields['seed'] for trial in found] == [0, 1] * 3
    assert rounds[2] == rounds[1] and len(rounds) == 4
    assert {trial.fields['train.num_steps'] for trial in found} <= {1, 2, 3}


def test_a_point_whose_trial_was_stopped_is_taken_up_again(tmp_path):
    rounds = []
    with pytest.raises(Preempted):
        search_points(study(1), tmp_path, 1, rounds.append)
    found = search_points(study(1), tmp_path, 1, runner(tmp_path))
    assert found == rounds[0] and outcome_of(found[0], tmp_path).state == 'done'


def test_a_point_that_is_asked_for_twice_runs_once(tmp_path):
    fields = {'optim.model.learning_rate': Choice((0.1,))}
    found = search_points(study(4, fields), tmp_path, 2, runner(tmp_path))
    assert len(found) == 1 and len([*tmp_path.glob('*/starts')]) == 1
    assert (tmp_path / found[0].name / 'starts').read_text() == 'x'


def test_a_point_that_failed_has_no_answer_and_the_search_goes_on(tmp_path):
    fields = {'optim.model.learning_rate': Choice((666.0, 0.1))}
    found = search_points(study(6, fields), tmp_path, 1, runner(tmp_path))
    assert {trial.fields['optim.model.learning_rate'] for trial in found} == {666.0, 0.1}


def test_points_that_are_done_by_other_numbers_are_refused(tmp_path):
    fields = {'optim.model.learning_rate': Choice((0.1,))}
    (trial,) = search_points(study(1, fields), tmp_path, 1, runner(tmp_path))
    config = config_of(trial)
    config.train.num_steps += 1
    write_json(tmp_path / trial.name / 'config.json', config_values(config))
    with pytest.raises(InputError, match=r'train\.num_steps is 4 there and 3 here'):
        search_points(study(2, fields), tmp_path, 1, runner(tmp_path))


@pytest.mark.parametrize(
    ('wrong', 'complaint'),
    [
        (study(0), 'search.num_trials: 0'),
        (study(1)._replace(points=[{}]), 'points or a search'),
        (study(1)._replace(metrics=('KID',)), "search.metric: 'SW' is none"),
        (
            study(1)._replace(
                metrics=('logit_of_real',),
                search=study(1).search._replace(metric='logit_of_real'),
            ),
            "search.metric: no value of 'logit_of_real' is better",
        ),
        (study(1, {}), 'search.fields: no fields'),
        (study(1, {'a': 3}), 'search.fields: a is 3'),
    ],
)
def test_what_is_no_search_is_refused(wrong, complaint):
    with pytest.raises(InputError) as error:
        check_search(wrong)
    assert complaint in str(error.value)
