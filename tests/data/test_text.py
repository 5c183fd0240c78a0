"""`load` and `describe` of text: every source with every tokenizer, and bad arguments."""

import hashlib
import json
import warnings

import numpy as np
import pytest

from gen_jax.data import text, token_files, tokenizers
from gen_jax.data.dataset import evaluation_batches, training_batches
from gen_jax.errors import InputError

KINDS = {
    'bytes': {'tokenizer': 'bytes'},
    'characters': {'tokenizer': 'characters'},
    'bpe': {'tokenizer': 'bpe', 'vocab_size': 300},
}
DOCUMENTS = [f'Document {i}: naïve café, 你好 🙂 e\u0301.\r\n\tEnd {i * i}' for i in range(40)]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('GEN_JAX_CACHE', str(tmp_path / 'cache'))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / 'texts').mkdir()
    lines = [json.dumps({'text': document}) for document in DOCUMENTS]
    (tmp_path / 'texts' / 'a.jsonl').write_text('\n'.join(lines))
    return {'source': 'folder', 'data_dir': str(tmp_path / 'texts'), 'context': 32}


def evaluated(dataset) -> tuple[list[int], np.ndarray]:
    """The tokens of weight 1 that evaluation sees, in order, and the sum of counts."""
    tokens, counts, end = [], np.zeros(2), dataset.spec.start_token
    for batch in evaluation_batches(dataset.evaluation, batch_size=5):
        real = batch['mask'] == 1
        tokens += batch['x'][real][batch['weight'][real] == 1].tolist()
        counts += batch['counts'][real].sum(0)
    last = batch['x'][real][-1]
    assert (last[np.flatnonzero(batch['weight'][real][-1])[-1] :] == end).all()  # the padding
    return tokens, counts


@pytest.mark.parametrize('stride', [None, 7, 1])
@pytest.mark.parametrize('kind', KINDS)
def test_evaluation_is_every_token_once_counted_in_characters_and_bytes(folder, kind, stride):
    dataset = text.load(**folder, **KINDS[kind], evaluation_stride=stride)
    tokens, counts = evaluated(dataset)
    words = tokenizers.from_json(dataset.spec.tokenizer)
    end = f'\n{tokenizers.END}\n'
    whole = words.decode(np.array(tokens))
    assert whole.endswith(end)
    found = whole.removesuffix(end).split(end)
    assert 0 < len(found) < 10 and set(found) < set(DOCUMENTS)
    assert counts.tolist() == [sum(map(len, found)), sum(len(d.encode()) for d in found)]


@pytest.mark.parametrize('kind', KINDS)
def test_training_sees_the_other_documents(folder, kind):
    dataset = text.load(**folder, **KINDS[kind])
    everything = next(evaluation_batches(dataset.train, batch_size=dataset.train.num_examples))
    shifts = np.zeros(dataset.train.num_examples, np.uint64)
    batch = dataset.train.transform(dataset.train.fetch(np.arange(len(shifts))), shifts)
    found = text.decode(batch['x'].reshape(1, -1), dataset.spec)[0]
    assert everything['x'].shape == batch['x'].shape
    parts = found.split(f'\n{tokenizers.END}\n')
    held_out = text.decode(np.array([evaluated(dataset)[0]]), dataset.spec)[0]
    for document in DOCUMENTS:
        assert (document in parts) != (document in held_out)


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('source', ['folder', 'synthetic', 'embedded', 'tfds'])
def test_describe_agrees_with_load(folder, source, kind, tmp_path, write_tfds):
    options = {
        'folder': folder,
        'synthetic': {'source': 'synthetic', 'name': 'anything', 'context': 64},
        'embedded': {'source': 'embedded', 'context': 128},
        'tfds': {'source': 'tfds', 'name': 'lm1b', 'data_dir': str(tmp_path), 'context': 32},
    }[source] | KINDS[kind]
    if source == 'tfds':
        splits = {
            'train': [{'text': document.encode()} for document in DOCUMENTS[:30]],
            'test': [{'text': document.encode()} for document in DOCUMENTS[30:]],
        }
        write_tfds(tmp_path, 'lm1b', '1.1.0', splits, 'array_record')
    before = text.describe(**options)
    dataset = text.load(**options)
    after = text.describe(**options)
    assert before.spec == after.spec == dataset.spec
    assert before.present and after.present
    assert 'not tokenized yet' in before.lines[-1]
    lines = '\n'.join(after.lines)
    words = tokenizers.from_json(dataset.spec.tokenizer)
    assert f'tokenizer {kind}: {words.vocab_size:,} ids' in lines
    tokens, (characters, _) = evaluated(dataset)
    assert f'{int(characters):,} characters, {len(tokens) + 1:,} tokens' in lines
    spec = dataset.spec
    assert (spec.shape, spec.dtype) == ((options['context'],), 'int32')
    assert (spec.vocab_size, spec.start_token) == (words.vocab_size, words.vocab_size - 1)
    assert spec.units == ('char', 'byte')


