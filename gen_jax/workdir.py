"""The folder of one run: what config it belongs to, and what made it.

config.json   the config; the run's identity
run.json      commit, versions and devices of every start, and the data's fingerprint
"""

import json
import os
import subprocess
import time
from importlib import metadata
from pathlib import Path

import jax

from gen_jax.errors import InputError
from gen_jax.writers import write_json

# What may differ when a run goes on: how long and how often, where the data lies, on what devices.
# Everything else makes it another run.
_MAY_DIFFER = ('train', 'evaluate', 'sample', 'parallel', 'data.data_dir')
_PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'numpy', 'gen_jax')


def config_values(config) -> dict:
    """The config as JSON keeps it: tuples become lists."""
    return json.loads(config.to_json())


def check(workdir: Path, config) -> None:
    """Makes sure that this folder can be this config's; writes nothing.

    Raises:
      InputError: it cannot be written, or belongs to a different config.
    """
    nearest = workdir.absolute()
    while not nearest.exists():
        nearest = nearest.parent
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise InputError(
            f'--workdir: {workdir} cannot be written ({nearest} is read-only or a file)'
        )
    check_config(workdir, config)


def check_config(workdir: Path, config) -> None:
    """Raises InputError if the folder holds a run of a different config, naming what differs."""
    path = workdir / 'config.json'
    if not path.exists():
        return
    saved, wanted = _flat(_read_json(path)), _flat(config_values(config))
    different = [
        f'{field} is {saved.get(field, "absent")!r} there and {wanted.get(field, "absent")!r} here'
        for field in sorted(saved.keys() | wanted.keys())
        if saved.get(field) != wanted.get(field) and not _may_differ(field)
    ]
    if different:
        more = f' (and {len(different) - 3} more)' if len(different) > 3 else ''
        raise InputError(
            f'--workdir: {workdir} holds a run of a different config: '
            f'{"; ".join(different[:3])}{more}; use the same values or another --workdir'
        )


def open_for_training(workdir: Path, config, fingerprint: str, facts: dict) -> None:
    """Makes the folder, writes `config.json`, and adds this start to `run.json`.

    Raises:
      InputError: the folder cannot be written, or its run began with other data.
    """
    path = workdir / 'run.json'
    record = _read_json(path) if path.exists() else {'starts': []}
    began_with = record.setdefault('data_fingerprint', fingerprint)
    if began_with != fingerprint:
        raise InputError(
            f'data: the run in {workdir} began with data of fingerprint {began_with}, and this is '
            f'{fingerprint}; bring the old data back or use another --workdir'
        )
    record |= facts
    record['starts'].append(
        {
            'time': time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime()),
            'commit': commit(),
            'versions': {name: metadata.version(name) for name in _PACKAGES},
            'devices': f'{jax.device_count()} x {jax.devices()[0].device_kind}',
            'processes': jax.process_count(),
        }
    )
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        (workdir / 'samples').mkdir(exist_ok=True)
        write_json(workdir / 'config.json', config_values(config))
        write_json(path, record)
    except OSError as error:
        raise InputError(f'--workdir: {workdir} cannot be written ({error.strerror})') from None


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


def _read_json(path: Path) -> dict:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f'--workdir: cannot read {path} ({error}); mend or remove it') from None
    if not isinstance(value, dict):
        raise InputError(f'--workdir: {path} is not of a run; mend or remove it')
    return value


def _may_differ(field: str) -> bool:
    return any(field == allowed or field.startswith(allowed + '.') for allowed in _MAY_DIFFER)


def _flat(values: dict, prefix: str = '') -> dict:
    flat = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f'{prefix}{name}.')
        else:
            flat[prefix + name] = value
    return flat
