"""Text sets of TFDS: read from disk without TensorFlow, absent ones reported."""

import os
import subprocess
import sys

import pytest

from gen_jax.data import tfds_text
from gen_jax.data.corpus import survey
from gen_jax.errors import InputError

TEXTS = ['To be, or not to be', 'naïve café', 'a\r\nb', 'x' * 5000]


def texts_of(documents) -> list[str]:
    return [''.join(document.pieces()) for document in documents()]


def encoded(texts, feature='text', **others):
    return [{feature: text.encode(), **others} for text in texts]


def test_every_document_arrives(tmp_path, write_tfds):
    many = [f'document {i}' for i in range(600)]
    splits = {'train': encoded(many), 'test': encoded(TEXTS)}
    write_tfds(tmp_path, 'lm1b', '1.1.0', splits, 'array_record')
    corpus = tfds_text.corpus('lm1b', str(tmp_path), prepare=False)
    assert corpus.present
    assert texts_of(corpus.train) == many
    assert texts_of(corpus.evaluation) == TEXTS
    text = ' '.join(corpus.lines)
    assert 'lm1b/1.1.0' in text and str(tmp_path) in text
    assert '600 in train and 4 in test' in text


def test_a_lone_text_may_have_any_name(tmp_path, write_tfds):
    others = {'book_id': 7, 'book_title': b'\xff', 'publication_date': b'', 'book_link': b''}
    splits = {'train': encoded(TEXTS, 'book_text', **others)}
    splits['validation'] = encoded(['held out'], 'book_text', **others)
    write_tfds(tmp_path, 'pg19', '0.1.1', splits, 'array_record')
    corpus = tfds_text.corpus('pg19', str(tmp_path), prepare=True)
    assert texts_of(corpus.train) == TEXTS
    assert texts_of(corpus.evaluation) == ['held out']


def test_of_several_texts_the_one_of_that_name_is_taken(tmp_path, write_tfds):
    splits = {'train': encoded(TEXTS, summary=b'short', title=b'name')}
    write_tfds(tmp_path, 'billsum', '3.0.0', splits, 'array_record')
    assert texts_of(tfds_text.corpus('billsum', str(tmp_path), prepare=False).train) == TEXTS


def test_a_set_of_one_split_has_no_evaluation_of_its_own(tmp_path, write_tfds):
    write_tfds(tmp_path, 'lm1b', '1.1.0', {'train': encoded(TEXTS)}, 'array_record')
    corpus = tfds_text.corpus('lm1b', str(tmp_path), prepare=False)
    assert corpus.evaluation is None
    assert survey(corpus).documents == 4


def test_bytes_that_are_no_text_are_left_out_by_number(tmp_path, write_tfds):
    splits = {'train': [{'text': b'\xff'}, *encoded(TEXTS), {'text': b''}]}
    write_tfds(tmp_path, 'lm1b', '1.1.0', splits, 'array_record')
    found = survey(tfds_text.corpus('lm1b', str(tmp_path), prepare=False))
    assert (found.documents, found.left_out, found.named) == (4, 2, ('train 0', 'train 5'))


def test_an_absent_set_is_described_and_else_needs_a_network(tmp_path, monkeypatch):
    for name in ('HTTP_PROXY', 'HTTPS_PROXY', 'http_proxy', 'https_proxy'):
        monkeypatch.setenv(name, 'http://127.0.0.1:9')
    corpus = tfds_text.corpus('imdb_reviews', str(tmp_path / 'none'), prepare=False)
    assert not corpus.present
    assert 'absent' in ' '.join(corpus.lines)
    assert not (tmp_path / 'none').exists()
    with pytest.raises(InputError, match=r'^data\.name: .*imdb_reviews.*cannot be prepared'):
        tfds_text.corpus('imdb_reviews', str(tmp_path / 'none'), prepare=True)


def test_sets_that_cannot_be_used_name_the_field(tmp_path, write_tfds):
    for name, reason in (
        (None, "such as 'imdb_reviews'"),
        ('lm2b', 'did you mean .*lm1b'),
        ('mnist', 'has no text'),
        ('ag_news_subset', r'several texts \(title, description\)'),
    ):
        with pytest.raises(InputError, match=rf'^data\.name: .*{reason}'):
            tfds_text.corpus(name, str(tmp_path), prepare=False)
    write_tfds(tmp_path, 'lm1b', '1.1.0', {'test': encoded(TEXTS)}, 'array_record')
    with pytest.raises(InputError, match=r'^data\.name: .*no split train'):
        tfds_text.corpus('lm1b', str(tmp_path), prepare=False)
    write_tfds(tmp_path / 'b', 'lm1b', '1.1.0', {'train': encoded(TEXTS)}, 'tfrecord')
    with pytest.raises(InputError, match=r'^data\.data_dir: .*tfrecord'):
        tfds_text.corpus('lm1b', str(tmp_path / 'b'), prepare=False)


def test_tensorflow_is_never_imported(tmp_path, write_tfds):
    write_tfds(tmp_path, 'lm1b', '1.1.0', {'train': encoded(TEXTS)}, 'array_record')
    trap = tmp_path / 'trap' / 'tensorflow'
    trap.mkdir(parents=True)
    marker = tmp_path / 'imported'
    (trap / '__init__.py').write_text(
        f'open({str(marker)!r}, "w").close()\nraise ImportError("tensorflow was imported")\n'
    )
    program = (
        'from gen_jax.data import text\n'
        'options = dict(source="tfds", name="lm1b", tokenizer="bpe", vocab_size=260, context=8)\n'
        'assert text.describe(**options).spec == text.load(**options).spec\n'
    )
    path = os.pathsep.join([str(trap.parent), os.environ.get('PYTHONPATH', '')])
    environment = os.environ | {'PYTHONPATH': path, 'TFDS_DATA_DIR': str(tmp_path)}
    subprocess.run([sys.executable, '-c', program], env=environment, check=True, timeout=60)
    assert not marker.exists()