def test_describe_of_bytes_reads_nothing(folder, monkeypatch):
    monkeypatch.setattr(text.text_files, '_lines', None)
    found = text.describe(**folder, tokenizer='bytes')
    assert found.spec.vocab_size == 257
    assert '1 .jsonl' in found.lines[0]


def test_describe_learns_merges_once_and_tells_of_unused_ids(folder, monkeypatch):
    options = folder | {'tokenizer': 'bpe', 'vocab_size': 2000}
    found = text.describe(**options)
    assert found.spec.vocab_size == 2000
    unused = tokenizers.from_json(found.spec.tokenizer).num_unused
    assert unused > 1000 and f'{unused:,} of them unused' in '\n'.join(found.lines)
    monkeypatch.setattr(tokenizers, 'train_bpe', None)
    assert text.load(**options).spec == found.spec


def test_an_absent_set_is_described(tmp_path):
    options = {'source': 'tfds', 'name': 'imdb_reviews', 'data_dir': str(tmp_path / 'none')}
    found = text.describe(**options, tokenizer='bytes')
    assert not found.present
    assert 'absent' in found.lines[1]
    assert found.spec.vocab_size == 257


def test_tiny_shakespeare_is_divided_as_elsewhere():
    dataset = text.load(name='tinyshakespeare')
    words = tokenizers.from_json(dataset.spec.tokenizer)
    assert words.vocab_size == 66
    lines = '\n'.join(text.describe().lines)
    assert '1,003,854 characters' in lines and '111,540 characters' in lines
    tokens, counts = evaluated(dataset)
    assert counts.tolist() == [111_540, 111_540]
    corpus = text._corpus('embedded', None, None, prepare=True)
    kept = token_files.kept(corpus, words, 0.1)
    streams = [part.stream[1:-1] for part in kept[:2]]
    whole = ''.join(words.decode(stream) for stream in streams)
    digest = hashlib.sha256(whole.encode()).hexdigest()
    assert digest == '86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed'
    assert whole.startswith('First Citizen:\nBefore we proceed any further')
    assert tokens == [*streams[1].tolist(), 65]


def test_a_damaged_installation_says_so(monkeypatch):
    monkeypatch.setattr(text, '_SHA256', '0')
    with pytest.raises(InputError, match=r'^data\.name: .*tinyshakespeare.txt.xz is missing or'):
        text.load()


def test_a_tokenizer_of_a_file(folder, tmp_path):
    path = tmp_path / 'tokenizer.json'
    path.write_text(tokenizers.train_bpe(DOCUMENTS, 280).json)
    dataset = text.load(**folder, tokenizer=str(path))
    assert dataset.spec == text.describe(**folder, tokenizer=str(path)).spec
    assert dataset.spec.tokenizer == path.read_text()
    path.write_text(tokenizers.of_characters('abc').json)
    assert text.describe(**folder, tokenizer=str(path)).spec.vocab_size == 4
    with pytest.raises(InputError, match=r"^data\.tokenizer: the character 'D'"):
        text.load(**folder, tokenizer=str(path))


def test_the_fingerprint_is_of_the_content(folder, tmp_path):
    first = text.load(**folder)
    assert text.load(**folder | {'context': 16}).fingerprint == first.fingerprint
    other = tmp_path / 'elsewhere'
    (tmp_path / 'texts').rename(other)
    moved = folder | {'data_dir': str(other)}
    assert text.load(**moved).fingerprint == first.fingerprint
    assert text.load(**moved, held_out=0.3).fingerprint != first.fingerprint
    with (other / 'a.jsonl').open('a') as file:
        file.write('\n{"text": "one more"}')
    assert text.load(**moved).fingerprint != first.fingerprint


