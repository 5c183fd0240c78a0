"""What turns text into numbers and back: by bytes, by characters, or by pairs of bytes merged.

    bytes        ids 0 … 255 are the bytes of UTF-8
    characters   an id for each symbol of the corpus, in the order of Unicode
    BPE          bytes, and merges of what often stands side by side (Sennrich et al., 2016,
                 arXiv:1508.07909), within the pieces into which GPT-2's pattern splits a text
                 (Radford et al., 2019)
    a file       the tokenizer.json of another model, such as GPT-2's, that works on bytes

Each is a `Tokenizer`, and each is written as the JSON of Hugging Face's `tokenizers`, which gives
the same ids (where a text holds the letters of a special token, that takes its
`encode_special_tokens`: here text is never anything but text).

One special token, END, stands between documents. It is the last id, but for a file, which says
itself. `decode` writes it as a line of its own, `<|endoftext|>`.

Only what gives every text back as it was is taken: so tokens can be counted in characters and
bytes, and losses be told per character and byte, whatever the tokenizer. A character that is
spread over several tokens is counted with the one that holds its first byte.
"""

import functools
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gen_jax.errors import InputError

END = '<|endoftext|>'
UNITS = ('char', 'byte')

# How a special token that ends a text is called in the files of well-known models.
_ENDS = (END, '<|end_of_text|>', '</s>', '<eos>')
_UNUSED = '<|unused_'
# JSON cannot hold bytes: each is written as a character that can be seen. The first 188 stand for
# themselves, the others are moved up beyond them, as GPT-2 does.
_VISIBLE = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
_MOVED = [byte for byte in range(256) if byte not in _VISIBLE]
_SYMBOL = {byte: chr(byte) for byte in _VISIBLE} | {b: chr(256 + i) for i, b in enumerate(_MOVED)}
_BYTE = {symbol: byte for byte, symbol in _SYMBOL.items()}

# A text that a tokenizer which changes anything would change: every character up to U+07FF (among
# them some that each Unicode normal form replaces), every first byte of longer ones, spaces around.
_PROBE = (
    ''.join(map(chr, range(0x800)))
    + ''.join(map(chr, (*range(0x0FFF, 0xD800, 0x1000), 0xE000, 0xFB01, 0xFFFD)))
    + ''.join(map(chr, (0x1F600, 0x50000, 0x90000, 0xD0000, 0x10FFFF)))
)
_PROBES = (f'a  B\r\n\n\t{_PROBE}', f' \n {_PROBE} \n ')

# (texts, the field to name) -> the ids of each, int32.
EncodeAll = Callable[[Sequence[str], str], list[np.ndarray]]


class Tokenizer(NamedTuple):
    """A tokenizer of V ids.

    json: what `from_json` makes the same one of.
    words: the bytes that each id stands for; those of END are the line that marks it.
    end_token: the id of END.
    num_chars, num_bytes: float32 `[V]`, what each id counts; END counts nothing.
    encode_all: see `encode`, for many texts.
    """

    json: str
    words: tuple[bytes, ...]
    end_token: int
    num_chars: np.ndarray
    num_bytes: np.ndarray
    encode_all: EncodeAll

    @property
    def vocab_size(self) -> int:
        return len(self.words)

    @property
    def num_unused(self) -> int:
        """How many ids no text has: of BPE whose corpus was too small for as many merges."""
        return sum(word.startswith(_UNUSED.encode()) for word in self.words)

    def encode(self, text: str, field: str = 'data.tokenizer') -> np.ndarray:
        """The ids of a text, int32; no END among them.

        Raises:
          InputError: naming `field`: characters that this tokenizer does not know, or that are
            none (halves of surrogate pairs).
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InputError(f'{field}: not valid Unicode ({error.reason})') from None
        return self.encode_all([text], field)[0]

    def decode(self, ids: np.ndarray) -> str:
        """The text of ids `[L]`. Bytes that are no UTF-8 become U+FFFD, END a line of its own."""
        return b''.join(map(self.words.__getitem__, ids.tolist())).decode(errors='replace')


def of_bytes() -> Tokenizer:
    """Ids 0 … 255 are bytes, 256 is END."""
    return from_json(_bytes_json())


def of_characters(symbols: Iterable[str]) -> Tokenizer:
    """Ids of single characters, sorted, and END."""
    return from_json(_characters_json(sorted(set(symbols))))


def train_bpe(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Byte-pair encoding with merges learned from these texts, the same each time.

    Ids are 256 bytes, the merges, and END. A merge is made of what was seen side by side at least
    twice; where there are fewer than `vocab_size` asks for, the ids before END stay unused.
    """
    from tokenizers import Tokenizer as Library
    from tokenizers import models, pre_tokenizers, trainers

    library = Library(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1,
        min_frequency=2,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    library.train_from_iterator(texts, trainer)
    model = json.loads(library.to_str())['model']
    vocab = dict(sorted(model['vocab'].items(), key=lambda item: item[1]))
    for number in range(vocab_size - 1 - len(vocab)):
        vocab[f'{_UNUSED}{number}|>'] = len(vocab)
    return from_json(_byte_level_json(vocab, model['merges'], split_words=True))


def read(path: str, field: str = 'data.tokenizer') -> Tokenizer:
    """The tokenizer of a file.

    Raises:
      InputError: naming `field`: there is no such file, or see `from_json`.
    """
    try:
        text = Path(path).expanduser().read_text(encoding='utf-8')
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{field}: {path!r} is none of 'bytes', 'characters' and 'bpe', and no tokenizer.json "
            f'can be read there ({getattr(error, "strerror", None) or "not UTF-8"})'
        ) from None
    return from_json(text, f'{field}: {path}')


