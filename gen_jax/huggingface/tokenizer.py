"""A tokenizer beside a network, as Hugging Face's `transformers` reads it."""

from pathlib import Path

from gen_jax.errors import InputError


def tokenizer_config(tokenizer: str, start_token: int | None, context: int) -> dict:
    """What tokenizer_config.json says beside a tokenizer.json of this text."""
    from tokenizers import Tokenizer

    config = {
        # The class that takes tokenizer.json as it is.
        'tokenizer_class': 'PreTrainedTokenizerFast',
        'model_max_length': context,
        'clean_up_tokenization_spaces': False,
    }
    if start_token is not None:
        token = Tokenizer.from_str(tokenizer).id_to_token(start_token)
        config |= {'bos_token': token, 'eos_token': token}
    return config


def check_tokenizer(folder: Path, tokenizer: str) -> None:
    """Raises InputError if there is a tokenizer in the folder whose tokens have other numbers."""
    from tokenizers import Tokenizer

    path = folder / 'tokenizer.json'
    if not path.is_file():
        return
    try:
        there = Tokenizer.from_file(str(path)).get_vocab()
    except Exception as error:  # the library raises nothing more special
        raise InputError(f'tokenizer.json cannot be read ({error})') from None
    here = Tokenizer.from_str(tokenizer).get_vocab()
    if here != there:
        token = min(here.items() ^ there.items())[0]
        raise InputError(
            f'its tokenizer is another than that of the data: {token!r} is {here.get(token)} here '
            f'and {there.get(token)} there; let the data be read with its tokenizer.json'
        )
