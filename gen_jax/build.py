"""From a config to values: the one place where a name in a config becomes code.

`name` is a path under the room it belongs to (`'unet.UNet'` under `gen_jax/networks`), the other
fields of the section are keyword arguments, and an argument that does not exist is an error that
lists those that do.
"""

import ast
import functools
import importlib
import inspect
import re
import typing
from collections.abc import Callable, Mapping
from pathlib import Path

from gen_jax.errors import InputError, in_section
from gen_jax.methods.method import Method
from gen_jax.types import DataSpec

# What networks compute in; see `configs/common.py`.
PRECISIONS = ('float32', 'bfloat16', 'float16')
# Sections of a method that are methods themselves.
METHODS = ('inner', 'autoencoder')
# Its other sections, and the room that what they name is in.
PARTS = {
    'process': 'processes',
    'observation': 'losses',
    'prior': 'networks',
    'posterior': 'networks',
    'quantizer': 'quantizers',
    'adversarial': 'losses',
    'augmentation': 'augmentations',
}
# Arguments of a network that its section does not hold, and what decides them instead.
DECIDED_BY = {
    **dict.fromkeys(('shape', 'out_channels', 'num_classes', 'vocab_size', 'context'), 'the data'),
    **dict.fromkeys(('code_channels', 'latent_channels'), 'the method'),
    'dtype': '`precision`',
}


def method(config, spec: DataSpec) -> Method:
    """The config's generative method, for data of this spec.

    Raises:
      InputError: a name or a keyword argument that does not exist, or has a wrong value.
    """
    if config.precision not in PRECISIONS:
        raise InputError(f'precision: no {config.precision!r}; choose from {", ".join(PRECISIONS)}')
    factories = {
        player: network_factory(section.to_dict(), f'networks.{player}', config.precision)
        for player, section in config.networks.items()
    }
    return _method_of(config.method.to_dict(), 'method', config.precision, factories, spec)


def _method_of(
    section: Mapping,
    field: str,
    precision: str,
    networks: Mapping[str, Callable],
    spec: DataSpec,
) -> Method:
    """The method that a section names, its parts made of the sections inside it."""
    make, options = named('methods', section, field)
    for part in METHODS:
        if part in options:
            options[part] = functools.partial(
                _method_of, options[part], f'{field}.{part}', precision
            )
    for part, room in PARTS.items():
        if options.get(part) is not None:
            inside = f'{field}.{part}'
            function, its_options = named(room, options[part], inside)
            takes = inspect.signature(function).parameters
            told = {'spec': spec, 'shape': spec.shape, 'dtype': precision}
            told = {name: value for name, value in told.items() if name in takes}
            check_keywords(function, its_options, inside, hidden=told)
            with in_section(inside):
                options[part] = function(**its_options, **told)
    check_keywords(make, options, field, hidden=('networks', 'spec'))
    try:
        return make(networks=networks, spec=spec, **options)
    except InputError as error:
        # A method calls its own section 'method', wherever that stands.
        words = str(error)
        if words.startswith('method.') and not words.startswith(f'{field}.'):
            words = words.replace('method', field, 1)
        raise InputError(words) from None


def network_factory(section: Mapping, field: str, precision: str = 'float32') -> Callable:
    """The network class of a config section, computing in `precision`, with its arguments bound,
    except those of the data."""
    network, options = named('networks', section, field)
    for name, decider in DECIDED_BY.items():
        if name in options:
            raise InputError(f'{field}.{name}: {decider} decides this; remove it')
    check_keywords(network, options, field, hidden=(*DECIDED_BY, 'parent', 'name'))

    def make(**given):
        parameters = inspect.signature(network).parameters
        all_given = {**options, **given}
        needed = [name for name, p in parameters.items() if p.default is p.empty]
        for names, known, has in (
            (given, parameters, 'has no'),
            (needed, all_given, 'needs'),
        ):
            unmet = [name for name in names if name not in known]
            if unmet:
                raise InputError(
                    f'{field}.name: {network.__name__} is not for this method: it {has} '
                    f'{", ".join(unmet)}'
                )
        with in_section(field):
            return network(**options, dtype=precision, **given)

    return make


