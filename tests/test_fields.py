"""A field is found by its path, or the complaint says what there is in its place."""

import pytest
from ml_collections import ConfigDict

from gen_jax.errors import InputError
from gen_jax.fields import section_of

CONFIG = ConfigDict({'seed': 0, 'optim': {'model': {'name': 'adam', 'b1': 0.9}}})


def test_a_field_is_found_in_its_section():
    section, field = section_of(CONFIG, 'optim.model.b1')
    assert section is CONFIG.optim.model and field == 'b1'
    assert section_of(CONFIG, 'seed') == (CONFIG, 'seed')


@pytest.mark.parametrize(
    ('name', 'where', 'complaint'),
    [
        ('optim.model.lr', '', "there is no field 'lr' in optim.model; there are b1, name"),
        ('sede', '', "there is no field 'sede' in the config; did you mean 'seed'?"),
        ('optim.modle.b1', '', "there is no field 'modle' in optim; did you mean 'model'?"),
        ('seed.x', '', "there is no field 'x' in seed, which is no section"),
        ('zzz', 'b1=1', "there is no field 'zzz' in the config; there are optim, seed (b1=1)"),
    ],
)
def test_a_field_that_there_is_not(name, where, complaint):
    with pytest.raises(InputError) as error:
        section_of(CONFIG, name, where)
    assert str(error.value) == f'{name}: {complaint}'
