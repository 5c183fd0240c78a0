"""The words after `launch.py`: read, and answered with what would be right where one is wrong.

absl and ml_collections read them. What they complain of in several kinds of error and several lines
becomes one line here. Nothing heavy is imported, so that a mistyped flag is answered at once.
"""

import contextlib
import difflib
import itertools
import math
import re
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict

from gen_jax.errors import InputError, in_section
from gen_jax.fields import section_of

# What absl says of a value of another type, and what would be right.
_RIGHT = {
    'could not convert string to float': 'a number',
    'invalid literal for int()': 'a whole number',
    "('Non-boolean argument": 'True or False',
    'Failed to parse': 'a section; set one of its fields instead',
}


def parse(argv: list[str]) -> list[str]:
    """absl's parsing, its many kinds of complaint turned into one; any field may be set to None."""
    nothing = [word for word in argv if re.fullmatch(r'--config\.[\w.]+=None', word)]
    last = {word.split('=')[0]: word for word in argv}  # the last word on a field counts
    _check_file(_config_name(argv))
    try:
        rest = flags.FLAGS([word for word in argv if word not in nothing])
        config = flags.FLAGS['config'].value
        if config is not None:
            config.lock()  # a file that failed to load says so only when it is touched
            for word in nothing:
                if last[word.removesuffix('=None')] == word:
                    _set_to_none(config, word)
            _check_numbers(flags.FLAGS['config'].override_values)
    except (AttributeError, KeyError) as error:
        with contextlib.suppress(AttributeError, KeyError):  # of the file itself
            _check_fields(argv)
        raise InputError(_explain(error, argv)) from None
    except (flags.Error, ImportError, SyntaxError, TypeError, ValueError, OSError) as error:
        raise InputError(_explain(error, argv)) from None
    return rest


def _config_name(argv: list[str]) -> str | None:
    """What --config is set to, which can be asked before the flags are parsed."""
    name = None
    for word, following in itertools.pairwise([*argv, '']):
        if flag := re.fullmatch(r'--?config(?:=(.*))?', word):
            name = following if flag[1] is None else flag[1]
    return name


def _check_file(name: str | None) -> None:
    """Raises InputError where --config is given and is no Python file."""
    if name is None:
        return
    given = name.partition(':')[0]
    path = Path(given)
    if path.suffix == '.py' and path.is_file():
        return
    folders = (Path('configs'), path.parent)
    known = {file.stem: file for folder in folders for file in folder.glob('[!_]*.py')}
    near = difflib.get_close_matches(path.stem, known, 1)
    hint = f'did you mean {known[near[0]]}?' if near else 'give a file like configs/ddpm_digits.py'
    raise InputError(f'--config: cannot load {given!r}; {hint}')


def _check_fields(argv: list[str]) -> None:
    """Raises InputError for the first flag of a config field that does not exist."""
    config = flags.FLAGS['config'].parser.parse(_config_name(argv))
    for word in argv:
        if flag := re.match(r'--?(?:no)?config\.([\w.]+)', word):
            with in_section('--config'):
                section_of(config, flag[1])


def _check_numbers(values: dict) -> None:
    """Raises InputError for a field that a flag sets to infinity or to no number."""
    for name, value in values.items():
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, float) and not math.isfinite(number):
                raise InputError(f'--config.{name}: {number} must be a finite number')


def _set_to_none(config, word: str) -> None:
    """Sets the field of a flag `--config.section.field=None`, which ml_collections cannot."""
    name = word.removeprefix('--config.').removesuffix('=None')
    with in_section('--config'):
        section, field = section_of(config, name)
    # Parts of a method may be left out, as an augmentation; it says itself which may not.
    if isinstance(section[field], ConfigDict) and not name.startswith('method.'):
        raise InputError(f"--config.{name}: 'None' must be {_RIGHT['Failed to parse']}")
    with section.ignore_type():
        section[field] = None


def suggestion(word: str) -> str:
    """What may have been meant by a word that is no flag, of what there is."""
    name = word.lstrip('-').partition('=')[0]
    if word in flags.FLAGS['mode'].parser.enum_values:
        return f'did you mean --mode={word}?'
    if name in flags.FLAGS or name.startswith('config.'):
        return f'did you mean --{word.lstrip("-")}?'
    near = difflib.get_close_matches(name, flags.FLAGS, 1)
    if near:
        return f'did you mean --{near[0]}?'
    return 'see --help; fields of the config are set with --config.<section>.<field>='


def _explain(error: Exception, argv: list[str]) -> str:
    """One line of what absl and ml_collections say in several."""
    if isinstance(error, flags.UnrecognizedFlagError):
        name = error.flagname
        if name.startswith('config.') and _config_name(argv) is None:
            return (
                f'--{name}: fields are set beside the --config that has them; those of a study in '
                'its sweep.py'
            )
        return f'--{name}: there is no such flag; {suggestion(name)}'
    said = error
    while isinstance(said, (AttributeError, KeyError)):  # which are wrapped and quoted
        said = said.args[0] if said.args else ''
    complaint = str(said)
    lines = [line.strip() for line in complaint.splitlines() if line.strip()] or [repr(error)]
    if isinstance(error, (AttributeError, ImportError, KeyError, OSError, SyntaxError)):
        return f'--config: cannot load {_config_name(argv)!r}: {lines[-1]}'
    if 'Traceback' in complaint:  # of a config that raised; its last line is the reason
        return lines[-1].split(': ', 1)[-1]
    for words, right in _RIGHT.items():
        if flag := re.match(rf'flag (--[\w.]+)=(.*): {re.escape(words)}', complaint):
            return f'{flag[1]}: {flag[2]!r} must be {right}'
    return ' '.join(lines)
