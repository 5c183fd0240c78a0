"""Text: `load` makes a Dataset of any source, `describe` tells what it would read.

`decode` turns tokens of a model into text, and `write` makes a file of it.

    embedded   'tinyshakespeare': 1.1 million characters that ship with gen_jax      texts/
    folder     the user's own .txt and .jsonl files at `data_dir`                    text_files.py
    tfds       a set of TensorFlow Datasets by name, in `data_dir`                   tfds_text.py
    synthetic  documents made by a small grammar                                     grammar.py

A corpus is documents, some of which, or the ends of which, are held out (`corpus.py`). They become
two streams of tokens (`tokenizers.py`) in files that are made once (`token_files.py`), and those
are cut into windows of `context` tokens (`windows.py`), which are the examples:

    x         int32 [B, L]      the tokens
    before    int32 [B]         the one before the first of them
    weight    float32 [B, L]    0 where a token is only context, or padding; else 1
    counts    float32 [B, 2]    characters and bytes of UTF-8 in the tokens of weight 1
"""

import hashlib
import lzma
import warnings
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import numpy as np

from gen_jax.data import corpus as corpora
from gen_jax.data import grammar, text_files, tfds_text, token_files, tokenizers, windows
from gen_jax.data.corpus import Corpus, Document, Survey
from gen_jax.data.dataset import Dataset, Description
from gen_jax.data.tokenizers import Tokenizer
from gen_jax.errors import InputError
from gen_jax.files import replacing
from gen_jax.types import DataSpec

SUFFIXES = ('.txt',)
SOURCES = ('embedded', 'folder', 'tfds', 'synthetic')
_SHAKESPEARE = 'tinyshakespeare'
_SHA256 = '86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed'


def load(
    *,
    source: str = 'embedded',
    name: str | None = None,
    data_dir: str | None = None,
    context: int = 256,
    tokenizer: str = 'characters',
    vocab_size: int | None = None,
    evaluation_stride: int | None = None,
    held_out: float = 0.1,
) -> Dataset:
    """The text of a source as a Dataset of windows.

    Args:
      source: one of `SOURCES`.
      name: the set: for `tfds` its TFDS name; for `embedded` 'tinyshakespeare' or None.
      data_dir: for `folder` the file or folder to read; for `tfds` where sets lie, None meaning
        TFDS_DATA_DIR or TFDS's own default.
      context: L, the tokens of a window.
      tokenizer: 'bytes', 'characters' (of the whole corpus), 'bpe' (learned from the training
        documents), or the path of a tokenizer.json.
      vocab_size: of 'bpe', with the 256 bytes and END; None for the others, who have their own.
      evaluation_stride: tokens that a window of evaluation predicts, 1 to L: the fewer, the more
        context each has, and the longer it takes. None: all of them.
      held_out: the share kept for evaluation, where the source has no split for that.

    Documents that cannot be read are named in a warning and left out.

    Raises:
      InputError: naming the field that is wrong, for everything the user can mend.
    """
    windows.check(context, evaluation_stride)
    _check(source, name, data_dir, tokenizer, vocab_size, held_out)
    corpus = _corpus(source, name, data_dir, prepare=True)
    found = token_files.survey(corpus)
    _warn_of(found, corpus)
    words = _tokenizer(corpus, tokenizer, vocab_size, held_out)
    tokens = token_files.tokenize(corpus, found, words, held_out)
    train, evaluation = tokens.train.stream, tokens.evaluation.stream
    if len(train) <= context:
        raise InputError(
            f'data.context: {context} is more than the {len(train) - 1:,} tokens of the training '
            'split; use a smaller one, or more text'
        )
    units = np.stack([words.num_chars, words.num_bytes], axis=1)
    return Dataset(
        train=windows.training(train, context, units),
        evaluation=windows.evaluation(evaluation, context, evaluation_stride, units),
        spec=_spec(words, context),
        fingerprint=tokens.fingerprint,
        text_fingerprint=tokens.text_fingerprint,
    )


def describe(
    *,
    source: str = 'embedded',
    name: str | None = None,
    data_dir: str | None = None,
    context: int = 256,
    tokenizer: str = 'characters',
    vocab_size: int | None = None,
    evaluation_stride: int | None = None,
    held_out: float = 0.1,
) -> Description:
    """What `load` with the same arguments would read.

    No text is read for 'bytes' or a file's tokenizer. The vocabularies of 'characters' and 'bpe'
    are of the corpus, so for these it is read where that was not done before, and a TFDS set that
    is absent is downloaded and prepared.

    Raises:
      InputError: as `load`, except for what only the text could tell.
    """
    windows.check(context, evaluation_stride)
    _check(source, name, data_dir, tokenizer, vocab_size, held_out)
    corpus = _corpus(source, name, data_dir, prepare=tokenizer in ('characters', 'bpe'))
    words = _tokenizer(corpus, tokenizer, vocab_size, held_out)
    unused = f', {words.num_unused:,} of them unused' if words.num_unused else ''
    lines = [
        *corpus.lines,
        f'tokenizer {tokenizer}: {words.vocab_size:,} ids{unused}; '
        f'windows of {context:,}, {evaluation_stride or context:,} predicted in each of evaluation',
    ]
    tokens = token_files.kept(corpus, words, held_out)
    if tokens is not None:
        for what, part in (('training', tokens.train), ('evaluation', tokens.evaluation)):
            lines.append(
                f'{what}: {part.documents:,} document(s), {part.characters:,} characters, '
                f'{len(part.stream):,} tokens'
            )
        rule = corpora.rule(corpus, token_files.survey(corpus), held_out)
        lines += [rule, f'tokens in {tokens.folder}']
    elif corpus.present:
        lines.append(f'not tokenized yet: training would do that first, in {token_files.root()}')
    return Description(_spec(words, context), corpus.present, tuple(lines))


