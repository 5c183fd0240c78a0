"""A study is checked before anything runs, and a complaint names the entry."""

import pytest

from gen_jax.errors import InputError
from gen_jax.sweep import check
from gen_jax.sweeps.configs import config_of, load_study, words_of
from gen_jax.sweeps.study import make_trial

CONFIG = 'configs/ddpm_8gaussians.py:smoke'


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
        (trial(seed__x=1), "seed.x: there is no field 'x' in seed"),
        (trial(ema__decay='much'), "ema.decay: 'much' is of another type"),
        (trial(train__num_steps=1.5), 'train.num_steps: 1.5 is of another type'),
        (trial(ema=1), 'ema: is a section'),
        (trial('configs/none.py'), "there is no file 'configs/none.py'"),
        (trial('configs/ddpm_digits.py:tiny'), "cannot load 'configs/ddpm_digits.py:tiny'"),
        (trial(method__prediction='w', ema__decay=0.5), "no prediction 'w'"),
    ],
)
def test_what_cannot_run_is_refused(wrong, complaint):
    with pytest.raises(InputError) as error:
        check([trial(seed=0), wrong])
    assert complaint in str(error.value)
    if len(wrong.fields) > 1:
        assert 'ema.decay=0.5' in str(error.value)  # which point it is


@pytest.mark.parametrize(
    ('text', 'complaint'),
    [
        (None, 'there is no file'),
        ('x = 1', 'has no function sweep()'),
        ('def sweep():\n    return {}', 'returns dict, not a Study'),
        ('def sweep():\n    return 1 / 0', 'ZeroDivisionError'),
        ('def sweep(', 'SyntaxError'),
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
