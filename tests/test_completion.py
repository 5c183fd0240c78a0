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


def complete(case, *prompts, max_tokens, batch_size=8, **options):
    tokens = [text.encode(prompt, case.run.spec, '--prompt') for prompt in prompts]
    draw = make_completer(case.run, tokens, max_tokens, batch_size, {**OPTIONS, **options})
    return tokens, list(draw(case.state, KEY))


def test_continuations_grow_and_end_where_their_documents_do(case):
    """Beside what the sampler draws in one go: cut at the end of a document, or at the limit."""
    prompts = ['Der', 'Bär 1 g', 'D', 'heim', 'geht', 'B']
    tokens, parts = complete(case, *prompts, max_tokens=20)
    assert len(parts) > 2
    end = case.run.spec.start_token
    whole = np.full((6, 40), end, np.int32)
    known = np.arange(40) < np.array([1 + len(row) for row in tokens])[:, None]
    for row, prompt in zip(whole, tokens, strict=True):
        row[1 : 1 + len(prompt)] = prompt  # after what stands before a document
    predictor = case.run.method.predictor(case.state.ema_params)
    rules = samplers.Rules(stop=(end,))
    key = jax.random.fold_in(KEY, 0)  # of the first batch
    whole = np.asarray(samplers.generate(predictor, whole, known, key, rules))
    early = 0
    for row, prompt in enumerate(tokens):
        new = whole[row, 1 + len(prompt) :][:20].tolist()
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
    assert len(parts[-1][0]) > len(tokens)


def test_more_prompts_than_a_batch_are_continued_in_several(case):
    """Greedily, so that it does not matter with which others one goes on."""
    prompts = ['Der', 'Bär 1 g', 'D', 'heim', 'geht'] * 4
    _, parts = complete(case, *prompts, max_tokens=12, batch_size=3, temperature=0.0)
    _, at_once = complete(case, *prompts, max_tokens=12, batch_size=20, temperature=0.0)
    sizes = [len(rows) for rows in parts]
    assert sizes == sorted(sizes) and set(sizes) == {8, 16, 20}  # rounded up to 8 devices
    for found, expected in zip(parts[-1], at_once[-1], strict=True):
        np.testing.assert_array_equal(found, expected)
    _, drawn = complete(case, *['Der'] * 16, max_tokens=12, batch_size=8)
    first, second = drawn[-1][:8], drawn[-1][8:]
    assert any(a.tolist() != b.tolist() for a, b in zip(first, second, strict=True))


def test_beams_find_the_likeliest_of_the_length_that_is_asked_for(case):
    """Beside all continuations of two tokens; a longer search would begin otherwise."""
    vocab_size, end = case.run.spec.vocab_size, case.run.spec.start_token
    tokens, parts = complete(
        case, 'Bär', 'Der', max_tokens=2, num_beams=vocab_size, length_penalty=0.0
    )
    predictor = case.run.method.predictor(case.state.ema_params)

    def logs(rows):
        rows = np.array(rows, np.int32)
        cache = predictor.init_cache(len(rows), rows.shape[1])
        return np.asarray(jax.nn.log_softmax(predictor.read(rows, cache, 0)[0][:, -1]), np.float64)

    for found, prompt in zip(parts[-1], tokens, strict=True):
        first = logs([[end, *prompt]])[0]
        second = logs([[end, *prompt, token] for token in range(vocab_size)])
        second[end] = np.where(np.arange(vocab_size) == end, 0, -np.inf)  # it has ended
        best = np.unravel_index((first[:, None] + second).argmax(), second.shape)
        assert found.tolist() == [*prompt, *(token for token in best if token != end)]


def test_a_search_says_at_once_what_it_cannot_do(case):
    """What its rules say of chance is of no use to it, and configs say much of that."""
    _, parts = complete(case, 'Der', max_tokens=None, num_beams=2, top_p=0.9, temperature=0.8)
    _, filled = complete(case, 'Der', max_tokens=13, num_beams=2)  # 16 have START and 3 in them
    np.testing.assert_array_equal(parts[-1][0], filled[-1][0])
    for wrong, message in (
        ({'max_tokens': 14, 'num_beams': 2}, '--max_tokens: 14 after 4 .* has room for 13'),
        ({'max_tokens': 5, 'num_beams': 0}, r'sample\.options\.num_beams: 0'),
        ({'num_beams': 2, 'repetition_penalty': 1.1}, r'sample\.options\.repetition_penalty'),
        ({'num_beams': 2, 'length_penalty': float('nan')}, r'options\.length_penalty: nan'),
        ({'max_tokens': 5, 'length_penalty': 1.0}, r'sample\.options\.length_penalty'),
    ):
        with pytest.raises(InputError, match=message):
            complete(case, 'Der', **{'max_tokens': None, **wrong})
    with pytest.raises(InputError, match=r'after 23 tokens; .* has room for 0'):
        complete(case, 'geht heim. geht heim. ', max_tokens=None, num_beams=2)


