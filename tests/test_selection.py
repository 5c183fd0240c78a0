"""Which checkpoint is meant."""

import json

import pytest

from gen_jax.errors import InputError
from gen_jax.selection import best_step, better, chosen_step

ROWS = [
    {'step': 1, 'model/loss': 0.1},
    {'step': 10, 'eval/FD-1a2b3c4d': 3.0, 'eval/precision-1a2b3c4d': 0.5, 'eval/C2ST': 0.9},
    {'step': 20, 'eval/FD-1a2b3c4d': 2.0, 'eval/precision-1a2b3c4d': 0.9, 'eval/C2ST': 0.45},
    {'step': 30, 'eval/FD-1a2b3c4d': None, 'eval/precision-1a2b3c4d': 0.9, 'eval/C2ST': 0.3},
    {'step': 40, 'eval/FD-1a2b3c4d': 2.0, 'eval/precision-1a2b3c4d': 0.2, 'eval/C2ST': 0.6},
]


@pytest.mark.parametrize(
    ('name', 'step'),
    [('FD', 20), ('precision', 20), ('C2ST', 20), ('KID', None), (None, None)],
)
def test_the_best_is_the_first_of_the_best(name, step):
    assert best_step(ROWS, name, {1, 10, 20, 30, 40}) == step


def test_the_best_is_looked_for_among_what_is_saved():
    assert best_step(ROWS, 'FD', {10, 40}) == 40
    assert best_step(ROWS, 'FD', {30}) is None
    assert best_step([{'step': 5, 'eval/FID@768': 1.0}], 'FD', {5}) == 5
    assert best_step([{'step': 5, 'eval/KID@768': 1.0}], 'FD', {5}) is None


def test_numbers_on_other_features_than_the_last_ones_do_not_count():
    values = {10: {'eval/FD-raw': 0.09}, 20: {'eval/FID@768': 40.0}, 30: {'eval/FID@768': 12.0}}
    rows = [{'step': step, **row} for step, row in values.items()]
    assert best_step(rows, 'FD', {10, 20, 30}) == 30
    # A row whose checkpoint was never finished does not say what the last ones are.
    assert best_step(rows, 'FD', {10}) == 10


def test_each_number_knows_where_better_lies():
    names = ('FD', 'IS', 'accuracy', 'nearer', 'loss', 'told_apart', 'discriminator_loss')
    assert [better(name) for name in names] == [
        *('lower', 'higher', 'higher', 'half', 'lower', 'half', 'nowhere')
    ]


def test_a_checkpoint_is_chosen_by_word_or_number(tmp_path):
    text = ''.join(json.dumps(row) + '\n' for row in ROWS)
    (tmp_path / 'metrics.jsonl').write_text(text)
    assert chosen_step(tmp_path, 'latest', None, [10]) is None
    assert chosen_step(tmp_path, '30', None, [10]) == 30
    assert chosen_step(tmp_path, 'best', 'FD', [10, 20]) == 20
    # A kill between the row and its checkpoint leaves the best of those that there are.
    assert chosen_step(tmp_path, 'best', 'FD', [10]) == 10
    with pytest.raises(InputError, match="'latest', 'best' or a step"):
        chosen_step(tmp_path, 'first', 'FD', [10])
    with pytest.raises(InputError, match=r'train\.best_by'):
        chosen_step(tmp_path, 'best', None, [10])
    with pytest.raises(InputError, match='KID'):
        chosen_step(tmp_path, 'best', 'KID', [10])
