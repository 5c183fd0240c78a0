"""Text made of arithmetic: a corpus that needs no files, and that a small network can learn.

Every document is a few dozen sentences of a small grammar, drawn word by word:

    sentence  ->  subject verb object '.'     with articles, sometimes an adjective or 'and'
    line      ->  one to three sentences

Verbs agree with the number of their subject, so there is something to learn beyond neighboring
letters; a few words are not ASCII, so characters and bytes differ.
"""

from collections.abc import Iterator

import numpy as np

from gen_jax.data.corpus import Corpus, Document

_DOCUMENTS, _LINES = 120, 12
_NOUNS = ('bird', 'owl', 'river', 'stone', 'café', 'façade', 'lantern', 'tree', 'piñata', 'shadow')
_ADJECTIVES = ('small', 'old', 'quiet', 'red', 'naïve', 'tall')
_VERBS = ('see', 'follow', 'remember', 'paint', 'greet', 'find')


def corpus() -> Corpus:
    """120 documents of about 950 characters, always the same."""
    return Corpus(
        title='a made-up corpus',
        field='data.source',
        identity=('grammar', '1'),
        present=True,
        lines=(f'{_DOCUMENTS} synthetic documents, made by a small grammar',),
        train=_documents,
    )


def _documents() -> Iterator[Document]:
    # RandomState's streams are frozen by NumPy's policy, so the text is the same everywhere.
    random = np.random.RandomState(0)
    for number in range(_DOCUMENTS):
        text = '\n'.join(_line(random) for _ in range(_LINES)) + '\n'
        yield Document(f'document {number}', lambda text=text: (text,))


def _line(random: np.random.RandomState) -> str:
    return ' '.join(_sentence(random) for _ in range(random.randint(1, 4)))


def _sentence(random: np.random.RandomState) -> str:
    subject, plural = _phrase(random)
    verb = _VERBS[random.randint(len(_VERBS))] + ('' if plural else 's')
    target, _ = _phrase(random)
    sentence = f'{subject} {verb} {target}.'
    return sentence[0].upper() + sentence[1:]


def _phrase(random: np.random.RandomState) -> tuple[str, bool]:
    """A noun phrase, and whether it is plural."""
    if random.randint(6) == 0:
        (first, _), (second, _) = _phrase(random), _phrase(random)
        return f'{first} and {second}', True
    plural = random.randint(3) == 0
    words = ['the' if random.randint(2) else ('some' if plural else 'one')]
    if random.randint(3) == 0:
        words.append(_ADJECTIVES[random.randint(len(_ADJECTIVES))])
    words.append(_NOUNS[random.randint(len(_NOUNS))] + ('s' if plural else ''))
    return ' '.join(words), plural
