"""A file is there whole, or not at all."""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write that becomes `path` at the end of the block: the whole file or none of it,
    even if the machine goes down meanwhile, or other processes write it at the same time."""
    partial = path.with_name(f'{path.name}.{socket.gethostname()}-{os.getpid()}.partial')
    with partial.open('wb') as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