def named(room: str, section: Mapping | None, field: str) -> tuple[Callable, dict]:
    """What a config section's `name` stands for, and the section's other fields.

    Raises:
      InputError: the section is None or has no name, or there is nothing of that name.
    """
    options = dict(section or {})
    path = options.pop('name', None)
    if not isinstance(path, str):
        raise InputError(f"{field}.name: it must name a 'module.Name' under gen_jax/{room}")
    return find(room, path, f'{field}.name'), options


def find(room: str, path: str, field: str) -> Callable:
    """The object that `path` ('module.Name') names under `gen_jax/<room>`.

    Raises:
      InputError: no such module or name; the message lists what there is.
    """
    module_name, _, name = path.rpartition('.')
    full_name = f'gen_jax.{room}.{module_name}'
    try:
        module = importlib.import_module(full_name)
    except ModuleNotFoundError as error:
        if not full_name.startswith(error.name):
            raise  # the module exists, and something that it imports does not
        homes = ' or '.join(repr(f'{home}.{name}') for home in _homes_of(room, name))
        right = f"it must name a 'module.Name' under gen_jax/{room}"
        right = f'did you mean {homes}?' if homes else right
        raise InputError(f'{field}: no {path!r}; {right}') from None
    found = getattr(module, name, None)
    if not callable(found):
        choices = ', '.join(_choices_in(module)) or 'nothing'
        raise InputError(f'{field}: {full_name} has no {name!r}; it has {choices}')
    return found


def _homes_of(room: str, name: str) -> list[str]:
    """The modules of a room that define this name, found without importing any."""
    defines = re.compile(rf'^(?:class|def) {re.escape(name)}[(:]', re.M)
    files = sorted((Path(__file__).parent / room).glob('*.py'))
    return [file.stem for file in files if defines.search(file.read_text())]


def _choices_in(module) -> list[str]:
    """The public names of a module that it makes no use of itself: its networks, and not the blocks
    that they are made of. To name one in an annotation is no use."""
    tree = ast.parse(inspect.getsource(module))
    for node in ast.walk(tree):
        node.annotation = node.returns = None
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    own = [n for n, v in vars(module).items() if getattr(v, '__module__', '') == module.__name__]
    return sorted(n for n in own if not n.startswith('_') and n not in used)


def call(function: Callable, options: Mapping, field: str, /, **given):
    """`function(**given, **options)`, after the check that it takes these options, and that none
    of them is given already."""
    check_keywords(function, options, field, hidden=given)
    for name in given.keys() & options.keys():
        raise InputError(f'{field}.{name}: this is not for a config to say; leave it out')
    return function(**given, **options)


def check_keywords(function: Callable, options: Mapping, field: str, hidden=()) -> None:
    """Raises InputError for an option that `function` does not take, a None where its annotation
    has none, or a needed one left out."""
    called = getattr(function, 'func', function).__name__.lstrip('_')  # of a partial
    parameters = {
        name: parameter
        for name, parameter in inspect.signature(function).parameters.items()
        if name not in hidden
    }
    for name in parameters.keys() & options.keys():
        annotation = parameters[name].annotation
        allowed = typing.get_args(annotation) or (annotation,)
        known = annotation is not inspect.Parameter.empty and isinstance(allowed[0], type)
        if options[name] is None and known and type(None) not in allowed:
            raise InputError(f'{field}.{name}: None; it needs a value')
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for name in options:
        if name not in parameters and not takes_any:
            raise InputError(
                f'{field}.{name}: {called} takes no {name!r}; '
                f'it takes {", ".join(parameters) or "nothing"}'
            )
    for name, parameter in parameters.items():
        needed = parameter.default is parameter.empty and parameter.kind is not (
            parameter.VAR_KEYWORD
        )
        if needed and name not in options:
            raise InputError(f'{field}.{name}: {called} needs it; please set it')
