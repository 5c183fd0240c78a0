"""One exception for everything the user can mend."""

import contextlib
from collections.abc import Iterator


class InputError(ValueError):
    """Bad input: one line naming the field, file or flag and what would be right.

    The door (`launch.py`) prints the message and exits with status 2; nothing else catches it.
    """


@contextlib.contextmanager
def in_section(section: str) -> Iterator[None]:
    """Names the config section that an argument came from: `eta: ...` becomes `section.eta: ...`.

    Rooms that see no config name their arguments; whoever passes on a section wraps the call.
    """
    try:
        yield
    except InputError as error:
        raise InputError(f'{section}.{error}') from None
