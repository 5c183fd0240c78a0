"""The folder of one run: what config it belongs to, what made it, and who works in it.

config.json   the config; the run's identity
run.json      commit, versions and devices of every start, and the data's fingerprint
spec.json     what examples are like (`types.DataSpec`), for whoever uses the model without the data
tokenizer.json  of text
lock          held by the process that trains here, for as long as it lives
"""

import contextlib
import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import TextIO

import jax
import numpy as np
from ml_collections import ConfigDict

from gen_jax import hosts
from gen_jax.errors import InputError
from gen_jax.files import remove_partial
from gen_jax.types import DataSpec
from gen_jax.writers import write_atomically, write_json

# What may differ when a run goes on: how long and how often, where data lies, on what devices,
# in which precision, whether activations are kept (`networks.*.remat`), and how often averages are,
# though not whether. Everything else makes it another run.
_MAY_DIFFER = (
    *('train', 'evaluate', 'sample', 'parallel', 'precision'),
    *('data.data_dir', 'data.evaluation_stride'),
)
_PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'numpy', 'gen_jax')


def config_values(config) -> dict:
    """The config as JSON keeps it: tuples become lists."""
    return json.loads(config.to_json())


def plain(value):
    """The value as configs have it and flags are written with, the way back from JSON: lists as
    tuples, NumPy's numbers as Python's; those of a section or a point too."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {name: plain(part) for name, part in value.items()}
    return tuple(map(plain, value)) if isinstance(value, list | tuple) else value


def saved_config(workdir: Path) -> ConfigDict:
    """The config that the run in this folder was last started with.

    Raises:
      InputError: the folder is not of a run.
    """
    path = workdir / 'config.json'
    if not path.exists():
        raise InputError(f'--workdir: {workdir} is not of a run: it has no config.json')
    values = read_json(path)
    if 'train.num_steps' not in flat(values):
        raise InputError(f'--workdir: {path} is not the config of a run')
    return ConfigDict(plain(values)).lock()


def other_commit(workdir: Path) -> str | None:
    """The commit that the run in this folder was last started at, where this code is of another
    one: its config may have other fields. None where it is the same, or where git does not say."""
    starts = facts(workdir).get('starts', [])
    there, here = starts[-1].get('commit') if starts else None, commit()
    if there is None or here is None:
        return None
    there, here = (name.removesuffix('+changes') for name in (there, here))
    return there if there != here else None


def check_processes(config) -> None:
    """Raises InputError where another process of this run was given a different config."""
    of_first = flat(json.loads(hosts.text_of_first(json.dumps(config_values(config)))))
    different = _differences(of_first, flat(config_values(config)))
    if hosts.any_of(bool(different)):
        which = '; '.join(different) or 'another one has something else than the first'
        raise InputError(
            f'--config: all processes of a run need the same ("there": first): {which}'
        )


def check(workdir: Path, config) -> None:
    """Makes sure that this folder can be this config's; writes nothing.

    Raises:
      InputError: it cannot be written, or belongs to a different config; or another process of
        this run was given one.
    """
    check_processes(config)
    check_folder(workdir, config)


def check_folder(workdir: Path, config) -> None:
    """Raises InputError where the folder cannot be written, or belongs to a different config."""
    nearest = workdir.absolute()
    while not os.path.exists(nearest):  # False also where looking is not allowed
        nearest = nearest.parent
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise InputError(
            f'--workdir: {workdir} cannot be written ({nearest} is read-only or a file)'
        )
    check_config(workdir, config)


def check_out(out: str, suffixes: tuple[str, ...]) -> Path:
    """The path of a file that the user wants written.

    Raises:
      InputError: it ends in none of `suffixes`, is a folder, or lies where nothing can be written.
    """
    path = Path(out).expanduser()
    if path.suffix not in suffixes:
        raise InputError(f'--out: {out} must end in {" or ".join(suffixes)}')
    if path.is_dir():
        raise InputError(f'--out: {out} is a folder; name a file')
    _check_writable(path.absolute().parent)
    return path


def check_out_folder(out: str) -> Path:
    """The path of a folder that the user wants written; it may be there already.

    Raises:
      InputError: it is a file, or lies where nothing can be written.
    """
    path = Path(out).expanduser()
    if path.exists() and not path.is_dir():
        raise InputError(f'--out: {out} is a file; name a folder')
    _check_writable(path if path.is_dir() else path.absolute().parent)
    return path


def _check_writable(folder: Path) -> None:
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f'--out: there is no folder {folder} that can be written')


def check_config(workdir: Path, config, left_out: Callable[..., bool] | None = None) -> None:
    """Raises InputError if the folder holds a run of a different config, naming what differs.
    Fields with `left_out(field, there, here)` may; None: those that may when a run goes on."""
    if not (workdir / 'config.json').exists():
        return
    different = config_differences(workdir, config, left_out or _may_differ)
    if different:
        more = f' (and {len(different) - 3} more)' if len(different) > 3 else ''
        raise InputError(
            f'--workdir: {workdir} holds a run of a different config: '
            f'{"; ".join(different[:3])}{more}; use the same values or another --workdir'
        )


def check_data(workdir: Path, fingerprint: str) -> None:
    """Raises InputError if the run in this folder began with other data than that of this
    fingerprint: held-out examples of the one may be training examples of the other."""
    began_with = facts(workdir).get('data_fingerprint', fingerprint)
    if began_with != fingerprint:
        raise InputError(
            f'data: the run in {workdir} began with data of fingerprint {began_with}, and this '
            f'is {fingerprint}; bring the old data back or use another --workdir'
        )


def changes(workdir: Path, config) -> list[str]:
    """A line for each field that is another one than at the last start; none for a new folder."""
    return config_differences(workdir, config) if (workdir / 'config.json').exists() else []


def config_differences(
    workdir: Path, config, left_out: Callable[..., bool] = lambda *_: False
) -> list[str]:
    """A line for each field of the run's config that is another in `config`; not for those for
    which `left_out(field, there, here)`."""
    saved = flat(read_json(workdir / 'config.json'))
    return _differences(saved, flat(config_values(config)), left_out)


@contextlib.contextmanager
def opened(workdir: Path, config, fingerprint: str, spec: DataSpec, facts: dict) -> Iterator[None]:
    """Makes the folder this process's to train in: for the length of the block, and alone.

    Writes `config.json` and the spec, and adds this start, with `facts`, to `run.json`.

    Raises:
      InputError: the folder cannot be written, another process trains in it, or its run began
        with other data.
    """

    def take():
        if hosts.is_first():
            return _take(workdir, config, fingerprint, spec, facts)
        if not (workdir / 'config.json').exists():
            raise InputError(
                f'--workdir: process {jax.process_index()} does not see in {workdir} what the '
                'first one wrote; use a folder that all processes share'
            )
        return contextlib.nullcontext()

    with hosts.together(take, '--workdir'):
        yield


def _take(workdir: Path, config, fingerprint: str, spec: DataSpec, facts: dict) -> TextIO:
    """The open lock of the folder, whose `config.json` and `run.json` are of this start."""
    try:
        (workdir / 'samples').mkdir(parents=True, exist_ok=True)
        file = (workdir / 'lock').open('a')
    except OSError as error:
        raise _cannot_write(workdir, error) from None
    try:
        lock(file, workdir)
        for folder in (workdir, workdir / 'samples'):
            remove_partial(folder)
        check_config(workdir, config)  # again: nobody else can change it any more
        path = workdir / 'run.json'
        record = read_json(path) if path.exists() else {}
        check_data(workdir, fingerprint)
        record['data_fingerprint'] = fingerprint
        record |= facts
        record['starts'] = [*record.get('starts', []), _start(config)]
        write_json(workdir / 'config.json', config_values(config))
        write_json(path, record)
        _save_spec(workdir, spec)
    except OSError as error:
        raise _cannot_write(workdir, error) from None
    except InputError:
        file.close()
        raise
    return file


def _save_spec(workdir: Path, spec: DataSpec) -> None:
    write_json(workdir / 'spec.json', spec._replace(tokenizer=None)._asdict())
    if spec.tokenizer is not None:
        write_atomically(workdir / 'tokenizer.json', spec.tokenizer)


def saved_spec(workdir: Path) -> DataSpec | None:
    """Of the data that the run in this folder began with; None where none has."""
    if not (workdir / 'spec.json').exists():
        return None
    values = read_json(workdir / 'spec.json')
    tokenizer = workdir / 'tokenizer.json'
    try:
        spec = DataSpec(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
    except TypeError as error:
        raise InputError(f'--workdir: {workdir / "spec.json"} is not of a run ({error})') from None
    return spec._replace(tokenizer=tokenizer.read_text()) if tokenizer.exists() else spec


def facts(workdir: Path) -> dict:
    """What `run.json` says of the run; nothing where there is none."""
    path = workdir / 'run.json'
    return read_json(path) if path.exists() else {}


def _cannot_write(workdir: Path, error: OSError) -> InputError:
    return InputError(f'--workdir: {workdir} cannot be written ({error.strerror})')


def lock(file, workdir: Path) -> None:
    """Takes the operating system's lock, which goes when the process does, however that ends."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(
            f'--workdir: another process is training in {workdir}; let it end, or use another one'
        ) from None
    except OSError as error:
        # Some network file systems have no locks; training there is no worse than without ours.
        print(f'warning: {workdir} cannot be locked ({error.strerror})', file=sys.stderr)


