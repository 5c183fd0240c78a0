"""Prompts in, continuations out, of a tiny model whose text is gone since it was trained."""

import importlib
import itertools
import json
import shutil
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from gen_jax import workdir as workdirs
from gen_jax.completion import make_completer, prompts_of, show
from gen_jax.data import text
from gen_jax.errors import InputError
from gen_jax.evaluate import evaluate
from gen_jax.export import export
from gen_jax.run import assemble
from gen_jax.sample import sample
from gen_jax.samplers import tokens as samplers
from gen_jax.train import train

OPTIONS = {'temperature': 1.0, 'num_beams': None}
KEY = jax.random.key(0)


@pytest.fixture(scope='module')
def case(tmp_path_factory):
    folder = tmp_path_factory.mktemp('completion')
    texts, workdir = folder / 'texts', folder / 'run'
    texts.mkdir()
    for number in range(3):
        (texts / f'{number}.txt').write_text(f'Der Bär {number} geht heim. ' * 60)
    config = importlib.import_module('configs.gpt_text').get_config('smoke')
    with config.unlocked():
        config.data.update(source='folder', data_dir=str(texts), tokenizer='characters')
        config.data.vocab_size = None
        config.train.update(num_steps=1, sample_every=None, evaluate_every=None)
        config.train.best_by = None
    state = train(config, workdir)
    shutil.rmtree(texts)
    run = assemble(config, spec=workdirs.saved_spec(workdir))
    return SimpleNamespace(config=config, run=run, state=state, workdir=workdir)


def complete(case, *prompts, max_tokens, options=OPTIONS):
    tokens = [text.encode(prompt, case.run.spec, '--prompt') for prompt in prompts]
    parts = list(make_completer(case.run, tokens, max_tokens, options)(case.state, KEY))
    return tokens, parts


def test_continuations_grow_and_end_where_their_documents_do(case):
    """Beside what the sampler draws in one go: cut at the end of a document, or at the limit."""
    prompts = ['Der', 'Bär 1 g', 'D', 'heim', 'geht', 'B']
    tokens, parts = complete(case, *prompts, max_tokens=20)
    assert len(parts) > 2
    end = case.run.spec.start_token
    whole = np.full((6, 40), end, np.int32)
    known = np.arange(40) < np.array([len(row) for row in tokens])[:, None]
    for row, prompt in zip(whole, tokens, strict=True):
        row[: len(prompt)] = prompt
    predictor = case.run.method.predictor(case.state.ema_params)
    rules = samplers.Rules(stop=(end,))
    whole = np.asarray(samplers.generate(predictor, whole, known, KEY, rules))
    early = 0
    for row, prompt in enumerate(tokens):
        new = whole[row, len(prompt) : len(prompt) + 20].tolist()
        early += end in new
        new = new[: new.index(end)] if end in new else new
        assert parts[-1][row].tolist() == [*prompt, *new]
        for before, after in itertools.pairwise(parts):
            np.testing.assert_array_equal(after[row][: len(before[row])], before[row])
    assert 0 < early < 6


def test_a_prompt_longer_than_the_context_is_seen_from_its_end(case, capsys):
    long, short = 'geht heim. ' * 5, 'geht heim. geht heim. '[-16:]
    (tokens, *_), parts = complete(case, long, max_tokens=6)
    assert 'a prompt of 55 tokens the model sees the last 16' in capsys.readouterr().err
    _, shorter = complete(case, short, max_tokens=6)
    np.testing.assert_array_equal(parts[-1][0][: len(tokens)], tokens)
    np.testing.assert_array_equal(parts[-1][0][len(tokens) :], shorter[-1][0][16:])


def test_beams_give_one_likely_continuation(case):
    options = OPTIONS | {'num_beams': 3}
    (tokens, _), parts = complete(case, 'Der', 'Bär', max_tokens=8, options=options)
    assert len(parts) == 1 and len(parts[0][0]) <= len(tokens) + 8
    with pytest.raises(InputError, match='stays within the context'):
        complete(case, 'Der', max_tokens=100, options=options)


def test_one_text_is_shown_as_it_grows_and_several_at_the_end(case, capsys):
    def decode(x):
        return text.decode(x, case.run.spec)

    _, parts = complete(case, 'Der Bär', max_tokens=12)
    (whole,) = show(iter(parts), decode)
    assert capsys.readouterr().out == f'{whole}\n' and whole.startswith('Der Bär')
    _, parts = complete(case, 'Der', 'Bär', max_tokens=4)
    found = show(iter(parts), decode)
    shown = capsys.readouterr().out
    assert '======== 2 of 2 ========' in shown and all(words in shown for words in found)


