"""The fields of a config by their paths, 'section.field', as flags and studies name them."""

import difflib
from collections.abc import Iterator

import ml_collections

from gen_jax.errors import InputError


def section_of(config, name: str, where: str = '') -> tuple[ml_collections.ConfigDict, str]:
    """The section that has this field, 'section.field', and the field's own name in it.

    Raises:
      InputError: there is no such field; `where` is said, too.
    """
    *sections, field = name.split('.')
    section = config
    for depth, part in enumerate((*sections, field)):
        if not isinstance(section, ml_collections.ConfigDict) or part not in section:
            known = [*section] if isinstance(section, ml_collections.ConfigDict) else []
            near = difflib.get_close_matches(part, known, n=1)
            hint = f'; there are {", ".join(known)}' if known else ', which is no section'
            hint = f'; did you mean {near[0]!r}?' if near else hint
            here = '.'.join(sections[:depth]) or 'the config'
            hint += f' ({where})' if where else ''
            raise InputError(f'{name}: there is no field {part!r} in {here}{hint}')
        if depth < len(sections):
            section = section[part]
    return section, field


def fields_of(section: ml_collections.ConfigDict) -> Iterator[str]:
    """The paths of a section's fields, and of sections in it."""
    for name, value in section.items():
        yield name
        if isinstance(value, ml_collections.ConfigDict):
            yield from (f'{name}.{field}' for field in fields_of(value))