def _start(config) -> dict:
    """What this process is, for `run.json`, and what may differ from one start to the next."""
    return {
        'time': time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime()),
        'commit': commit(),
        'versions': {name: _version(name) for name in _PACKAGES},
        'devices': f'{jax.device_count()} x {jax.devices()[0].device_kind}',
        'processes': jax.process_count(),
        'parallel': config.parallel.to_dict(),
        'precision': config.precision,
    }


def _version(package: str) -> str | None:
    """None for a package that runs from a checkout without being installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def commit() -> str | None:
    """The code's git commit, with '+changes' where the tree differs from it; None outside git."""
    folder = Path(__file__).parent

    def git(*arguments):
        command = ['git', '-C', str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git('rev-parse', 'HEAD') + ('+changes' if git('status', '--porcelain') else '')
    except (OSError, subprocess.CalledProcessError):
        return None


def read_json(path: Path) -> dict:
    """The object in a file of a workdir.

    Raises:
      InputError: it cannot be read, or is something else.
    """
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f'--workdir: cannot read {path} ({error}); mend or remove it') from None
    if not isinstance(value, dict):
        raise InputError(f'--workdir: {path} is not of a run; mend or remove it')
    return value


def _may_differ(field: str, there, here) -> bool:
    if field == 'ema.snapshot_every':
        return None not in (there, here)
    if field == 'data.tokenizer':  # a file may lie elsewhere; its content is part of the data
        return all(str(value).endswith('.json') for value in (there, here))
    return field.endswith('.remat') or any(
        field == allowed or field.startswith(allowed + '.') for allowed in _MAY_DIFFER
    )


def _differences(
    there: dict, here: dict, left_out: Callable[..., bool] = lambda *_: False
) -> list[str]:
    return [
        f'{field} is {there.get(field, "absent")!r} there and {here.get(field, "absent")!r} here'
        for field in sorted(there.keys() | here.keys())
        if there.get(field) != here.get(field)
        and not left_out(field, there.get(field), here.get(field))
    ]


def flat(values: Mapping, prefix: str = '') -> dict:
    """`{'section.field': value}` of sections inside each other."""
    found = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(value, f'{prefix}{name}.')
        else:
            found[prefix + name] = value
    return found
