"""Evaluations side by side: the like ones in a table, the unlike ones refused by name."""

import importlib
import json

import pytest

from gen_jax.compare import compare
from gen_jax.data.tokenizers import UNITS
from gen_jax.errors import InputError
from gen_jax.evaluate import evaluate
from gen_jax.passport import record
from gen_jax.train import train


def evaluated(folder, *, n=5000, extractor='aa', step=100, fd=3.0):
    """A run's folder with a bound and a Fréchet distance in it."""
    common = {'data_fingerprint': 'f', 'step': step, 'sampler': {'num_steps': 10}}
    bound = record(3.1, 0.02, 297, 'upper bound', 'bits_per_dim', split='evaluation', **common)
    look = {'extractor': {'hash': extractor}, 'reference': {'train': 1500}}
    distance = record(fd, 0.1, n, 'estimate', 'FD', **look, **common)
    folder.mkdir()
    records = {'bits_per_dim': bound, f'FD-{extractor}': distance}
    (folder / 'evaluation.json').write_text(json.dumps(records))
    return folder


def test_like_numbers_stand_side_by_side(tmp_path, capsys):
    runs = [
        evaluated(tmp_path / name, step=s, fd=d)
        for name, s, d in (('A', 100, 3.0), ('B', 200, 2.5))
    ]
    rows = compare(runs)
    assert [r['value'] for r in rows['FD']] == [3.0, 2.5]
    shown = capsys.readouterr().out
    assert '-0.5 +- 0.14' in shown and '2.5 +- 0.1 *' in shown and '3.1 +- 0.02 *' not in shown
    assert any('step' in line and '100' in line and '200' in line for line in shown.splitlines())


@pytest.mark.parametrize(
    ('changes', 'reason'),
    [
        ({'n': 10_000}, 'FD: n is 5000 and 10000'),
        ({'extractor': 'bb'}, 'extractor.hash is aa and bb'),
    ],
)
def test_unlike_numbers_are_refused_and_the_rest_is_shown(tmp_path, capsys, changes, reason):
    runs = [evaluated(tmp_path / 'A'), evaluated(tmp_path / 'B', **changes)]
    with pytest.raises(InputError, match=reason):
        compare(runs)
    shown = capsys.readouterr().out
    assert 'bits_per_dim' in shown and 'FD' not in shown


def test_a_metric_of_one_run_only_is_left_out(tmp_path, capsys):
    runs = [evaluated(tmp_path / 'A'), evaluated(tmp_path / 'B')]
    records = json.loads((runs[1] / 'evaluation.json').read_text())
    del records['FD-aa']
    (runs[1] / 'evaluation.json').write_text(json.dumps(records))
    assert list(compare(runs)) == ['bits_per_dim']
    assert f'FD is not in {runs[1]}' in capsys.readouterr().out


def test_what_is_better_nowhere_has_no_best(tmp_path, capsys):
    runs = [evaluated(tmp_path / 'A'), evaluated(tmp_path / 'B')]
    for value, run in enumerate(runs):
        records = json.loads((run / 'evaluation.json').read_text())
        records['logit_of_real'] = records['bits_per_dim'] | {
            'metric': 'logit_of_real',
            'value': float(value),
        }
        (run / 'evaluation.json').write_text(json.dumps(records))
    compare(runs)
    (row,) = (line for line in capsys.readouterr().out.splitlines() if 'logit_of_real' in line)
    assert '1 +- 0.02' in row and '*' not in row


def test_nothing_in_common_is_said_once(tmp_path, capsys):
    runs = [evaluated(tmp_path / 'A'), evaluated(tmp_path / 'B')]
    only = record(1.0, 0.1, 10, 'estimate', 'MMD')
    (runs[1] / 'evaluation.json').write_text(json.dumps({'MMD': only}))
    with pytest.raises(InputError, match=r'^--workdirs: .* no metric in common$'):
        compare(runs)
    assert capsys.readouterr().out == ''


def test_what_cannot_be_compared_says_why(tmp_path):
    one = evaluated(tmp_path / 'A')
    with pytest.raises(InputError, match='two or more'):
        compare([one])
    with pytest.raises(InputError, match='given twice'):
        compare([one, tmp_path / 'B' / '..' / 'A'])
    (tmp_path / 'empty').mkdir()
    with pytest.raises(InputError, match='evaluate it first'):
        compare([one, tmp_path / 'empty'])
    (tmp_path / 'old').mkdir()
    (tmp_path / 'old' / 'evaluation.json').write_text('{"loss": {"value": 1.0}}')
    with pytest.raises(InputError, match='evaluate the run anew'):
        compare([one, tmp_path / 'old'])


def test_through_the_door(launch, tmp_path):
    a, b = evaluated(tmp_path / 'A'), evaluated(tmp_path / 'B', n=10_000)
    done = launch('--mode=compare', f'--workdirs={a},{b}')
    assert done.returncode == 2 and 'bits_per_dim' in done.stdout
    assert done.stderr.startswith('error: not comparable: FD: n is 5000 and 10000')
    like = evaluated(tmp_path / 'C')
    assert launch('--mode=compare', f'--workdirs={a},{like}').returncode == 0


@pytest.fixture(scope='module')
def of_text(tmp_path_factory):
    """Three models of one text, evaluated after a step: by bytes, by characters, and by bytes with
    more context for each."""
    folders = []
    for tokenizer, stride in (('bytes', None), ('characters', None), ('bytes', 4)):
        config = importlib.import_module('configs.gpt_text').get_config('smoke')
        with config.unlocked():
            config.data.update(source='synthetic', tokenizer=tokenizer, evaluation_stride=stride)
            config.data.vocab_size = None
            config.train.update(num_steps=1, sample_every=None, evaluate_every=None, best_by=None)
        config.evaluate.num_batches = None
        folders.append(tmp_path_factory.mktemp('runs') / f'{tokenizer}_{stride}')
        train(config, folders[-1])
        evaluate(config, folders[-1])
    return folders


def test_what_is_per_character_compares_between_tokenizers(of_text, capsys):
    by_bytes, by_characters, _ = of_text
    rows = compare([by_bytes, by_characters])
    assert rows.keys() == {f'{of}_per_{unit}' for of in ('bits', 'nats') for unit in UNITS}
    assert 'left out: perplexity is of tokens' in capsys.readouterr().out


def test_windows_that_differ_are_shown(of_text, capsys):
    rows = compare([of_text[0], of_text[2]])
    assert {'loss', 'perplexity', 'bits_per_byte'} <= rows.keys()
    lines = [line for line in capsys.readouterr().out.splitlines() if 'are predicted' in line]
    assert len(lines) == 1 and 'of which 16' in lines[0] and 'of which 4' in lines[0]
