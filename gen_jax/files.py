"""A file is there whole, or not at all."""

import contextlib
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

# What the name of a file ends in that is being written.
PARTIAL = '.partial'


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write that becomes `path` at the end of the block: the whole file or none of it,
    even if the machine goes down meanwhile, or other processes write it at the same time."""
    partial = path.with_name(f'{path.name}.{socket.gethostname()}-{os.getpid()}{PARTIAL}')
    try:
        with partial.open('wb') as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):  # what it ended by matters, as a full disk
            partial.unlink()
        raise


def remove_partial(folder: Path) -> None:
    """Removes what processes of this machine that were killed had begun to write in the folder."""
    own = re.compile(rf'.+\.{re.escape(socket.gethostname())}-(\d+){re.escape(PARTIAL)}')
    for path in folder.glob(f'*{PARTIAL}'):
        name = own.fullmatch(path.name)
        if name and not _lives(int(name[1])):
            path.unlink(missing_ok=True)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)  # asks, and does nothing
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        pass
    return True
