"""The configs of a study's trials, found and checked before anything runs."""

import copy
import importlib.util
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import ml_collections

from gen_jax.errors import InputError
from gen_jax.fields import section_of
from gen_jax.sweeps.study import SEED, Point, Search, Study, Trial, describe
from gen_jax.workdir import flat

# Sections whose numbers may be others in each run.
_SECTIONS = ('optim', 'method', 'ema')
# Of fields, for people.
_TYPES = {
    bool: 'True or False',
    int: 'a whole number',
    float: 'a number',
    str: 'a text',
    tuple: 'a tuple',
}


def load_study(file: Path) -> Study:
    """What `sweep()` of this file returns.

    Raises:
      InputError: there is no such file or function, it fails, or returns something else.
    """
    if not file.is_file():
        raise InputError(f'--sweep: there is no file {file}; give experiments/<study>/sweep.py')
    try:
        module = _load(file)
        study = module.sweep() if hasattr(module, 'sweep') else None
    except InputError as error:
        raise InputError(f'--sweep: {file}: {error}') from None
    except Exception as error:
        raise InputError(f'--sweep: {file}: {_explain(error)}') from None
    if not hasattr(module, 'sweep'):
        raise InputError(f'--sweep: {file} has no function sweep(); write one that returns a Study')
    if not isinstance(study, Study):
        raise InputError(f'--sweep: sweep() of {file} returns {type(study).__name__}, not a Study')
    if not study.metrics:
        raise InputError(f'--sweep: {file}: metrics: the study names none; give ("FD",) or others')
    return study


def _explain(error: Exception) -> str:
    """What a study's file raised; of a field that its parts do not have, which ones there are."""
    kind = next(
        (kind for kind in (Study, Search) if f'{kind.__name__}.__new__' in str(error)), None
    )
    if kind is None:
        return f'fails with {type(error).__name__}: {error}'
    wrong = re.search(r"unexpected keyword argument '(\w+)'", str(error))
    needed = ', '.join(field for field in kind._fields if field not in kind._field_defaults)
    said = f'has no field {wrong[1]!r}' if wrong else f'needs {needed}'
    return f'{kind.__name__} {said}; its fields are {", ".join(kind._fields)}'


def config_of(trial: Trial):
    """The config that the trial's command line will make.

    Raises:
      InputError: naming the entry: no such file or field, or a value of another type.
    """
    where = f'{describe(trial.fields)}'
    path, _, argument = trial.config.partition(':')
    if not Path(path).is_file():
        raise InputError(f'config: there is no file {path!r} ({where})')
    try:
        config = copy.deepcopy(_load(Path(path)).get_config(*([argument] if argument else [])))
    except Exception as error:
        raise InputError(f'config: cannot load {trial.config!r}: {error}') from None
    for name, value in trial.fields.items():
        _set(config, name, value, where)
    return config


def words_of(fields: Point) -> list[str]:
    """The flags that set these fields."""
    return [f'--config.{name}={value}' for name, value in fields.items()]


def distinct(trials: Sequence[Trial]) -> list[Trial]:
    """One trial of each point, for what does not depend on the seed."""
    found = {}
    for trial in trials:
        point = {name: value for name, value in trial.fields.items() if name != SEED}
        found.setdefault((trial.config, describe(point)), trial)
    return [*found.values()]


def varied(configs: Sequence) -> dict[str, tuple[float, ...]]:
    """The numbers that are not equal in all of these configs.

    Raises:
      InputError: something else differs, other than the seed.
    """
    fields, found = [flat(config.to_dict()) for config in configs], {}
    for field in dict.fromkeys(name for one in fields for name in one):
        values = tuple(one.get(field) for one in fields)
        if all(value == values[0] for value in values) or field == 'seed':
            continue
        if not all(_can_vary(field, value) for value in values):
            raise InputError(
                f'{field}: {" and ".join(map(str, dict.fromkeys(values)))} are not one program; '
                'runs that are trained together differ in seed and in numbers of '
                f'{", ".join(_SECTIONS)}'
            )
        found[field] = values
    return found


def program_of(config) -> str:
    """The same for configs that `varied` takes together: all that they have to have in common. Of a
    number that may vary that is whether it is 0, which often leaves something out."""
    fields = {
        field: value != 0 if _can_vary(field, value) else value
        for field, value in flat(config.to_dict()).items()
    }
    return json.dumps({**fields, 'seed': 0}, sort_keys=True, default=str)


def _can_vary(field: str, value) -> bool:
    return isinstance(value, float) and field.split('.')[0] in _SECTIONS


def _load(path: Path):
    """The module in this file, which is in no package."""
    spec = importlib.util.spec_from_file_location(f'file_{path.stem}', path)
    module = importlib.util.module_from_spec(spec)
    root = str(Path.cwd())
    if root not in sys.path:  # for `configs`
        sys.path.insert(0, root)
    spec.loader.exec_module(module)
    return module


def _set(config, name: str, value, where: str) -> None:
    """Sets a field as the flag would."""
    section, field = section_of(config, name, where)
    if isinstance(section[field], ml_collections.ConfigDict):
        raise InputError(f'{name}: is a section; set one of its fields ({where})')
    try:
        if value is None:
            with section.ignore_type():
                section[field] = None
        else:
            section[field] = value
    except (TypeError, ValueError) as error:
        right = _TYPES.get(section.get_type(field))
        reason = f'must be {right}' if right else f'is of another type: {error}'
        raise InputError(f'{name}: {value!r} {reason} ({where})') from None
