"""The missing tasks of a sweep as an array of Slurm's jobs, by submitit.

Each job is `--mode=sweep --sweep_index=k` in this folder. Submitit's own names of options apply:
`timeout_min`, `gpus_per_node`, `cpus_per_task`, `slurm_partition`, `slurm_array_parallelism`, ...;
`cluster=local` runs the jobs here, which shows what they would do.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from gen_jax.errors import InputError
from gen_jax.sweeps.runner import Task, is_final


def submit(
    tasks: Sequence[Task], file: Path, folder: Path, options: Sequence[str], words: Sequence[str]
) -> list:
    """Hands in a job for each task that is not done, and returns the jobs.

    Args:
      file: the study.
      folder: the sweep's, which all jobs see; their logs go to `slurm` in it.
      options: 'name=value' of submitit.
      words: more flags of the jobs.

    Raises:
      InputError: an option that submitit does not have, or it is not there.
    """
    try:
        import submitit
    except ImportError:
        raise InputError("--slurm: needs submitit; pip install 'gen_jax[slurm]'") from None
    chosen = _parse(options)
    cluster = chosen.pop('cluster', None)
    try:
        executor = submitit.AutoExecutor(folder / 'slurm', cluster=cluster)
        executor.update_parameters(**{'name': folder.name, **chosen})
    except (NameError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f'--slurm: {error}') from None
    command = [sys.executable, sys.argv[0], '--mode=sweep', f'--sweep={file.absolute()}']
    command += [f'--workdir={folder.absolute()}', *words]
    jobs = []
    with executor.batch():
        for index, task in enumerate(tasks):
            if not all(is_final(trial, folder) for trial in task.trials):
                job = submitit.helpers.CommandFunction([*command, f'--sweep_index={index}'])
                jobs.append(executor.submit(job))
    print(f'{len(jobs)} jobs handed in: {", ".join(job.job_id for job in jobs)}')
    return jobs


def _parse(options: Sequence[str]) -> Mapping[str, str | int]:
    found = {}
    for option in options:
        name, equals, value = option.partition('=')
        if not (name and equals and value):
            raise InputError(f'--slurm: {option!r} is no option; write name=value,name=value')
        found[name] = int(value) if value.isdigit() else value
    return found