def test_documents_that_are_left_out_are_named_at_every_load(folder, tmp_path):
    path = tmp_path / 'texts' / 'b.jsonl'
    path.write_text('\n'.join(['{}'] * 7))
    message = r'7 document\(s\) of .* left out: b\.jsonl:1, .*, b\.jsonl:5, …$'
    for _ in range(2):
        with pytest.warns(UserWarning, match=message):
            text.load(**folder)
    path.unlink()
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        text.load(**folder)


def test_training_is_the_same_wherever_it_starts():
    dataset = text.load(source='synthetic', tokenizer='bytes', context=32)
    stream = training_batches(dataset.train, batch_size=4, seed=1)
    batches = [next(stream) for _ in range(6)]
    again = next(training_batches(dataset.train, batch_size=4, seed=1, start_step=5))
    for name, value in batches[5].items():
        np.testing.assert_array_equal(again[name], value)
    assert {name: (value.shape, value.dtype.name) for name, value in again.items()} == {
        'x': ((4, 32), 'int32'),
        'before': ((4,), 'int32'),
        'weight': ((4, 32), 'float32'),
        'counts': ((4, 2), 'float32'),
    }
    assert (again['counts'][:, 1] >= again['counts'][:, 0]).all()


def test_samples_become_text_and_a_file(tmp_path):
    spec = text.describe(source='synthetic', tokenizer='bytes', context=4).spec
    x = np.array([list(b'abcd'), [*b'e', 256, *b'f\n'], [0xC3, 0x41, 0xC3, 0xA9]], np.int32)
    texts = text.decode(x, spec)
    ended = np.array([[256] * 4, [*b'g', 256, 256, 256], [256, *b'h', 256, 256]])
    assert text.decode(ended, spec).tolist() == ['', 'g', '\n<|endoftext|>\nh']
    assert texts.tolist() == ['abcd', 'e\n<|endoftext|>\nf\n', '\ufffdAé']
    np.save(tmp_path / 'x.npy', texts)  # as `--mode=sample` keeps them: without pickle
    path = text.write(texts, tmp_path / 'deep' / 'step_1', '.txt')
    assert path == tmp_path / 'deep' / 'step_1.txt'
    assert path.read_bytes().decode() == (
        '======== 1 of 3 ========\nabcd\n\n'
        '======== 2 of 3 ========\ne\n<|endoftext|>\nf\n\n\n'
        '======== 3 of 3 ========\n\ufffdAé\n'
    )
    assert list(path.parent.iterdir()) == [path]
    assert text.SUFFIXES == ('.txt',)


@pytest.mark.parametrize('call', [text.load, text.describe])
@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'source': 'web'}, r"data\.source: 'web' for text; use one of embedded, folder"),
        ({'name': 'shakespeare'}, r"data\.name: 'shakespeare' .*'tinyshakespeare'"),
        ({'source': 'folder'}, r'data\.data_dir'),
        ({'source': 'tfds'}, r'data\.name'),
        (
            {'source': 'embedded', 'data_dir': 'x'},
            r"data\.data_dir: x; data\.source 'embedded' reads no",
        ),
        ({'context': 0}, r'data\.context: 0'),
        ({'evaluation_stride': 0}, r'data\.evaluation_stride: 0 tokens; use 1 to 256'),
        ({'evaluation_stride': 257}, r'data\.evaluation_stride: 257 tokens; use 1 to 256'),
        ({'held_out': 0.0}, r'data\.held_out: 0'),
        ({'held_out': 1.0}, r'data\.held_out: 1'),
        ({'tokenizer': 'bpe'}, r"data\.vocab_size: None; 'bpe' needs 257"),
        ({'tokenizer': 'bpe', 'vocab_size': 256}, r'data\.vocab_size: 256'),
        ({'tokenizer': 'bytes', 'vocab_size': 300}, r"data\.vocab_size: 300; only 'bpe'"),
        ({'tokenizer': 'words'}, r"data\.tokenizer: 'words' is none of"),
    ],
)
def test_bad_arguments_name_the_field(call, arguments, message):
    with pytest.raises(InputError, match=f'^{message}') as caught:
        call(**arguments)
    assert '\n' not in str(caught.value)


def test_a_window_longer_than_the_text_names_the_field(folder):
    with pytest.raises(InputError, match=r'^data\.context: 100000 is more than the'):
        text.load(**folder | {'context': 100_000})
