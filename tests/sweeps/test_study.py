"""Points, seeds and names of a study."""

import numpy as np
import pytest

from gen_jax.errors import InputError
from gen_jax.sweeps.study import (
    Choice,
    LogUniform,
    Study,
    Uniform,
    crossed,
    draws,
    grid,
    labels,
    make_trial,
    trials,
    zipped,
)

CONFIG = 'configs/ddpm_8gaussians.py:smoke'


def test_a_grid_has_every_combination_and_its_last_field_changes_fastest():
    points = grid({'a.x': (1, 2), 'b': ('u', 'v')})
    assert points == [
        {'a.x': 1, 'b': 'u'},
        {'a.x': 1, 'b': 'v'},
        {'a.x': 2, 'b': 'u'},
        {'a.x': 2, 'b': 'v'},
    ]


def test_numbers_of_numpy_are_written_as_pythons():
    fields = {'a': np.float64(0.5), 'b': (np.int64(3), 1), 'seed': 0}
    assert make_trial(0, CONFIG, fields).fields == {'a': 0.5, 'b': (3, 1), 'seed': 0}
    assert repr(make_trial(0, CONFIG, fields).fields['b']) == '(3, 1)'


def test_zipped_and_crossed():
    pairs = zipped({'a': (1, 2), 'b': (3, 4)})
    assert pairs == [{'a': 1, 'b': 3}, {'a': 2, 'b': 4}]
    assert crossed(pairs, grid({'c': (5, 6)}))[1] == {'a': 1, 'b': 3, 'c': 6}


def test_draws_are_of_their_laws_and_the_same_each_time():
    laws = {'rate': LogUniform(1e-4, 1e-1), 'width': Uniform(3, 5), 'name': Choice(('a', 'b'))}
    points = draws(500, 0, laws)
    assert points == draws(500, 0, laws) != draws(500, 1, laws)
    logs = np.log10([point['rate'] for point in points])
    assert abs(logs.mean() + 2.5) < 0.15 and logs.min() > -4.001 and logs.max() < -0.999
    assert {point['width'] for point in points} == {3, 4, 5}
    assert {point['name'] for point in points} == {'a', 'b'}


def test_trials_are_all_points_of_one_seed_after_the_other():
    found = trials(Study(CONFIG, grid({'ema.decay': (0.9, 0.99)}), seeds=(3, 5)))
    assert [trial.index for trial in found] == [0, 1, 2, 3]
    assert [trial.fields['seed'] for trial in found] == [3, 3, 5, 5]
    assert len({trial.name for trial in found}) == 4
    assert found[0].name.startswith('decay=0.9-seed=3-')


def test_a_name_is_of_the_fields_and_not_of_their_place():
    first = make_trial(0, CONFIG, {'ema.decay': 0.9, 'seed': 0})
    assert make_trial(7, CONFIG, {'ema.decay': 0.9, 'seed': 0}).name == first.name
    # The words stand as the fields do; the digest, which tells trials apart, does not mind.
    assert make_trial(0, CONFIG, {'seed': 0, 'ema.decay': 0.9}).name[-8:] == first.name[-8:]
    assert first.name[-8:] != make_trial(0, 'configs/ddpm_digits.py', first.fields).name[-8:]
    other = make_trial(0, CONFIG, {'config': 'a/gpt.py:lion', 'seed': 0})
    assert other.config == 'a/gpt.py:lion' and other.name.startswith('lion-seed=0-')
    named = make_trial(0, CONFIG, {'method.process.name': 'gaussian.cosine', 'seed': 0})
    assert named.name.startswith('process=cosine-seed=0-')
    assert '/' not in make_trial(0, CONFIG, {'data.name': '../x y', 'seed': 0}).name


def test_fields_of_one_last_word_have_the_words_that_tell_them_apart():
    generator, discriminator = (f'optim.{x}.learning_rate' for x in ('generator', 'discriminator'))
    trial = make_trial(0, CONFIG, {generator: 0.1, discriminator: 0.2, 'seed': 0})
    said = 'generator.learning_rate=0.1-discriminator.learning_rate=0.2-seed=0-'
    assert trial.name.startswith(said)
    fields = ['a.x.name', 'b.x.name', 'rate', 'optim.rate', 'ema.decay']
    assert [*labels(fields).values()] == ['a.x', 'b.x', 'rate', 'optim.rate', 'decay']


@pytest.mark.parametrize(
    ('make', 'complaint'),
    [
        (lambda: grid({}), 'grid: no fields'),
        (lambda: grid({'a': ()}), 'grid: a has no values'),
        (lambda: grid({'a': 'xy'}), "grid: a is 'xy'"),
        (lambda: zipped({'a': (1, 2), 'b': (1,)}), 'zipped: 2 of a, 1 of b'),
        (lambda: crossed([{'a': 1}], [{'a': 2}]), 'crossed: a is in more than one'),
        (lambda: draws(0, 0, {'a': Uniform(0, 1)}), 'draws: 0 points'),
        (lambda: draws(1, 0, {'a': Uniform(1, 1)}), 'draws: a is drawn from 1 to 1'),
        (lambda: draws(1, 0, {'a': LogUniform(0, 1)}), 'draws: a is drawn from 0 to 1'),
        (lambda: draws(1, 0, {'a': (0, 1)}), 'draws: a is (0, 1)'),
        (lambda: draws(1, 0, {'a': Choice(())}), 'draws: a has no values'),
        (lambda: trials(Study(CONFIG)), 'points: there are none'),
        (lambda: trials(Study(CONFIG, [(1, 2)])), 'points[0]: (1, 2); give {field: value}'),
        (lambda: trials(Study(CONFIG, [{}], seeds=3.0)), 'seeds: 3.0; give'),
        (lambda: trials(Study(CONFIG, [{}], seeds=(0, -1))), 'seeds: -1 must be'),
        (lambda: trials(Study(CONFIG, [{}], metrics='FD')), "metrics: 'FD'; give a tuple"),
        (lambda: trials(Study(CONFIG, [{}], baseline=[1])), 'baseline: [1]; give a point'),
        (lambda: trials(Study(CONFIG, [{}], seeds=0)), 'seeds: there are none'),
        (lambda: trials(Study(CONFIG, [{}], seeds=(1, 1))), 'seeds: [1, 1] has one twice'),
        (lambda: trials(Study(CONFIG, [{'a': 1}, {'a': 2}, {'a': 1}])), 'points[2]: is points[0]'),
        (lambda: trials(Study(CONFIG, [{'seed': 1}])), 'points[0]: seed is no field'),
        (lambda: trials(Study(CONFIG, [{'a': 1}], baseline={'a': 2})), 'baseline: a=2 is none'),
    ],
)
def test_what_is_no_study_is_refused(make, complaint):
    with pytest.raises(InputError) as error:
        make()
    assert complaint in str(error.value)
