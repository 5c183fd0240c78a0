"""Folders of the user's own files: found all the way down, read, and some of them held out."""

import hashlib
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from gen_jax.errors import InputError

HELD_OUT = 1 / 16  # The share of files kept for evaluation.


def search(data_dir: str | None, suffixes: tuple[str, ...], what: str) -> tuple[Path, list[Path]]:
    """The folder, and the files under it with these endings, relative to it and sorted; hidden ones
    are left out. `what` names one of them in messages: 'image'.

    Raises:
      InputError: no folder, or fewer than two files, as one is held out.
    """
    if not data_dir:
        raise InputError(f"data.data_dir: give the folder of {what}s when data.source is 'folder'")
    root = Path(data_dir).expanduser()
    if not root.is_dir():
        raise InputError(f'data.data_dir: there is no folder {root}')
    paths = [path.relative_to(root) for path in walk(root, suffixes)]
    if len(paths) < 2:
        raise InputError(
            f'data.data_dir: {root} holds {len(paths)} {what}(s) ({", ".join(suffixes)}); at least '
            'two are needed, as one is held out for evaluation'
        )
    return root, paths


def walk(root: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """The files under `root`, all the way down, with these endings, sorted; no hidden ones, nor
    any in hidden folders."""

    def is_hidden(path: Path) -> bool:
        return any(name.startswith('.') for name in path.relative_to(root).parts)

    found = (path for path in root.rglob('*') if path.suffix.lower() in suffixes)
    return sorted(path for path in found if not is_hidden(path) and path.is_file())


def read_all(read: Callable[[Any], Any], items: Sequence, title: str) -> Iterator:
    """Yields read(item) in order; reads in threads and draws a bar, if there is a terminal."""
    from rich.console import Console
    from rich.progress import track

    with ThreadPoolExecutor(min(len(items), os.cpu_count() or 1)) as pool:
        results = pool.map(read, items)
        yield from track(
            results, title, total=len(items), console=Console(stderr=True), transient=True
        )


def divide(paths: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Which of two or more paths train and which evaluate, as positions in `paths`.

    A hash of the path decides, so that the choice stays the same when files are added. Both in the
    order of the hash: so the first batches already mix what lies in different folders.
    """
    hashes = [hashlib.sha256(path.as_posix().encode()).digest()[:8] for path in paths]
    values = np.array([int.from_bytes(h) / 2**64 for h in hashes])
    order = np.argsort(values)
    num_evaluation = min(max(1, int((values < HELD_OUT).sum())), len(paths) - 1)
    return order[num_evaluation:], order[:num_evaluation]


def check_readable(root: Path, bad: Sequence[str], num_good: int, problem: str) -> None:
    """Warns of the files that are left out, naming some; `problem` says why: 'cannot be read'.

    Raises:
      InputError: fewer than two files are left.
    """
    named = f'{", ".join(bad[:5])}{", …" if len(bad) > 5 else ""}'
    if num_good < 2:
        raise InputError(
            f'data.data_dir: only {num_good} of {num_good + len(bad)} files in {root} can be used, '
            f'and at least two are needed; the others {problem}: {named}'
        )
    if bad:
        warnings.warn(
            f'{len(bad)} file(s) in {root} {problem} and are left out: {named}', stacklevel=3
        )
