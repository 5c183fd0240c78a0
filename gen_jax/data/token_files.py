"""What is made of a corpus once and kept: a survey, merges learned from it, and its tokens.

Each is an entry of `tokens/` in `runtime.cache_folder()`: a folder whose name is a hash of what the
entry is made of. It is written under another name and renamed when it is whole, so two processes
may make the same one at once: the first to be ready gives it its name, and the other uses it.
Entries may be deleted whenever nothing trains; they are made again. Where nothing can be written
they lie in a temporary folder, for as long as the process lives.

The tokens of each split are one stream in one file, numbers of 16 or 32 bits, mapped into memory
rather than read:

    END document END document END ... document END
"""

import atexit
import contextlib
import functools
import hashlib
import json
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from gen_jax import runtime
from gen_jax.data import corpus as corpora
from gen_jax.data import tokenizers
from gen_jax.data.corpus import Corpus, Survey
from gen_jax.data.tokenizers import Tokenizer
from gen_jax.errors import InputError

SPLITS = ('train', 'evaluation')
_FORMAT = 2  # of the entries; another number lets those of before alone
_ABANDONED = 3 * 24 * 3600  # seconds
_BATCH = 2**21  # characters, at most, that are encoded at once ...
_BATCH_TEXTS = 2**14  # ... and texts


class Part(NamedTuple):
    """One split: its stream, uint16 or uint32 mapped into memory, and what it was made of."""

    stream: np.memmap
    documents: int
    characters: int


class Tokens(NamedTuple):
    """Both splits; `fingerprint` is 16 hex digits of a SHA-256 of the tokenizer and both streams,
    `text_fingerprint` of the text that evaluates, `folder` where they lie."""

    train: Part
    evaluation: Part
    fingerprint: str
    text_fingerprint: str
    folder: Path


def survey(corpus: Corpus) -> Survey:
    """`corpus.survey`, made once.

    Raises:
      InputError: as that, or the cache is full.
    """

    def make(folder: Path) -> None:
        _write(folder / 'survey.json', json.dumps(corpora.survey(corpus)._asdict()))

    folder = _entry(('survey', corpus.identity), make)
    with _whole(folder):
        found = json.loads((folder / 'survey.json').read_text(encoding='utf-8'))
        return Survey(**found | {'named': tuple(found['named'])})


def bpe(corpus: Corpus, found: Survey, held_out: float, vocab_size: int) -> Tokenizer:
    """Byte-pair encoding, learned once, from the training documents alone.

    Raises:
      InputError: the cache is full.
    """

    def make(folder: Path) -> None:
        title = f'learning what to merge from {corpus.title}'
        with corpora.progress(title, found.characters) as advance:
            texts = _training_texts(corpus, found, held_out, advance)
            _write(folder / 'tokenizer.json', tokenizers.train_bpe(texts, vocab_size).json)

    folder = _entry(('bpe', corpus.identity, held_out, vocab_size), make)
    with _whole(folder):
        return tokenizers.from_json((folder / 'tokenizer.json').read_text(encoding='utf-8'))


def tokenize(corpus: Corpus, found: Survey, tokenizer: Tokenizer, held_out: float) -> Tokens:
    """The tokens of a corpus, made once.

    Raises:
      InputError: a split is left without text, a character is not in the vocabulary, the cache is
        full, or the entry in it is damaged.
    """

    def make(folder: Path) -> None:
        _write_tokens(folder, corpus, found, tokenizer, held_out)

    return _open(_entry(_key(corpus, tokenizer, held_out), make))


def kept(corpus: Corpus, tokenizer: Tokenizer, held_out: float) -> Tokens | None:
    """What `tokenize` would return at once; None if it has yet to be made."""
    folder = _find(_key(corpus, tokenizer, held_out))
    return None if folder is None else _open(folder)


def root() -> Path:
    """The folder of new entries."""
    folder = _kept_root()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return _temporary_root()
    return folder if os.access(folder, os.W_OK | os.X_OK) else _temporary_root()


def _key(corpus: Corpus, tokenizer: Tokenizer, held_out: float) -> tuple:
    words = hashlib.sha256(tokenizer.json.encode()).hexdigest()
    return ('tokens', corpus.identity, held_out, words)


def _entry(key: tuple, make: Callable[[Path], None]) -> Path:
    """The folder of an entry, after `make(folder)` if there is none."""
    if (found := _find(key)) is not None:
        return found
    folder = root() / _name(key)
    _remove_abandoned(folder.parent)
    part = folder.with_name(f'.{folder.name}.{secrets.token_hex(8)}')
    try:
        part.mkdir()
        make(part)
        part.rename(folder)
    except OSError as error:
        if not folder.is_dir():  # else another process was first
            raise InputError(
                f'GEN_JAX_CACHE: tokens cannot be written in {folder.parent} ({error.strerror}); '
                'make room, or set this variable to a folder on another disk'
            ) from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def _remove_abandoned(place: Path) -> None:
    """Removes what processes that were killed have left: untouched for days."""
    for part in place.glob('.*'):
        with contextlib.suppress(OSError):  # another process may do the same
            newest = max(path.stat().st_mtime for path in (part, *part.iterdir()))
            if time.time() - newest > _ABANDONED:
                shutil.rmtree(part)


