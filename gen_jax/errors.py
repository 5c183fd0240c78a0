"""What ends a command before its work is done, each with the exit status of the process.

    0    the work was done
    2    bad input                                                     InputError
    3    losses or gradients are not finite any more                   Diverged
         or a metric says that training goes wrong                     Collapsed
    4    a certificate that does not hold, or a damaged checkpoint     CheckFailed
    75   asked to end by a signal; saved, and goes on when it is       Preempted
         started again
    76   another process of the run was lost; goes on when all of      ProcessLost
         them are started again
    130  interrupted at once: by Ctrl-C where nothing is to be saved,
         or by a second one

75 is the EX_TEMPFAIL of BSD's sysexits.h, 'try again later', and 76 its EX_PROTOCOL. Whoever starts
runs again by itself should do so for 75, 76, and deaths by signal, and not for 2, 3 and 4.
"""

import contextlib
from collections.abc import Iterator


class Ended(Exception):
    """A command ended early; the door prints the message and exits with `status`."""

    status: int


class InputError(Ended, ValueError):
    """Bad input: one line naming the field, file or flag and what would be right."""

    status = 2


class Diverged(Ended):
    """Training met numbers that are not finite, again and again."""

    status = 3


class Collapsed(Ended):
    """Training goes wrong by its own numbers, which are finite."""

    status = 3


class CheckFailed(Ended):
    """Something is not what it must be."""

    status = 4


class Preempted(Ended):
    """A signal asked the process to end."""

    status = 75


class ProcessLost(Ended):
    """Another process of the run is gone."""

    status = 76


@contextlib.contextmanager
def in_section(section: str) -> Iterator[None]:
    """Names the config section that an argument came from: `eta: ...` becomes `section.eta: ...`.

    Rooms that see no config name their arguments; whoever passes on a section wraps the call.
    """
    try:
        yield
    except InputError as error:
        raise InputError(f'{section}.{error}') from None