@functools.lru_cache(maxsize=4)
def from_json(text: str, source: str = 'tokenizer') -> Tokenizer:
    """The tokenizer that this JSON of Hugging Face's `tokenizers` describes.

    Raises:
      InputError: naming `source`: it is none, changes text, does not work on bytes, or says of no
        special token that it ends a text.
    """
    if text == _bytes_json():
        words = [bytes([byte]) for byte in range(256)]
        return _assemble(text, dict(enumerate(words)), 256, _encode_bytes)
    try:
        data = json.loads(text)
        vocab, added = data['model']['vocab'], data['added_tokens']
        special = {token['content']: token['id'] for token in added if token['special']}
        ids = {**vocab, **{token['content']: token['id'] for token in added}}
        end_token = _end_of(ids, special, source)
        if data['model']['type'] == 'WordLevel' and data == json.loads(_characters_json(vocab)):
            words = {number: symbol.encode() for symbol, number in vocab.items()}
            return _assemble(text, words, end_token, _lookup(vocab))
        if _last_decoder(data) != 'ByteLevel' or data['model']['type'] != 'BPE':
            raise InputError(
                f'{source}: does not work on bytes (byte-level BPE, as that of GPT-2 does), so '
                'characters and bytes could not be counted; use one that does'
            )
        words = {number: _bytes_of(word) for word, number in vocab.items()}
        words |= {token['id']: token['content'].encode() for token in added}
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{source}: is not the JSON of a tokenizer of 'tokenizers'") from None
    tokenizer = _assemble(text, words, end_token, _library(text, source))
    for probe in _PROBES:
        if tokenizer.decode(tokenizer.encode(probe)) != probe:
            raise InputError(
                f'{source}: changes text (a normalizer, a space before the first word, or bytes '
                'that it lacks), so characters and bytes could not be counted; use one that '
                'gives a text back as it was'
            )
    return tokenizer


def _assemble(
    text: str, words: dict[int, bytes], end_token: int, encode_all: EncodeAll
) -> Tokenizer:
    size = max(*words, end_token) + 1
    listed = [b'' if i == end_token else words.get(i, b'') for i in range(size)]
    num_bytes = np.array([len(word) for word in listed], np.float32)
    # A byte 10xxxxxx goes on with a character; every other one begins one.
    num_chars = [sum((byte & 0xC0) != 0x80 for byte in word) for word in listed]
    listed[end_token] = f'\n{END}\n'.encode()
    return Tokenizer(
        text, tuple(listed), end_token, np.array(num_chars, np.float32), num_bytes, encode_all
    )


def _end_of(ids: dict[str, int], special: dict[str, int], source: str) -> int:
    for name in _ENDS:
        if name in ids:
            return ids[name]
    if len(special) == 1:
        return next(iter(special.values()))
    known = ', '.join(list(special)[:5]) or 'none'
    raise InputError(
        f'{source}: has no special token {END}, nor another that must be the one that ends a text '
        f'(special tokens: {known}); add it to "added_tokens"'
    )