def test_prompts_of_any_length_are_searched_side_by_side_as_alone(case):
    prompts, options = ['Der', 'Bär 1 g', 'D', 'heim'], {'num_beams': 3, 'length_penalty': 0.5}
    _, together = complete(case, *prompts, max_tokens=6, batch_size=3, **options)
    for prompt, found in zip(prompts, together[-1], strict=True):
        _, alone = complete(case, prompt, max_tokens=6, **options)
        np.testing.assert_array_equal(found, alone[-1][0])


def test_a_batch_of_short_prompts_does_not_wait_for_the_longest(case):
    _, parts = complete(case, *'DBDBDBDB', 'geht heim. ' * 6, max_tokens=4)
    assert sum(len(rows) == 8 for rows in parts) == 2  # as many looks as 4 tokens take


def test_an_empty_prompt_is_the_beginning_of_a_document(case):
    predictor, end = case.run.method.predictor(case.state.ema_params), case.run.spec.start_token
    logits, _ = predictor.read(np.array([[end]], np.int32), predictor.init_cache(1, 1), 0)
    first = int(logits[0, 0].argmax())
    _, parts = complete(case, '', max_tokens=6, temperature=0.0)
    assert parts[-1][0].tolist()[:1] == [first] * (first != end)
    assert len(parts[-1][0]) <= 6


def test_one_text_is_shown_as_it_grows_and_several_at_the_end(case, capsys):
    def decode(x):
        return text.decode(x, case.run.spec)

    _, parts = complete(case, 'Der Bär', max_tokens=12)
    (whole,) = show(iter(parts), decode, 1)
    assert capsys.readouterr().out == f'{whole}\n' and whole.startswith('Der Bär')
    _, parts = complete(case, 'Der', 'Bär', max_tokens=4)
    found = show(iter(parts), decode, 2)
    shown = capsys.readouterr().out
    assert '======== 2 of 2 ========' in shown and all(words in shown for words in found)


def test_half_a_character_waits_for_its_other_half(capsys):
    whole = 'aß€'
    grows = [[np.frombuffer(whole.encode()[:size], np.uint8)] for size in (1, 2, 3, 5, 6)]

    def decode(x):
        return np.array([row.tobytes().decode(errors='replace') for row in x])

    assert show(iter(grows), decode, 1)[0] == whole
    assert capsys.readouterr().out == f'{whole}\n'


def test_prompts_come_from_a_flag_or_a_file(case, tmp_path):
    def read(prompt=None, file=None):
        return prompts_of(case.config, case.run, prompt, file)

    expected = text.encode('Bär', case.run.spec, '--prompt').tolist()
    assert [p.tolist() for p in read('Bär')] == [expected]
    assert [p.tolist() for p in read('')] == [[]]
    (tmp_path / 'one.txt').write_text('Bär')
    lines = tmp_path / 'many.jsonl'
    lines.write_text(json.dumps({'text': 'Bär'}) + '\n' + json.dumps({'text': 'Der'}) + '\n')
    assert [p.tolist() for p in read(file=str(tmp_path / 'one.txt'))] == [expected]
    assert len(read(file=str(lines))) == 2 and read(file=str(lines))[0].tolist() == expected
    # As files of training are read: a line may be empty or hold a separator, and a mark may begin.
    lines.write_text('\ufeff{"text": "Bär"}\n\n{"text": "Der"}\r\n', encoding='utf-8')
    assert [len(p) for p in read(file=str(lines))] == [3, 3]
    lines.write_text('{"text": "Bär"}\n{"prompt": 3}\n')
    (tmp_path / 'bytes.txt').write_bytes(b'\xff\xfe')
    for arguments, message in (
        ({'prompt': 'a', 'file': 'b'}, 'give one of the two'),
        ({'prompt': 'Der 飞'}, r"--prompt: the character '飞'"),
        ({'file': str(tmp_path / 'none')}, '--prompt_file: .*: cannot read none'),
        ({'file': str(tmp_path / 'bytes.txt')}, 'cannot read'),
        ({'file': str(lines)}, r'cannot read many\.jsonl:2 as an object like \{"text"'),
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
    config = case.config.copy_and_resolve_references()
    config.sample.options.num_beams = 2  # and the config's top_p, which no flag can set to None
    with pytest.raises(InputError, match='--num: 2; a search'):
        sample(config, case.workdir, **options)
    sample(config, case.workdir, **options | {'num': 1})
    for wrong, message in (
        ({'max_tokens': 0, 'prompt': 'Der'}, '--max_tokens: 0'),
        ({'max_tokens': 10**10, 'prompt': 'Der'}, '--max_tokens: 10000000000 must be from 1'),
        ({'max_tokens': 3}, '--max_tokens: it goes with --prompt'),
        ({'keep': 'top'}, '--keep: it goes with --given'),
        ({'prompt': 'Der', 'given': 'held_out'}, '--prompt: neither --given'),
        ({'prompt': 'Der', 'num': 0}, '--num: 0'),
        ({'prompt': 'Der', 'steps': 3}, '--steps: 3; this method draws'),
    ):
        with pytest.raises(InputError, match=message):
            sample(case.config, case.workdir, **wrong)
