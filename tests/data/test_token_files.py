"""What is kept of a corpus: made once, whole or not at all, by however many processes."""

import errno
import hashlib
import json
import os
import shutil
import threading
import time

import numpy as np
import pytest

from gen_jax.data import corpus as corpora
from gen_jax.data import token_files, tokenizers
from gen_jax.data.corpus import Corpus, Document
from gen_jax.errors import InputError

BYTES = tokenizers.of_bytes()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('GEN_JAX_CACHE', str(tmp_path / 'cache'))
    return tmp_path / 'cache' / 'tokens'


def corpus_of(texts, evaluation=None, identity='test') -> Corpus:
    def documents(some):
        return (Document('a text', lambda text=text: (text,)) for text in some)

    given = None if evaluation is None else lambda: documents(evaluation)
    return Corpus('a test', 'data.data_dir', (identity,), True, (), lambda: documents(texts), given)


def tokenize(corpus, tokenizer=BYTES, held_out=0.5):
    return token_files.tokenize(corpus, token_files.survey(corpus), tokenizer, held_out)


def test_a_stream_is_documents_between_ends():
    found = tokenize(corpus_of(['abcd', 'xé', 'q'], ['end']))
    end = 256
    expected = [end, *b'abcd', end, *'xé'.encode(), end, *b'q', end]
    assert found.train.stream.tolist() == expected
    assert found.evaluation.stream.tolist() == [end, *b'end', end]
    assert found.train[1:] == (3, 7) and found.evaluation[1:] == (1, 3)
    assert isinstance(found.train.stream, np.memmap)
    assert found.train.stream.dtype == np.uint16


@pytest.mark.parametrize(('batch', 'texts'), [(1, 2**14), (2**21, 3), (50, 7)])
@pytest.mark.parametrize('kind', ['bytes', 'bpe'])
def test_streams_do_not_depend_on_what_is_encoded_at_once(kind, batch, texts, monkeypatch):
    corpus = corpus_of([f'the document of number {i}' for i in range(100)])
    found = token_files.survey(corpus)
    words = token_files.bpe(corpus, found, 0.1, 300) if kind == 'bpe' else BYTES
    monkeypatch.setattr(token_files, '_BATCH', batch)
    monkeypatch.setattr(token_files, '_BATCH_TEXTS', texts)
    expected = {split: [words.end_token] for split in token_files.SPLITS}
    for split, pieces in corpora.divide(corpus, found, 0.1):
        for piece in pieces:
            expected[split] += words.encode(piece).tolist()
        expected[split].append(words.end_token)
    tokens = tokenize(corpus, words, 0.1)
    assert tokens.train.stream.tolist() == expected['train']
    assert tokens.evaluation.stream.tolist() == expected['evaluation']


def test_many_symbols_take_32_bits():
    symbols = [chr(i) for i in range(0x10000, 0x10000 + 2**16)]
    corpus = corpus_of([''.join(symbols)])
    for count, dtype in ((2**16 - 1, np.uint16), (2**16, np.uint32)):
        words = tokenizers.of_characters(symbols[:count])
        some = corpus_of([''.join(symbols[:count])], identity=str(count))
        tokens = tokenize(some, words)
        assert tokens.train.stream.dtype == dtype
        assert tokens.evaluation.stream[-2:].tolist() == [count - 1, words.end_token]
    with pytest.raises(InputError, match=r'data\.tokenizer: the character .*U\+1FFFF'):
        tokenize(corpus, tokenizers.of_characters(symbols[:-1]))


def test_what_is_kept_is_not_made_again(monkeypatch):
    corpus = corpus_of(['some text', 'and more'])
    survey = token_files.survey(corpus)
    words = token_files.bpe(corpus, survey, 0.5, 258)
    assert token_files.kept(corpus, words, 0.5) is None
    first = tokenize(corpus, words)

    def fail():
        raise AssertionError('the corpus was read again')

    again = corpus._replace(train=fail)
    assert token_files.survey(again) == survey
    assert token_files.bpe(again, survey, 0.5, 258) is words
    for found in (tokenize(again, words), token_files.kept(again, words, 0.5)):
        assert found.fingerprint == first.fingerprint
        np.testing.assert_array_equal(found.train.stream, first.train.stream)


def test_whatever_matters_makes_another_entry(cache):
    corpus = corpus_of(['some text', 'and more'])
    other = corpus_of(['some text', 'and much more'], identity='other')
    folders = {
        tokenize(corpus).folder,
        tokenize(other).folder,
        tokenize(corpus, held_out=0.25).folder,
        tokenize(corpus, tokenizers.of_characters('some text and more')).folder,
    }
    assert len(folders) == 4
    assert all(folder.parent == cache for folder in folders)


def test_the_fingerprint_is_of_the_tokens():
    prints = [
        tokenize(corpus_of(texts, identity=str(number)), words).fingerprint
        for number, (texts, words) in enumerate(
            [
                (['some text', 'and more'], BYTES),
                (['some text', 'and more'], BYTES),
                (['and more', 'some text'], BYTES),
                (['some text', 'and mope'], BYTES),
                (['some text', 'and more'], tokenizers.of_characters('some text and more')),
            ]
        )
    ]
    assert prints[0] == prints[1] and len(set(prints)) == 4
    found = tokenize(corpus_of(['some text', 'and more'], identity='0'))
    sums = [hashlib.sha256(part.stream).hexdigest() for part in found[:2]]
    whole = hashlib.sha256('\n'.join([BYTES.json, *sums]).encode()).hexdigest()
    assert found.fingerprint == whole[:16]