def _encode_bytes(texts: Sequence[str], field: str) -> list[np.ndarray]:
    return [np.frombuffer(text.encode(), np.uint8).astype(np.int32) for text in texts]


def _lookup(vocab: dict[str, int]) -> EncodeAll:
    table = np.full(max(map(ord, vocab)) + 2, -1, np.int32)  # the last: all characters beyond
    table[[ord(symbol) for symbol in vocab]] = list(vocab.values())

    def encode_all(texts: Sequence[str], field: str) -> list[np.ndarray]:
        return [encode(text, field) for text in texts]

    def encode(text: str, field: str) -> np.ndarray:
        points = np.frombuffer(text.encode('utf-32-le'), np.uint32)
        ids = table[np.minimum(points, len(table) - 1)]
        if ids.size and ids.min() < 0:
            unknown = text[int(ids.argmin())]
            raise InputError(
                f'{field}: the character {unknown!r} (U+{ord(unknown):04X}) is none of the '
                f'{len(vocab)} that this tokenizer knows; leave it out, or use a model whose '
                "data.tokenizer is 'bytes' or 'bpe'"
            )
        return ids

    return encode_all


def _library(text: str, source: str) -> EncodeAll:
    from tokenizers import Tokenizer as Library

    try:
        library = Library.from_str(text)
    except Exception as error:  # It raises nothing more exact.
        raise InputError(f'{source}: {str(error).splitlines()[0]}') from None
    library.encode_special_tokens = True
    library.no_truncation()
    library.no_padding()

    def encode_all(texts: Sequence[str], field: str) -> list[np.ndarray]:
        found = library.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(encoding.ids, np.int32) for encoding in found]

    return encode_all


def _bytes_of(word: str) -> bytes:
    """The bytes that a word of a byte-level vocabulary stands for."""
    try:
        return bytes(_BYTE[symbol] for symbol in word)
    except KeyError:
        return word.encode()


def _last_decoder(data: dict) -> str | None:
    decoder = data['decoder'] or {'type': None}
    return decoder['decoders'][-1]['type'] if decoder['type'] == 'Sequence' else decoder['type']


@functools.cache
def _bytes_json() -> str:
    return _byte_level_json({_SYMBOL[byte]: byte for byte in range(256)}, [], split_words=False)


def _byte_level_json(vocab: dict[str, int], merges: list, *, split_words: bool) -> str:
    level = {'type': 'ByteLevel', 'add_prefix_space': False, 'trim_offsets': True}
    level['use_regex'] = split_words
    model = {
        'type': 'BPE',
        'dropout': None,
        'unk_token': None,
        'continuing_subword_prefix': None,
        'end_of_word_suffix': None,
        'fuse_unk': False,
        'byte_fallback': False,
        'ignore_merges': False,
        'vocab': vocab,
        'merges': merges,
    }
    return _whole_json(model, level, level)


def _characters_json(symbols: Iterable[str]) -> str:
    """`symbols` get their place as id. The word for unknown ones is not in the vocabulary, so that
    the library refuses them, too."""
    splitter = {
        'type': 'Split',
        'pattern': {'Regex': r'[\s\S]'},
        'behavior': 'Isolated',
        'invert': False,
    }
    vocab = {symbol: number for number, symbol in enumerate(symbols)}
    model = {'type': 'WordLevel', 'vocab': vocab, 'unk_token': '<|unknown|>'}
    return _whole_json(model, splitter, {'type': 'Fuse'})


def _whole_json(model: dict, pre_tokenizer: dict, decoder: dict) -> str:
    end = {
        'id': len(model['vocab']),
        'content': END,
        'single_word': False,
        'lstrip': False,
        'rstrip': False,
        'normalized': False,
        'special': True,
    }
    return json.dumps(
        {
            'version': '1.0',
            'truncation': None,
            'padding': None,
            'added_tokens': [end],
            'normalizer': None,
            'pre_tokenizer': pre_tokenizer,
            'post_processor': None,
            'decoder': decoder,
            'model': model,
        },
        ensure_ascii=False,
    )
