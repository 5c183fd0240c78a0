"""A corpus: documents that can be gone through again and again, and which of them are held out.

Nothing here holds more than one piece of one document in memory, and no list of documents.

What evaluates is, where the source does not say itself,

    of 20 documents or more    those whose SHA-256, as a number in [0, 1), is below the share to be
                               held out: the choice stays when others are added, and a text that
                               is there twice is on one side only;
    of fewer                   the end of each: a document of n characters trains with its first
                               int(n (1 - share)).
"""

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from gen_jax.errors import InputError

_MANY = 20  # documents, of which some can be held out whole
_NAMED = 5  # of those left out, in the warning
_CODE_POINTS = 0x110000


class Document(NamedTuple):
    """A text of a source, from its first to its last character, as strings to be joined.

    `pieces()` raises ValueError where it turns out to be no text; `name` is what it is called in a
    message then.
    """

    name: str
    pieces: Callable[[], Iterable[str]]


class Corpus(NamedTuple):
    """What a source of text returns.

    title: what it is called.
    field: of the config, that says where it is.
    identity: what changes whenever its documents do.
    present: whether it can be read; if not, it must be downloaded first.
    lines: about it, for people.
    train: every document, in order, each time it is called.
    evaluation: those of the source's own evaluation split, which `train` then lacks; else None.
    """

    title: str
    field: str
    identity: tuple[str, ...]
    present: bool
    lines: tuple[str, ...]
    train: Callable[[], Iterator[Document]]
    evaluation: Callable[[], Iterator[Document]] | None = None


class Survey(NamedTuple):
    """What must be known of a corpus before its documents can be divided.

    documents, characters: how many it has; symbols: the characters that occur, sorted.
    lowest, highest: of the places of its documents (`Text`).
    left_out: how many documents are no text, or empty; named: some of them.
    """

    documents: int
    characters: int
    symbols: str
    lowest: float
    highest: float
    left_out: int
    named: tuple[str, ...]


class Text(NamedTuple):
    """A document that was read to its end: its characters, and its hash as a number in [0, 1)."""

    size: int
    place: float
    pieces: Callable[[], Iterable[str]]


def survey(corpus: Corpus) -> Survey:
    """Reads the whole corpus once.

    Raises:
      InputError: it holds no text.
    """
    used = np.zeros(_CODE_POINTS, bool)
    documents = characters = left_out = 0
    lowest, highest, named = 1.0, 0.0, []
    with progress(f'reading {corpus.title}', None) as advance:
        for document in _all_documents(corpus):
            text = _read(document)
            if text is None:
                left_out += 1
                named += [document.name] if len(named) < _NAMED else []
                continue
            documents, characters = documents + 1, characters + text.size
            lowest, highest = min(lowest, text.place), max(highest, text.place)
            for piece in text.pieces():
                used[np.frombuffer(piece.encode('utf-32-le'), np.uint32)] = True
                advance(len(piece))
    if not documents:
        also = f'; left out were {left_out}, such as {named[0]}' if left_out else ''
        raise InputError(f'{corpus.field}: {corpus.title} holds no text{also}')
    symbols = ''.join(map(chr, np.flatnonzero(used)))
    return Survey(documents, characters, symbols, lowest, highest, left_out, tuple(named))


def divide(corpus: Corpus, found: Survey, held_out: float) -> Iterator[tuple[str, Iterable[str]]]:
    """Yields ('train' or 'evaluation', pieces) of every document, or part of one, in order.

    `held_out` is the share of a corpus that has no evaluation split of its own.
    """
    for text in filter(None, map(_read, corpus.train())):
        if corpus.evaluation is not None:
            yield 'train', text.pieces()
        elif found.documents >= _MANY:
            # One on each side at least: the lowest is held out whatever the share, the highest not.
            held = text.place < held_out or text.place == found.lowest
            yield 'evaluation' if held and text.place < found.highest else 'train', text.pieces()
        else:
            cut = int(text.size * (1 - held_out))
            for split, start, stop in (('train', 0, cut), ('evaluation', cut, text.size)):
                if start < stop:
                    yield split, _between(text.pieces(), start, stop)
    if corpus.evaluation is not None:
        for text in filter(None, map(_read, corpus.evaluation())):
            yield 'evaluation', text.pieces()


def rule(corpus: Corpus, found: Survey, held_out: float) -> str:
    """How `divide` holds out, for people."""
    if corpus.evaluation is not None:
        return 'evaluation is a split of its own'
    if found.documents >= _MANY:
        return f'{100 * held_out:g}% of the documents are held out, chosen by their hash'
    return f'the last {100 * held_out:g}% of each document are held out'


@contextlib.contextmanager
def progress(title: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A bar on the terminal, if there is one; what it gives is called with what was done."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=total)
        yield lambda done: bar.advance(task, done)


def _all_documents(corpus: Corpus) -> Iterator[Document]:
    yield from corpus.train()
    if corpus.evaluation is not None:
        yield from corpus.evaluation()


def _read(document: Document) -> Text | None:
    """Goes through a document to its end; None if it is no text, or empty."""
    size, sha, pieces = 0, hashlib.sha256(), []
    try:
        for piece in document.pieces():
            sha.update(piece.encode())  # ValueError, too, for halves of surrogate pairs
            size += len(piece)
            pieces = [*pieces, piece] if len(pieces) < 2 else pieces
    except ValueError:
        return None
    if not size:
        return None
    place = int.from_bytes(sha.digest()[:8]) / 2**64
    # What came in one piece need not be read again.
    again = (lambda: pieces) if len(pieces) == 1 else document.pieces
    return Text(size, place, again)


def _between(pieces: Iterable[str], start: int, stop: int) -> Iterator[str]:
    """The characters from start to stop, in pieces."""
    position = 0
    for piece in pieces:
        part = piece[max(start - position, 0) : max(stop - position, 0)]
        position += len(piece)
        if part:
            yield part
        if position >= stop:
            return