def test_a_text_has_one_fingerprint_whatever_its_tokens():
    texts = ['some text', 'and more']
    words = tokenizers.of_characters(''.join(texts))
    of_text = tokenize(corpus_of(texts, identity='0')).text_fingerprint
    assert tokenize(corpus_of(texts, identity='1'), words).text_fingerprint == of_text
    for number, other in enumerate((['some tent', 'and more'], ['some text', 'and', ' more'])):
        found = tokenize(corpus_of(other, identity=f'other {number}'))
        assert found.text_fingerprint != of_text


def test_two_that_prepare_at_once_get_the_same(cache):
    """Both are in the middle of it before either goes on."""
    corpus = corpus_of(['some text', 'and more'])
    meeting = threading.Barrier(2, timeout=30)

    def encode_all(texts, field):
        meeting.wait()
        return BYTES.encode_all(texts, field)

    words, survey, found = BYTES._replace(encode_all=encode_all), token_files.survey(corpus), []

    def prepare():
        found.append(token_files.tokenize(corpus, survey, words, 0.5))

    threads = [threading.Thread(target=prepare) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0].folder == found[1].folder
    for tokens in found:
        assert bytes(tokens.train.stream[1:5].astype(np.uint8)) == b'some'
    assert len(list(cache.iterdir())) == 2  # the survey and the tokens, and nothing besides


@pytest.mark.parametrize('error', [KeyboardInterrupt(), OSError(errno.ENOSPC, 'No space left')])
def test_what_is_cut_short_leaves_nothing(cache, error):
    corpus = corpus_of(['some text', 'and more'])
    token_files.survey(corpus)
    before = set(cache.iterdir())

    def encode_all(texts, field):
        raise error

    expected = InputError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected) as caught:
        tokenize(corpus, BYTES._replace(encode_all=encode_all))
    if isinstance(error, OSError):
        assert str(caught.value).startswith(f'GEN_JAX_CACHE: tokens cannot be written in {cache}')
    assert set(cache.iterdir()) == before
    assert tokenize(corpus).train.documents == 2


def test_what_killed_processes_left_is_removed_when_it_is_old(cache):
    for name, days in (('.a', 4), ('.b', 2), ('c', 4)):
        (cache / name).mkdir(parents=True)
        (cache / name / 'train').write_bytes(b'1234')
        for path in (cache / name / 'train', cache / name):
            os.utime(path, times=(time.time() - days * 24 * 3600,) * 2)
    os.utime(cache / '.b', times=(0, 0))  # the file in it is younger
    tokenize(corpus_of(['some text', 'and more']))
    assert not (cache / '.a').exists()
    assert (cache / '.b').exists() and (cache / 'c').exists()


def test_where_nothing_can_be_written_a_temporary_folder_serves(monkeypatch, tmp_path):
    monkeypatch.setenv('GEN_JAX_CACHE', '/proc/none')
    token_files._temporary_root.cache_clear()
    monkeypatch.setattr(token_files.tempfile, 'tempdir', str(tmp_path))
    corpus = corpus_of(['some text', 'and more'])
    found = tokenize(corpus)
    assert found.folder.is_relative_to(tmp_path)
    assert token_files.kept(corpus, BYTES, 0.5).folder == found.folder
    token_files._temporary_root.cache_clear()


@pytest.mark.parametrize('damage', ['meta.json', 'train', 'evaluation', 'cut', 'words'])
def test_a_damaged_entry_says_what_to_remove(damage):
    corpus = corpus_of(['some text', 'and more'])
    folder = tokenize(corpus).folder
    if damage == 'cut':
        os.truncate(folder / 'train', 4)
    elif damage == 'words':
        (folder / 'meta.json').write_text('{"dtype":')
    else:
        (folder / damage).unlink()
    with pytest.raises(InputError, match=rf'^GEN_JAX_CACHE: {folder} is damaged; remove it'):
        tokenize(corpus)
    shutil.rmtree(folder)
    assert tokenize(corpus).train.documents == 2


def test_a_damaged_survey_or_vocabulary_says_so_too(cache):
    corpus = corpus_of(['some text', 'and more'])
    survey = token_files.survey(corpus)
    token_files.bpe(corpus, survey, 0.5, 258)
    for path in cache.rglob('*.json'):
        path.write_text(json.dumps({'a': 1}))
    for make in (token_files.survey, lambda corpus: token_files.bpe(corpus, survey, 0.5, 258)):
        with pytest.raises(InputError, match=r'^GEN_JAX_CACHE: .* is damaged'):
            make(corpus)


def test_merges_are_learned_from_what_trains_alone():
    corpus = corpus_of(['aaaa bbbb'] * 3, ['cccc dddd'] * 3)
    words = token_files.bpe(corpus, token_files.survey(corpus), 0.1, 300)
    assert len(words.encode('aaaa bbbb')) < 4
    assert len(words.encode('cccc dddd')) == 9


@pytest.mark.parametrize(
    ('corpus', 'message'),
    [
        (corpus_of(['a']), r'^data\.held_out: 0\.5: .* no text for the split train'),
        (corpus_of(['same'] * 20), r'^data\.held_out: 0\.5: .* for the split evaluation'),
        (corpus_of(['a'], ['']), r'^data\.data_dir: .* for the split evaluation'),
        (corpus_of([''], ['a']), r'^data\.data_dir: .* for the split train'),
    ],
)
def test_a_split_without_text_is_an_input_error(corpus, message):
    with pytest.raises(InputError, match=message):
        tokenize(corpus)