def test_half_a_character_waits_for_its_other_half(capsys):
    whole = 'aß€'
    grows = [[np.frombuffer(whole.encode()[:size], np.uint8)] for size in (1, 2, 3, 5, 6)]

    def decode(x):
        return np.array([row.tobytes().decode(errors='replace') for row in x])

    assert show(iter(grows), decode)[0] == whole
    assert capsys.readouterr().out == f'{whole}\n'


def test_prompts_come_from_a_flag_or_a_file(case, tmp_path):
    def read(prompt=None, file=None):
        return prompts_of(case.config, case.run, prompt, file)

    expected = text.encode('Bär', case.run.spec, '--prompt').tolist()
    assert [p.tolist() for p in read('Bär')] == [expected]
    assert [p.tolist() for p in read('')] == [[case.run.spec.start_token]]
    (tmp_path / 'one.txt').write_text('Bär')
    lines = tmp_path / 'many.jsonl'
    lines.write_text(json.dumps({'text': 'Bär'}) + '\n' + json.dumps({'text': 'Der'}) + '\n')
    assert [p.tolist() for p in read(file=str(tmp_path / 'one.txt'))] == [expected]
    assert len(read(file=str(lines))) == 2 and read(file=str(lines))[0].tolist() == expected
    lines.write_text('{"text": "Bär"}\n{"prompt": 3}\n')
    (tmp_path / 'bytes.txt').write_bytes(b'\xff\xfe')
    for arguments, message in (
        ({'prompt': 'a', 'file': 'b'}, 'give one of the two'),
        ({'prompt': 'Der 飞'}, r"--prompt: the character '飞'"),
        ({'file': str(tmp_path / 'none')}, 'cannot read'),
        ({'file': str(tmp_path / 'bytes.txt')}, 'cannot read'),
        ({'file': str(lines)}, r'line 2 of .*many\.jsonl'),
    ):
        with pytest.raises(InputError, match=message):
            read(**arguments)


def test_an_export_reads_and_writes_text_as_the_run_does(case, tmp_path):
    """By the library that others read it with."""
    from tokenizers import Tokenizer

    folder = export(case.config, case.workdir, format='huggingface', out=str(tmp_path / 'hf'))
    library = Tokenizer.from_file(str(folder / 'tokenizer.json'))
    ours = text.encode('Der Bär 1', case.run.spec, '--prompt')
    assert library.encode('Der Bär 1').ids == ours.tolist()
    config = json.loads((folder / 'config.json').read_text())
    assert config['vocab_size'] == case.run.spec.vocab_size
    assert config['eos_token_id'] == case.run.spec.start_token


def test_another_text_than_that_of_the_run_is_not_evaluated(case, tmp_path):
    """Its characters would be other tokens, and the numbers of no model."""
    (tmp_path / 'other.txt').write_text('Die Maus 4 geht fort. ' * 200)
    config = case.config.copy_and_resolve_references()
    config.data.data_dir = str(tmp_path)
    with pytest.raises(InputError, match='data: not like what the run began with'):
        evaluate(config, case.workdir)


def test_sampling_writes_what_it_shows(case, tmp_path, capsys):
    """Through the mode itself, without the text that it was trained on."""
    out = tmp_path / 'out.txt'
    options = {'prompt': 'Der', 'max_tokens': 5, 'num': 2, 'seed': 3, 'out': str(out)}
    assert sample(case.config, case.workdir, **options) == [out]
    first, shown = out.read_text(), capsys.readouterr().out
    assert all(line in shown for line in first.splitlines())
    sample(case.config, case.workdir, **options)
    assert out.read_text() == first and first.count('Der') == 2
    for wrong, message in (
        ({'max_tokens': 0, 'prompt': 'Der'}, '--max_tokens: 0'),
        ({'max_tokens': 3}, '--max_tokens: it goes with --prompt'),
        ({'keep': 'top'}, '--keep: it goes with --given'),
        ({'prompt': 'Der', 'given': 'held_out'}, '--prompt: neither --given'),
        ({'prompt': 'Der', 'num': 0}, '--num: 0'),
        ({'prompt': 'Der', 'steps': 3}, r'sample\.options\.num_steps'),
    ):
        with pytest.raises(InputError, match=message):
            sample(case.config, case.workdir, **wrong)
