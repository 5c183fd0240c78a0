"""The user's own text: a .txt or .jsonl file, or a folder searched all the way down for both.

folder/a.txt  folder/more/b.txt     UTF-8; each file is a document
folder/c.jsonl                      each line is an object whose "text" is a document

A byte-order mark is taken off; ends of lines stay what they are.

A large file is read in pieces of some hundred thousand characters, cut where a letter or digit is
followed by a space or the end of a line: no pattern that splits text into words, as GPT-2's and
its successors', has a word across such a place, so the tokens are the same as of the whole. Where
a piece has no such place it is cut at another space, and, lacking that, anywhere; at such a cut
byte-pair encoding may give other tokens.
"""

import codecs
import functools
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from gen_jax.data.corpus import Corpus, Document
from gen_jax.data.folder import walk
from gen_jax.errors import InputError

_SUFFIXES = ('.txt', '.jsonl')
_PIECE = 2**18  # characters
# As much as possible of a text, up to where it may be cut, the better places first.
_CUTS = (re.compile(r'.*[^\W_](?=\s)', re.DOTALL), re.compile(r'.*\S(?=\s)', re.DOTALL))


def corpus(data_dir: str | None) -> Corpus:
    """The documents of a file or folder, in the order of their paths.

    Raises:
      InputError: there is no such file or folder, or nothing in it that could be text.
    """
    root, paths = _search(data_dir)
    identity, num_bytes = hashlib.sha256(os.fsencode(root.resolve())), 0
    for path in paths:
        status = path.stat()
        num_bytes += status.st_size
        identity.update(os.fsencode(path) + f'\0{status.st_size} {status.st_mtime_ns}\0'.encode())
    counts = [(sum(path.suffix.lower() == s for path in paths), s) for s in _SUFFIXES]
    files = ' and '.join(f'{count:,} {suffix}' for count, suffix in counts if count)
    return Corpus(
        title=str(root),
        field='data.data_dir',
        identity=('folder', identity.hexdigest()),
        present=True,
        lines=(f'text in {root}: {files} file(s), {num_bytes / 2**20:,.1f} MiB',),
        train=functools.partial(_documents, root, paths),
    )


def read(path: Path, field: str) -> list[str]:
    """The documents of a file: the objects of a .jsonl file, or all of any other.

    Raises:
      InputError: naming `field`: it cannot be read, or one of its lines is no document.
    """
    path = path.expanduser()
    if path.suffix.lower() == '.jsonl':
        documents = list(_lines(path.name, path))
    else:
        documents = [Document(path.name, functools.partial(_pieces, path))]
    if not documents:
        raise InputError(f'{field}: it holds no line')
    texts = []
    for document in documents:
        try:
            texts.append(''.join(document.pieces()))
        except ValueError as error:
            is_line = document.name != path.name
            wanted = ' as an object like {"text": "..."}' if is_line else ''
            raise InputError(f'{field}: cannot read {document.name}{wanted} ({error})') from None
    return texts


def _search(data_dir: str | None) -> tuple[Path, list[Path]]:
    kinds = ' or '.join(_SUFFIXES)
    if not data_dir:
        raise InputError(
            f"data.data_dir: give a {kinds} file, or a folder of them, when data.source is 'folder'"
        )
    root = Path(data_dir).expanduser()
    if root.is_file():
        if root.suffix.lower() not in _SUFFIXES:
            raise InputError(f'data.data_dir: {root} must end in {kinds}, or be a folder of such')
        return root, [root]
    if not root.is_dir():
        raise InputError(f'data.data_dir: there is no file or folder {root}')
    paths = walk(root, _SUFFIXES)
    if not paths:
        raise InputError(f'data.data_dir: {root} holds no {kinds} file')
    return root, paths


def _documents(root: Path, paths: list[Path]) -> Iterator[Document]:
    for path in paths:
        name = path.name if path == root else path.relative_to(root).as_posix()
        if path.suffix.lower() == '.txt':
            yield Document(name, functools.partial(_pieces, path))
        else:
            yield from _lines(name, path)


def _pieces(path: Path) -> Iterator[str]:
    """The characters of a file, in pieces.

    Raises:
      ValueError: it cannot be read, or is not UTF-8.
    """
    decoder, rest = codecs.getincrementaldecoder('utf-8-sig')(), ''
    try:
        with path.open('rb') as file:
            while block := file.read(_PIECE):
                rest += decoder.decode(block)
                if len(rest) > _PIECE:
                    cut = _last_cut(rest)
                    yield rest[:cut]
                    rest = rest[cut:]
    except OSError as error:
        raise ValueError(error.strerror) from None
    yield rest + decoder.decode(b'', final=True)


def _last_cut(text: str) -> int:
    for pattern in _CUTS:
        if found := pattern.match(text):
            return found.end()
    return len(text)


def _lines(name: str, path: Path) -> Iterator[Document]:
    try:
        with path.open('rb') as file:
            for number, line in enumerate(file, start=1):
                if number == 1:
                    line = line.removeprefix(codecs.BOM_UTF8)
                if line.strip():
                    yield Document(f'{name}:{number}', functools.partial(_text_of_line, line))
    except OSError as error:
        yield Document(name, functools.partial(_fail, error.strerror))


def _fail(reason: str) -> Iterable[str]:
    raise ValueError(reason)


def _text_of_line(line: bytes) -> Iterable[str]:
    try:
        value = json.loads(line.decode())
    except RecursionError:
        raise ValueError('nested too deep') from None
    if not isinstance(value, dict) or not isinstance(value.get('text'), str):
        raise ValueError('no object with a text')
    return (value['text'],)