def _find(key: tuple) -> Path | None:
    for place in (_kept_root, root):
        if (folder := place() / _name(key)).is_dir():
            return folder
    return None


def _name(key: tuple) -> str:
    return hashlib.sha256(json.dumps([_FORMAT, *key]).encode()).hexdigest()[:32]


def _kept_root() -> Path:
    return runtime.cache_folder() / 'tokens'


@functools.cache
def _temporary_root() -> Path:
    folder = tempfile.mkdtemp(prefix='gen_jax_tokens_')
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _training_texts(
    corpus: Corpus, found: Survey, held_out: float, advance: Callable[[int], None]
) -> Iterator[str]:
    for split, pieces in corpora.divide(corpus, found, held_out):
        for piece in pieces if split == 'train' else ():
            advance(len(piece))
            yield piece


def _write_tokens(
    folder: Path, corpus: Corpus, found: Survey, tokenizer: Tokenizer, held_out: float
) -> None:
    dtype = np.dtype('<u2' if tokenizer.vocab_size <= 2**16 else '<u4')
    end = np.array([tokenizer.end_token], np.int32)
    hashes = {split: hashlib.sha256() for split in SPLITS}
    of_text = hashlib.sha256()
    totals = {split: {'tokens': 0, 'documents': -1, 'characters': 0} for split in SPLITS}
    with ExitStack() as stack:
        advance = stack.enter_context(
            corpora.progress(f'tokenizing {corpus.title}', found.characters)
        )
        files = {split: stack.enter_context(_file(folder / split)) for split in SPLITS}
        for batch in _batches(_stream(corpora.divide(corpus, found, held_out))):
            texts = [text for _, text in batch if text is not None]
            encoded = iter(tokenizer.encode_all(texts, 'data.tokenizer'))
            arrays = {split: [] for split in SPLITS}
            for split, text in batch:
                arrays[split].append(end if text is None else next(encoded))
                totals[split]['documents'] += text is None
                totals[split]['characters'] += len(text or '')
                if split == 'evaluation':
                    of_text.update(b'\0' if text is None else text.encode())
            for split in SPLITS:
                tokens = np.concatenate([end[:0], *arrays[split]]).astype(dtype)
                files[split].write(tokens)
                hashes[split].update(tokens)
                totals[split]['tokens'] += len(tokens)
            advance(sum(map(len, texts)))
    for split in SPLITS:
        if totals[split]['documents'] < 1:
            field = corpus.field if corpus.evaluation else f'data.held_out: {held_out}'
            raise InputError(f'{field}: {corpus.title} leaves no text for the split {split}')
    parts = (tokenizer.json, *(hashes[split].hexdigest() for split in SPLITS))
    fingerprint = hashlib.sha256('\n'.join(parts).encode()).hexdigest()[:16]
    meta = {'dtype': dtype.str, 'fingerprint': fingerprint, **totals}
    meta['text_fingerprint'] = of_text.hexdigest()[:16]
    _write(folder / 'meta.json', json.dumps(meta))


def _stream(parts: Iterable[tuple[str, Iterable[str]]]) -> Iterator[tuple[str, str | None]]:
    """(split, piece of a document), or (split, None) for END, in order."""
    for split in SPLITS:
        yield split, None
    for split, pieces in parts:
        for piece in pieces:
            yield split, piece
        yield split, None


def _batches(stream: Iterable[tuple[str, str | None]]) -> Iterator[list[tuple[str, str | None]]]:
    """The same in lists, none of which holds much more than one piece."""
    batch, size = [], 0
    for split, text in stream:
        batch.append((split, text))
        size += len(text or '')
        if size >= _BATCH or len(batch) >= _BATCH_TEXTS:
            yield batch
            batch, size = [], 0
    yield batch


def _open(folder: Path) -> Tokens:
    with _whole(folder):
        meta = json.loads((folder / 'meta.json').read_text(encoding='utf-8'))
        parts = []
        for split in SPLITS:
            of_split = meta[split]
            stream = np.memmap(folder / split, meta['dtype'], 'r', shape=(of_split['tokens'],))
            parts.append(Part(stream, of_split['documents'], of_split['characters']))
        return Tokens(*parts, meta['fingerprint'], meta['text_fingerprint'], folder)


@contextlib.contextmanager
def _whole(folder: Path) -> Iterator[None]:
    """Says what to do about an entry in which something is missing or changed."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(
            f'GEN_JAX_CACHE: {folder} is damaged; remove it, and it is made again'
        ) from None


@contextlib.contextmanager
def _file(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which is on the disk at the end of the block."""
    with path.open('wb') as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def _write(path: Path, text: str) -> None:
    with _file(path) as file:
        file.write(text.encode())
