"""What ends a command before its work is done, each with the exit status of the process.

    0    the work was done
    1    a disk that is full, or takes no more for another reason      NotWritten
         (and whatever was not foreseen, with a traceback)
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
import errno
import os
import re
from collections.abc import Iterator

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
# TensorStore, which writes checkpoints, has path and number in the text of an error of its own.
_OF_TENSORSTORE = re.compile(r'"(/[^"]*)".*os_error_code=.(\d+)', re.S)


class Ended(Exception):
    """A command ended early; the door prints the message and exits with `status`."""

    status: int


class InputError(Ended, ValueError):
    """Bad input: one line naming the field, file or flag and what would be right."""

    status = 2


class NotWritten(Ended):
    """A disk takes no more."""

    status = 1


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


def not_written(error: BaseException | None) -> NotWritten | None:
    """What an error means that comes of a disk which takes no more, itself or what led to it."""
    while error is not None:
        number, path = getattr(error, 'errno', None), getattr(error, 'filename', None)
        if said := _OF_TENSORSTORE.search(str(error)):
            path, number = said[1], int(said[2])
        if number in _FULL:
            where = f'{path}: ' if path else ''
            return NotWritten(
                f'{where}{os.strerror(number)}; nothing is lost: when that is mended the same '
                'command goes on'
            )
        error = error.__cause__ or error.__context__
    return None


@contextlib.contextmanager
def in_section(section: str) -> Iterator[None]:
    """Names the config section that an argument came from: `eta: ...` becomes `section.eta: ...`.

    Rooms that see no config name their arguments; whoever passes on a section wraps the call.
    """
    try:
        yield
    except InputError as error:
        raise InputError(f'{section}.{error}') from None
