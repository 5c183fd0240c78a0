"""A study is checked before anything runs, and a complaint names the entry."""

import pytest
from ml_collections import ConfigDict

from gen_jax.errors import InputError
from gen_jax.sweep import check
from gen_jax.sweeps.configs import config_of, load_study, program_of, varied, words_of
from gen_jax.sweeps.study import Study, make_trial
from gen_jax.workdir import config_values
from gen_jax.writers import write_json

CONFIG = 'configs/ddpm_8gaussians.py:smoke'
IMPORT = 'from gen_jax.sweeps.study import Study\n'


def trial(config=CONFIG, **fields):
    return make_trial(0, config, {name.replace('__', '.'): v for name, v in fields.items()})


def test_a_config_is_that_of_the_flags():
    config = config_of(trial(optim__model__learning_rate=0.5, evaluate__num_batches=None, seed=3))
    assert config.optim.model.learning_rate == 0.5 and config.seed == 3
    assert config.evaluate.num_batches is None
    assert words_of({'ema.decay': 0.1, 'x': (1, 2), 'y': None}) == [
        '--config.ema.decay=0.1',
        '--config.x=(1, 2)',
        '--config.y=None',
    ]


@pytest.mark.parametrize(
    ('wrong', 'complaint'),
    [
        (trial(optim__model__learning_rat=1.0), "'learning_rat' in optim.model; did you mean"),
        (trial(nothing=1), "nothing: there is no field 'nothing' in the config; there are"),
        (trial(seed__x=1), "seed.x: there is no field 'x' in seed, which is no section"),
        (trial(ema__decay='much'), "ema.decay: 'much' must be a number"),
        (trial(train__num_steps=1.5), 'train.num_steps: 1.5 must be a whole number'),
        (trial(ema=1), 'ema: is a section'),
        (trial(seed=-1), 'seed: -1 must be from 0'),
        (trial(train__accumulate=3), 'accumulate'),
        (trial(train__best_by='nonsense'), "train.best_by: 'nonsense' is not measured"),
        (trial('configs/none.py'), "there is no file 'configs/none.py'"),
        (trial('configs/ddpm_digits.py:tiny'), "cannot load 'configs/ddpm_digits.py:tiny'"),
        (trial(method__prediction='w', ema__decay=0.5), "no prediction 'w'"),
    ],
)
def test_what_cannot_run_is_refused(wrong, complaint, tmp_path):
    asked = [trial(seed=0), wrong]
    with pytest.raises(InputError) as error:
        check(Study(CONFIG), asked, tmp_path, deep=asked)
    assert complaint in str(error.value)
    if len(wrong.fields) > 1:
        assert 'ema.decay=0.5' in str(error.value)  # which point it is


@pytest.mark.parametrize(
    ('text', 'complaint'),
    [
        (None, 'there is no file'),
        ('x = 1', 'has no function sweep(); write one'),
        ('def sweep():\n    return None.x', 'fails with AttributeError'),
        ('def sweep():\n    return {}', 'returns dict, not a Study'),
        ('def sweep():\n    return 1 / 0', 'ZeroDivisionError'),
        ('def sweep(', 'SyntaxError'),
        (
            f'{IMPORT}sweep = lambda: Study(base=1)',
            "Study has no field 'base'; its fields are config",
        ),
        (f'{IMPORT}sweep = lambda: Study()', 'Study needs config; its fields are config, points'),
        (f'{IMPORT}sweep = lambda: Study("x.py", [{{}}])', 'metrics: the study names none'),
        (
            'from gen_jax.sweeps.study import grid\ndef sweep():\n    return grid({})',
            'grid: no fields',
        ),
    ],
)
def test_a_file_without_a_study_is_refused(tmp_path, text, complaint):
    file = tmp_path / 'sweep.py'
    if text is not None:
        file.write_text(text)
    with pytest.raises(InputError) as error:
        load_study(file)
    assert '--sweep' in str(error.value) and complaint in str(error.value)


def test_what_is_measured_and_what_was_begun_is_looked_at(tmp_path):
    asked = [trial(seed=0)]
    check(Study(CONFIG, metrics=('nats_per_dim', 'SW')), asked, tmp_path, deep=asked)
    with pytest.raises(InputError, match='metrics: IS is not measured; there are loss, nats'):
        check(Study(CONFIG, metrics=('IS',)), asked, tmp_path, deep=asked)
    other = config_of(trial(ema__decay=0.5, seed=0))
    folder = tmp_path / asked[0].name
    folder.mkdir()
    write_json(folder / 'config.json', config_values(other))
    with pytest.raises(InputError, match=r'holds a run of a different config: ema\.decay'):
        check(Study(CONFIG), asked, tmp_path, deep=())


def test_what_varies_and_what_cannot():
    def config(**changed):
        seed = changed.pop('seed', 0)
        return ConfigDict({'seed': seed, 'train': {'num_steps': 3}, 'optim': {'a': changed}})

    configs = [config(rate=0.1, b=0.9, seed=1), config(rate=0.2, b=0.9, seed=2)]
    assert varied(configs) == {'optim.a.rate': (0.1, 0.2)}
    assert program_of(configs[0]) == program_of(configs[1])
    off = config(rate=0.0, b=0.9)
    assert varied([configs[0], off]) and program_of(off) != program_of(configs[0])
    for wrong in (config(rate=1, b=0.9), config(rate=None, b=0.9), config(rate=0.1, b=0.9, c=1.0)):
        with pytest.raises(InputError, match='are not one program'):
            varied([configs[0], wrong])
        assert program_of(wrong) != program_of(configs[0])