def decode(x: np.ndarray, spec: DataSpec) -> np.ndarray:
    """Tokens int `[N, L]` to text, str `[N]`, without ends at the end; see `Tokenizer.decode`.

    NumPy drops zero bytes at the end of a string.
    """
    words, texts = tokenizers.from_json(spec.tokenizer), []
    for row in np.asarray(x):
        inside = np.flatnonzero(row != spec.start_token)
        texts.append(words.decode(row[: inside[-1] + 1 if len(inside) else 0]))
    return np.array(texts, str)


def encode(text: str, spec: DataSpec, field: str) -> np.ndarray:
    """A text as tokens, int32 `[L]`.

    Raises:
      InputError: naming `field`: what the tokenizer does not know.
    """
    return tokenizers.from_json(spec.tokenizer).encode(text, field)


def write(texts: np.ndarray, stem: Path, suffix: str = SUFFIXES[0]) -> Path:
    """Writes texts `[N]` one after another, each under a line with its number, and returns the
    path; the file appears whole or not at all."""
    path = stem.with_name(stem.name + suffix)
    path.parent.mkdir(parents=True, exist_ok=True)
    blocks = [
        f'======== {number} of {len(texts)} ========\n{text}\n'
        for number, text in enumerate(texts, start=1)
    ]
    with replacing(path) as file:
        file.write('\n'.join(blocks).encode())
    return path


def _spec(words: Tokenizer, context: int) -> DataSpec:
    return DataSpec(
        (context,),
        'int32',
        vocab_size=words.vocab_size,
        start_token=words.end_token,
        units=tokenizers.UNITS,
        tokenizer=words.json,
    )


def _check(
    source: str,
    name: str | None,
    data_dir: str | None,
    tokenizer: str,
    vocab_size: int | None,
    held_out: float,
) -> None:
    if source not in SOURCES:
        raise InputError(f'data.source: {source!r} for text; use one of {", ".join(SOURCES)}')
    if source == 'embedded' and name not in (None, _SHAKESPEARE):
        raise InputError(
            f'data.name: {name!r} does not ship with gen_jax, only {_SHAKESPEARE!r} does; '
            "for other texts use data.source 'folder' or 'tfds'"
        )
    if data_dir is not None and source not in ('folder', 'tfds'):
        raise InputError(
            f'data.data_dir: {data_dir}; data.source {source!r} reads no folder; set it to '
            "'folder', or leave data.data_dir None"
        )
    if not 0 < held_out < 1:
        raise InputError(f'data.held_out: {held_out}; use a share above 0 and below 1')
    if tokenizer == 'bpe' and (vocab_size is None or vocab_size < 257):
        raise InputError(
            f"data.vocab_size: {vocab_size}; 'bpe' needs 257 or more (256 bytes, what is merged of "
            'them, and the end of a document), such as 4096'
        )
    if tokenizer not in ('bytes', 'characters', 'bpe'):
        tokenizers.read(tokenizer)
    if tokenizer != 'bpe' and vocab_size is not None:
        raise InputError(
            f"data.vocab_size: {vocab_size}; only 'bpe' takes one, {tokenizer!r} has its own; set "
            'it to None (--config.data.vocab_size=None)'
        )


def _corpus(source: str, name: str | None, data_dir: str | None, *, prepare: bool) -> Corpus:
    if source == 'embedded':
        return _shakespeare()
    if source == 'folder':
        return text_files.corpus(data_dir)
    if source == 'tfds':
        return tfds_text.corpus(name, data_dir, prepare=prepare)
    return grammar.corpus()


def _shakespeare() -> Corpus:
    return Corpus(
        title=_SHAKESPEARE,
        field='data.name',
        identity=(_SHAKESPEARE, _SHA256),
        present=True,
        lines=(f'{_SHAKESPEARE} (ships with gen_jax), 1,115,394 characters',),
        train=_shipped,
    )


def _shipped() -> Iterator[Document]:
    """Tiny Shakespeare, as one document.

    Raises:
      InputError: the file of this installation is not what it should be.
    """
    file = resources.files('gen_jax.data') / 'texts' / f'{_SHAKESPEARE}.txt.xz'
    try:
        content = lzma.decompress(file.read_bytes())
    except (OSError, EOFError, lzma.LZMAError):
        content = b''
    if hashlib.sha256(content).hexdigest() != _SHA256:
        raise InputError(f'data.name: {file} is missing or damaged; install gen_jax anew')
    yield Document(_SHAKESPEARE, lambda: (content.decode(),))


def _tokenizer(
    corpus: Corpus, tokenizer: str, vocab_size: int | None, held_out: float
) -> Tokenizer:
    if tokenizer == 'bytes':
        return tokenizers.of_bytes()
    if tokenizer == 'characters':
        return tokenizers.of_characters(token_files.survey(corpus).symbols)
    if tokenizer == 'bpe':
        return token_files.bpe(corpus, token_files.survey(corpus), held_out, vocab_size)
    return tokenizers.read(tokenizer)


def _warn_of(found: Survey, corpus: Corpus) -> None:
    if found.left_out:
        more = ', …' if found.left_out > len(found.named) else ''
        warnings.warn(
            f'{found.left_out:,} document(s) of {corpus.title} are empty or cannot be read as text '
            f'and are left out: {", ".join(found.named)}{more}',
            stacklevel=3,
        )
