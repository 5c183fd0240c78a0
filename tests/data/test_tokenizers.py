"""Tokenizers: nothing is lost, the libraries of others give the same ids, files are judged."""

import json

import numpy as np
import pytest
import tokenizers as library
from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers

from gen_jax.data import tokenizers
from gen_jax.errors import InputError

TEXT = (
    'To be, or not to be: that is the question.\r\n\r\n\tWhether \u2019tis nobler — in the mind…\n'
    'naïve café, e\u0301 (two code points), 你好\uff0c世界。 🙂🙃  end \x00\x7f\n\n'
)
STRIP = {'type': 'Strip', 'strip_left': True, 'strip_right': True}
KINDS = {
    'bytes': tokenizers.of_bytes,
    'characters': lambda: tokenizers.of_characters(set(TEXT)),
    'bpe': lambda: tokenizers.train_bpe([TEXT, 'that is the question'] * 3, 320),
}


@pytest.fixture(params=KINDS)
def tokenizer(request):
    return KINDS[request.param]()


def gpt2_like(end: str = tokenizers.END, pre_tokenizer=None, alphabet=None, **added) -> str:
    """A byte-level tokenizer as others write it: the special token comes first."""
    made = library.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizer or pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    if alphabet is None:
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=alphabet, special_tokens=[end], show_progress=False
    )
    made.train_from_iterator([TEXT], trainer)
    for name, special in added.items():
        made.add_tokens([AddedToken(name, special=special, normalized=False)])
    return made.to_str()


def changed(text: str, **entries) -> str:
    return json.dumps(json.loads(text) | entries)


def test_a_text_comes_back_and_is_counted_whole(tokenizer):
    ids = tokenizer.encode(TEXT)
    assert ids.dtype == np.int32
    assert set(ids.tolist()) <= set(range(tokenizer.vocab_size))
    assert tokenizer.decode(ids) == TEXT
    assert tokenizer.num_chars[ids].sum() == len(TEXT)
    assert tokenizer.num_bytes[ids].sum() == len(TEXT.encode())
    assert len(tokenizer.encode('')) == 0


def test_the_end_of_a_document_is_the_last_id_and_counts_nothing(tokenizer):
    end = tokenizer.end_token
    assert end == tokenizer.vocab_size - 1
    assert tokenizer.num_chars[end] == tokenizer.num_bytes[end] == 0
    ids = tokenizer.encode('be the end')
    both = np.concatenate([ids, [end], ids])
    assert tokenizer.decode(both) == 'be the end\n<|endoftext|>\nbe the end'


def test_a_character_counts_with_its_first_byte():
    found = tokenizers.of_bytes()
    ids = found.encode('aé你🙂')
    assert found.num_chars[ids].tolist() == [1, 1, 0, 1, 0, 0, 1, 0, 0, 0]
    assert found.num_bytes[ids].tolist() == [1] * 10


def test_bytes_are_their_own_ids():
    found = tokenizers.of_bytes()
    assert found.vocab_size == 257
    assert found.encode(TEXT).tolist() == list(TEXT.encode())


def test_characters_are_numbered_as_they_are_sorted():
    found = tokenizers.of_characters('hello world')
    assert found.encode('hello').tolist() == [sorted(set('hello world')).index(c) for c in 'hello']
    assert found.vocab_size == 9


@pytest.mark.parametrize('through', ['tokenizers', 'transformers'])
def test_other_libraries_give_the_same_ids(tokenizer, through):
    theirs = library.Tokenizer.from_str(tokenizer.json)
    assert theirs.token_to_id(tokenizers.END) == tokenizer.end_token
    assert theirs.get_vocab_size() == tokenizer.vocab_size
    if through == 'transformers':
        transformers = pytest.importorskip('transformers')
        wrapped = transformers.PreTrainedTokenizerFast(
            tokenizer_object=theirs, eos_token=tokenizers.END
        )
        assert wrapped.eos_token_id == tokenizer.end_token
        ids = wrapped(TEXT)['input_ids']
        assert wrapped.decode(ids, clean_up_tokenization_spaces=False) == TEXT
    else:
        ids = theirs.encode(TEXT).ids
        assert theirs.decode(ids, skip_special_tokens=False) == TEXT
    assert tokenizer.encode(TEXT).tolist() == ids


def test_what_the_library_saves_again_is_the_same_tokenizer(tokenizer):
    again = tokenizers.from_json(library.Tokenizer.from_str(tokenizer.json).to_str(pretty=True))
    np.testing.assert_array_equal(again.encode(TEXT), tokenizer.encode(TEXT))
    assert again.words == tokenizer.words
    assert again.end_token == tokenizer.end_token
    assert tokenizers.from_json(tokenizer.json) is tokenizers.from_json(tokenizer.json)


def test_bytes_that_are_no_text_are_shown_as_the_library_shows_them():
    found = tokenizers.of_bytes()
    theirs = library.Tokenizer.from_str(found.json)
    random = np.random.default_rng(0)
    for _ in range(200):
        ids = random.choice([0x41, 0x80, 0xBF, 0xC3, 0xE4, 0xBD, 0xA0, 0xF0, 0x9F, 0xFF], size=12)
        assert found.decode(ids) == theirs.decode(ids.tolist())


