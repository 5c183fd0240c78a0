"""`--mode=inspect`: what lies in a workdir, and whether it is sound."""

import time
from pathlib import Path

import jax

from gen_jax import divergence
from gen_jax import workdir as workdirs
from gen_jax.checkpoint import Checkpoints
from gen_jax.errors import CheckFailed
from gen_jax.selection import best_step
from gen_jax.writers import read_rows


def inspect(workdir: Path, config=None) -> list[dict]:
    """Prints the checkpoints of a run, each read and compared with its checksums, how often it was
    started, and where it differs from `config`, if one is given.

    Returns:
      `{folder, step, bytes, fault}` of each checkpoint and snapshot; a sound one's fault is None.

    Raises:
      InputError: the folder is not of a run.
      CheckFailed: one of them is damaged.
    """
    # Nothing is computed but digests, and host memory is the larger.
    jax.config.update('jax_platforms', 'cpu')
    saved = workdirs.saved_config(workdir)
    facts, rows = workdirs.facts(workdir), read_rows(workdir / 'metrics.jsonl')
    last = max((row['step'] for row in rows), default=0)
    record = divergence.read_record(workdir) if (workdir / divergence.FILE).exists() else None
    print(f'{workdir}: rows to step {last:,} of {saved.train.num_steps:,}')
    for start in facts.get('starts', []):
        where = f'{start["devices"]}, {start["processes"]} process(es)'
        print(f'  started {start["time"]} on {where}, commit {start["commit"]}')
    if record is not None:
        print(
            f'  diverged: steps from {record["step"]} to {record["checkpoint"]} were skipped '
            f'({divergence.FILE}; --mode=replay repeats the first)'
        )
    found = []
    for folder in ('checkpoints', 'averages'):
        if (workdir / folder).is_dir():
            found += _contents(workdir, folder, rows, saved.train.best_by)
    for damaged in sorted(workdir.glob('*/damaged-*')):
        print(f'  {damaged.relative_to(workdir)}: set aside')
    if config is not None:
        for line in workdirs.config_differences(workdir, config) or ['no difference']:
            print(f'  config: {line}')
    faults = [f'{item["folder"]}/{item["step"]}' for item in found if item['fault'] is not None]
    if faults:
        raise CheckFailed(f'damaged: {", ".join(faults)}; a run goes on from the one before')
    return found


def _contents(workdir: Path, folder: str, rows: list[dict], best_by: str | None) -> list[dict]:
    found = []
    with Checkpoints(workdir, read_only=True, name=folder) as checkpoints:
        steps = checkpoints.steps()
        best = best_step(rows, best_by, steps) if folder == 'checkpoints' else None
        for step in steps:
            place = checkpoints.folder / str(step)
            size = sum(file.stat().st_size for file in place.rglob('*') if file.is_file())
            fault = checkpoints.fault_of(step)
            saved_at = time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(place.stat().st_mtime))
            word = 'sound' if fault is None else f'DAMAGED: {fault}'
            word = f'{word}, best by {best_by}' if step == best else word
            print(f'  {folder}/{step}: {size / 2**20:,.1f} MiB, {saved_at}, {word}')
            found.append({'folder': folder, 'step': step, 'bytes': size, 'fault': fault})
    return found
