"""Files and folders of the user's own text."""

import json
import os
import random

import pytest

from gen_jax.data import text_files, tokenizers
from gen_jax.data.corpus import survey
from gen_jax.errors import InputError


def texts_of(path) -> list[str]:
    """Each document, or the error of reading it."""
    found = []
    for document in text_files.corpus(str(path)).train():
        try:
            found.append(''.join(document.pieces()))
        except ValueError as error:
            found.append(error)
    return found


def test_a_folder_is_searched_all_the_way_down(tmp_path):
    (tmp_path / 'deep' / 'down').mkdir(parents=True)
    (tmp_path / 'b.txt').write_text('second')
    (tmp_path / 'deep' / 'down' / 'c.TXT').write_text('fourth')
    (tmp_path / 'c.jsonl').write_text('{"text": "third"}\n')
    (tmp_path / 'a.txt').write_text('first')
    for name in ('.hidden.txt', 'notes.md', 'text', 'e.json'):
        (tmp_path / name).write_text('no text of this corpus')
    (tmp_path / 'folder.txt').mkdir()
    assert texts_of(tmp_path) == ['first', 'second', 'third', 'fourth']
    line = text_files.corpus(str(tmp_path)).lines[0]
    assert '3 .txt and 1 .jsonl' in line and str(tmp_path) in line


def test_a_file_is_a_corpus_too(tmp_path):
    (tmp_path / 'a.txt').write_text('one document\n\nnot two')
    assert texts_of(tmp_path / 'a.txt') == ['one document\n\nnot two']


def test_marks_are_taken_off_and_ends_of_lines_are_kept(tmp_path):
    text = 'a\r\nb\rc\n\n\u2028\ufeffd'
    (tmp_path / 'a.txt').write_bytes(b'\xef\xbb\xbf' + text.encode())
    (tmp_path / 'b.jsonl').write_bytes(b'\xef\xbb\xbf' + json.dumps({'text': text}).encode())
    assert texts_of(tmp_path) == [text, text]


def test_lines_of_objects(tmp_path):
    lines = [
        *('{"text": "a\\nb", "more": [1]}', '', '  ', '{"text": "\u00e9\\u00e9"}\r'),
        *('{"text": 1}', '{"words": "x"}', '["text"]', '"text"', '{"text": "x"', '[' * 100_000),
        *('{"text": ""}', '{"text": "\\ud800"}'),
    ]
    path = tmp_path / 'a.jsonl'
    path.write_bytes('\n'.join(lines).encode() + b'\n{"text": "\xff"}\n{"text": "last"}')
    found = texts_of(path)
    assert found[:2] == ['a\nb', 'éé'] and found[-1] == 'last'
    assert [isinstance(text, ValueError) for text in found[2:8]] == [True] * 6
    assert isinstance(found[10], ValueError)
    counted = survey(text_files.corpus(str(path)))
    assert (counted.documents, counted.left_out) == (3, 9)
    assert counted.named == tuple(f'a.jsonl:{number}' for number in (5, 6, 7, 8, 9))


@pytest.mark.parametrize('content', [b'fine \xff', b'fine' * 5000 + b'\xc3', 'é'.encode('utf-16')])
def test_a_file_in_another_encoding_is_left_out(tmp_path, content):
    (tmp_path / 'bad.txt').write_bytes(content)
    (tmp_path / 'empty.txt').write_bytes(b'\xef\xbb\xbf')
    (tmp_path / 'good.txt').write_text('good')
    found = survey(text_files.corpus(str(tmp_path)))
    assert (found.documents, found.symbols) == (1, 'dgo')
    assert found.named == ('bad.txt', 'empty.txt')


def test_a_file_that_is_gone_is_left_out(tmp_path):
    for name in ('a.txt', 'b.jsonl', 'c.txt'):
        (tmp_path / name).write_text('{"text": "x"}')
    corpus = text_files.corpus(str(tmp_path))
    (tmp_path / 'a.txt').unlink()
    (tmp_path / 'b.jsonl').unlink()
    assert survey(corpus).named == ('a.txt', 'b.jsonl')


@pytest.mark.parametrize('ends', ['\n', '\r\n'])
def test_pieces_of_a_large_file_give_the_tokens_of_the_whole(tmp_path, monkeypatch, ends):
    monkeypatch.setattr(text_files, '_PIECE', 64)
    draw = random.Random(0)
    words = [
        "don't",
        'naïve',
        '你好',
        '1234',
        '...',
        '_',
        '  ',
        '\t',
        ends,
        ends * 2,
        'e\u0301',
        '🙂',
    ]
    text = ''.join(draw.choice(words) + draw.choice(['', ' ', ' ', ends]) for _ in range(3000))
    (tmp_path / 'a.txt').write_bytes(text.encode())
    (document,) = text_files.corpus(str(tmp_path)).train()
    pieces = list(document.pieces())
    assert ''.join(pieces) == text
    assert len(pieces) > 100 and max(map(len, pieces)) <= 128
    tokenizer = tokenizers.train_bpe([text], 400)
    joined = [i for piece in pieces for i in tokenizer.encode(piece).tolist()]
    assert joined == tokenizer.encode(text).tolist()


@pytest.mark.parametrize('text', ['好' * 1000, '. ' * 500, 'x' * 999, 'a ' + 'b' * 1000])
def test_a_file_without_a_place_to_cut_is_still_read_in_pieces(tmp_path, monkeypatch, text):
    monkeypatch.setattr(text_files, '_PIECE', 64)
    (tmp_path / 'a.txt').write_text(text)
    (document,) = text_files.corpus(str(tmp_path)).train()
    pieces = list(document.pieces())
    assert ''.join(pieces) == text
    assert max(map(len, pieces)) <= 192


def test_whatever_changes_the_files_changes_the_identity(tmp_path):
    def identity():
        return text_files.corpus(str(tmp_path)).identity

    path = tmp_path / 'a.txt'
    path.write_text('one')
    seen = [identity()]
    assert identity() == seen[0]
    os.utime(path, ns=(0, 10**18))
    seen.append(identity())
    path.write_text('two')
    os.utime(path, ns=(0, 10**18))
    assert identity() == seen[-1]  # nothing but the content: its size and its time are the same
    path.write_text('three')
    seen.append(identity())
    path.rename(tmp_path / 'b.txt')
    seen.append(identity())
    (tmp_path / 'c.txt').write_text('')
    seen.append(identity())
    assert len(set(seen)) == 5


def test_what_cannot_be_used_names_the_field(tmp_path):
    (tmp_path / 'a.pdf').write_text('x')
    for path, reason in (
        (None, 'give a .txt or .jsonl file'),
        (tmp_path / 'absent', 'there is no file or folder'),
        (tmp_path / 'a.pdf', 'must end in'),
        (tmp_path, 'holds no .txt or .jsonl file'),
    ):
        with pytest.raises(InputError, match=rf'^data\.data_dir: .*{reason}'):
            text_files.corpus(path and str(path))