@pytest.mark.parametrize('kind', ['bytes', 'bpe', 'file'])
def test_the_letters_of_a_special_token_are_text(kind):
    text = f'a {tokenizers.END} b'
    found = tokenizers.from_json(gpt2_like()) if kind == 'file' else KINDS[kind]()
    ids = found.encode(text)
    assert found.end_token not in ids
    assert found.decode(ids) == text
    theirs = library.Tokenizer.from_str(found.json)
    assert found.end_token in theirs.encode(text).ids
    theirs.encode_special_tokens = True
    assert theirs.encode(text).ids == ids.tolist()


def test_unknown_characters_name_themselves_and_the_field():
    found = KINDS['characters']()
    with pytest.raises(InputError, match=r"^--prompt: the character 'ß' \(U\+00DF\) .*'bytes'"):
        found.encode('to be, ßä', '--prompt')
    with pytest.raises(InputError, match=r'data\.tokenizer: the character .*U\+1F680'):
        found.encode('🚀')
    with pytest.raises(Exception, match='UNK'):  # the library refuses it, too
        library.Tokenizer.from_str(found.json).encode('ß')


def test_half_a_surrogate_pair_is_no_text(tokenizer):
    with pytest.raises(InputError, match='--prompt: not valid Unicode'):
        tokenizer.encode('to \udcff be', '--prompt')


def test_merges_are_learned_the_same_each_time():
    texts = [f'{a} {b}{a} {c}' for a in ('the', 'of', 'to') for b in 'xyz' for c in 'uvw'] * 2
    first = tokenizers.train_bpe(texts, 300).json
    assert all(tokenizers.train_bpe(iter(texts), 300).json == first for _ in range(5))
    assert len(tokenizers.from_json(first).encode('the of to')) < 9


def test_ids_that_no_merge_was_found_for_are_unused():
    found = tokenizers.train_bpe(['hello hello', 'once'], 400)
    assert (found.vocab_size, found.end_token) == (400, 399)
    hello = found.encode('hello hello')
    assert len(hello) < 11
    assert found.num_unused == 400 - 257 - 4  # four merges make 'hello', of 'once' none is made
    assert tokenizers.train_bpe(['hello hello'], 258).num_unused == 0
    assert found.decode(np.array([390])).startswith('<|unused_')


def test_a_file_says_itself_where_its_end_is(tmp_path):
    path = tmp_path / 'tokenizer.json'
    path.write_text(gpt2_like())
    found = tokenizers.read(str(path))
    assert found.end_token == 0
    assert found.decode(np.array([0])) == '\n<|endoftext|>\n'
    ids = found.encode(TEXT)
    assert ids.tolist() == library.Tokenizer.from_file(str(path)).encode(TEXT).ids
    assert found.decode(ids) == TEXT
    assert found.num_chars[ids].sum() == len(TEXT)


def test_files_of_later_models_are_read():
    """Words split by a pattern of their own, several special tokens, and one of plain text."""
    pattern = r'[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+'
    steps = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(library.Regex(pattern), 'isolated'),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    text = gpt2_like('<|begin|>', steps, **{'<|end_of_text|>': True, 'question': False})
    found = tokenizers.from_json(text)
    theirs = library.Tokenizer.from_str(text)
    assert found.end_token == theirs.token_to_id('<|end_of_text|>')
    ids = found.encode(TEXT)
    assert theirs.token_to_id('question') in ids
    assert ids.tolist() == theirs.encode(TEXT).ids
    assert found.num_bytes[ids].sum() == len(TEXT.encode())


def test_settings_for_batches_of_others_do_not_cut_text():
    theirs = library.Tokenizer.from_str(gpt2_like())
    theirs.enable_truncation(5)
    theirs.enable_padding(length=1000)
    found = tokenizers.from_json(theirs.to_str())
    assert found.decode(found.encode(TEXT)) == TEXT


def test_a_lone_special_token_is_the_end_whatever_its_name():
    assert tokenizers.from_json(gpt2_like('<stop>')).end_token == 0


@pytest.mark.parametrize(
    ('text', 'reason'),
    [
        ('{', 'is not the JSON'),
        ('[]', 'is not the JSON'),
        ('{"model": {}}', 'is not the JSON'),
        (changed(gpt2_like(), version='7'), 'version'),
        (changed(gpt2_like(), added_tokens=[]).replace('endoftext', 'x'), 'special tokens: none'),
        (gpt2_like('<a>', **{'<b>': True}), 'special tokens: <a>, <b>'),
        (changed(gpt2_like(), decoder=None), 'does not work on bytes'),
        (changed(gpt2_like(), decoder={'type': 'Fuse'}), 'does not work on bytes'),
        (changed(gpt2_like(), normalizer={'type': 'NFC'}), 'changes text'),
        (changed(gpt2_like(), normalizer={'type': 'Lowercase'}), 'changes text'),
        (changed(gpt2_like(), normalizer=STRIP), 'changes text'),
        (gpt2_like(pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=True)), 'changes text'),
        (gpt2_like(alphabet=[]), 'changes text'),
    ],
)
def test_files_that_cannot_be_used_say_why(tmp_path, text, reason):
    path = tmp_path / 'mine.json'
    path.write_text(text)
    with pytest.raises(InputError, match=rf'^data\.tokenizer: .*mine\.json.*{reason}') as caught:
        tokenizers.read(str(path))
    assert '\n' not in str(caught.value)


def test_files_that_cannot_be_read_say_what_there_is_besides(tmp_path):
    (tmp_path / 'latin.json').write_bytes(b'\xff\xfe')
    for name in ('absent.json', 'latin.json'):
        with pytest.raises(InputError, match=r"^data\.tokenizer: '.*none of 'bytes', 'characters'"):
            tokenizers.read(str(tmp_path / name))
