"""What is held out, and what is left out."""

import hashlib

import pytest

from gen_jax.data.corpus import Corpus, Document, divide, rule, survey
from gen_jax.errors import InputError


def corpus_of(texts, evaluation=None) -> Corpus:
    """A text is a string, a list of pieces, or the error of reading it."""

    def documents(some):
        for number, text in enumerate(some):

            def pieces(text=text):
                for piece in [text] if isinstance(text, str | Exception) else text:
                    if isinstance(piece, Exception):
                        raise piece
                    yield piece

            yield Document(f'text {number}', pieces)

    given = None if evaluation is None else lambda: documents(evaluation)
    return Corpus('a test', 'data.data_dir', ('x',), True, (), lambda: documents(texts), given)


def divided(corpus: Corpus, held_out: float = 0.1) -> dict[str, list[str]]:
    found = {'train': [], 'evaluation': []}
    for split, pieces in divide(corpus, survey(corpus), held_out):
        found[split].append(''.join(pieces))
    return found


@pytest.mark.parametrize('held_out', [0.1, 0.25, 0.5])
@pytest.mark.parametrize('cuts', [(), (1,), (899, 900, 901), tuple(range(0, 1003, 7))])
def test_of_few_documents_the_ends_are_held_out(held_out, cuts):
    text = ''.join(chr(65 + i % 50) for i in range(1003))
    pieces = [text[a:b] for a, b in zip((0, *cuts), (*cuts, 1003), strict=True)]
    found = divided(corpus_of([pieces, 'yes no yes']), held_out)
    cut = int(1003 * (1 - held_out))
    assert found['train'] == [text[:cut], 'yes no yes'[: int(10 * (1 - held_out))]]
    assert found['evaluation'] == [text[cut:], 'yes no yes'[int(10 * (1 - held_out)) :]]


def test_a_document_too_short_to_be_cut_is_on_one_side():
    assert divided(corpus_of(['a', 'bc']), 0.5) == {'train': ['b'], 'evaluation': ['a', 'c']}


def test_of_many_documents_some_are_held_out_whole():
    texts = [[f'document {i} ', 'goes on'] for i in range(400)]
    found = divided(corpus_of(texts))
    assert sorted(found['train'] + found['evaluation']) == sorted(map(''.join, texts))
    assert 20 < len(found['evaluation']) < 60

    def below(text):
        return int(hashlib.sha256(text.encode()).hexdigest()[:16], 16) / 2**64 < 0.1

    assert all(map(below, found['evaluation']))
    assert not any(map(below, found['train']))


def test_the_choice_stays_when_documents_are_added_or_moved():
    texts = [f'document {i}' for i in range(200)]
    before = set(divided(corpus_of(texts))['evaluation'])
    more = [f'another {i}' for i in range(100)] + texts[::-1]
    after = set(divided(corpus_of(more))['evaluation'])
    assert before == {text for text in after if text.startswith('document')}


def test_the_same_text_is_on_one_side_only():
    found = divided(corpus_of([f'document {i % 30}' for i in range(300)]), 0.5)
    assert not set(found['train']) & set(found['evaluation'])
    assert len(found['train'] + found['evaluation']) == 300


@pytest.mark.parametrize('held_out', [1e-9, 1 - 1e-9])
def test_no_share_leaves_a_side_without_documents(held_out):
    found = divided(corpus_of([f'document {i}' for i in range(20)]), held_out)
    assert sorted(map(len, found.values())) == [1, 19]


def test_nineteen_documents_are_few():
    found = divided(corpus_of([f'document {i:02}' for i in range(19)]), 0.25)
    assert found['train'] == ['document'] * 19  # int(8.25) characters of 11


def test_a_given_split_is_taken_as_it_is():
    texts = [f'document {i}' for i in range(30)]
    found = divided(corpus_of(texts[:25], texts[25:]), 0.9)
    assert found == {'train': texts[:25], 'evaluation': texts[25:]}


def test_what_cannot_be_read_is_counted_and_some_of_it_named():
    bad = [ValueError('no'), ['begins well ß', ValueError('no')], '', 'half a pair: \ud800']
    corpus = corpus_of([*bad, 'good one', ValueError('no'), 'good two', ValueError('no')], [''])
    found = survey(corpus)
    assert (found.documents, found.left_out, found.characters) == (2, 7, 16)
    assert found.named == ('text 0', 'text 1', 'text 2', 'text 3', 'text 5')
    assert found.symbols == ''.join(sorted(set('good one two')))  # no ß
    parts = list(divide(corpus, found, 0.1))
    assert [(split, ''.join(pieces)) for split, pieces in parts] == [
        ('train', 'good one'),
        ('train', 'good two'),
    ]


def test_a_corpus_without_text_is_an_input_error():
    with pytest.raises(InputError, match=r'^data\.data_dir: a test holds no text$'):
        survey(corpus_of([]))
    with pytest.raises(InputError, match=r'^data\.data_dir: .*left out were 2, such as text 0'):
        survey(corpus_of(['', ValueError()]))


def test_symbols_are_of_both_sides():
    assert survey(corpus_of(['ba🙂', 'c'], ['\ré'])).symbols == '\rabcé🙂'


def test_the_rule_is_told():
    for texts, evaluation, words in (
        (['abc'], ['abc'], 'a split of its own'),
        (['abc'], None, 'the last 25%'),
        (['abc'] * 20, None, '25% of the documents'),
    ):
        corpus = corpus_of(texts, evaluation)
        assert words in rule(corpus, survey(corpus), 0.25)
