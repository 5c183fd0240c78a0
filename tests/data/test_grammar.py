"""The synthetic corpus: the same everywhere, and varied enough to learn from."""

import hashlib

from gen_jax.data import grammar
from gen_jax.data.corpus import survey


def texts() -> list[str]:
    return [''.join(document.pieces()) for document in grammar.corpus().train()]


def test_it_is_always_the_same():
    whole = '\0'.join(texts()).encode()
    digest = hashlib.sha256(whole).hexdigest()[:16]
    assert digest == '74a3a570dafde8c4', 'another text needs another identity'


def test_it_is_documents_of_some_size_in_more_than_ascii():
    found = survey(grammar.corpus())
    assert found.documents == 120 and found.left_out == 0
    assert 100_000 < found.characters < 130_000
    assert set('éçïñ') <= set(found.symbols)
    assert len(set(texts())) == 120


def test_verbs_agree_with_their_subject():
    sentences = ' '.join(texts()).replace('\n', ' ').split('. ')
    for start, end in (('Some birds', 'see'), ('One owl', 'sees')):
        verbs = {s.split()[2] for s in sentences if s.startswith(start) and s.split()[2] != 'and'}
        assert end in verbs
        assert all(verb.endswith('s') == end.endswith('s') for verb in verbs)
