"""The missing tasks of a sweep as an array of Slurm's jobs, by submitit.

Each job is `--mode=sweep --sweep_index=k` in this folder; at its time limit it saves, and is handed
in again. Submitit's own names of options apply: `timeout_min`, `gpus_per_node`, `cpus_per_task`,
`slurm_partition`, `slurm_array_parallelism`, ...; `cluster=local` runs the jobs here, which shows
what they would do.
"""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from gen_jax.errors import InputError
from gen_jax.sweeps.runner import Task, is_final


class Job:
    """A command that is called where Slurm wants it; submitit sends it there and back."""

    def __init__(self, words: Sequence[str]):
        self.words, self.process = words, None

    def __call__(self) -> None:
        self.process = subprocess.Popen(self.words)
        status = self.process.wait()
        if status != 0:
            raise RuntimeError(f'ended with status {status}: {" ".join(self.words)}')

    def checkpoint(self):
        """What submitit asks for at the time limit: saves, and says what to hand in again."""
        import submitit

        self.process.terminate()
        self.process.wait()
        return submitit.helpers.DelayedSubmission(Job(self.words))


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
    cluster = chosen.pop('cluster', 'slurm')
    try:
        executor = submitit.AutoExecutor(folder / 'slurm', cluster=cluster)
        executor.update_parameters(**{'name': folder.name, **chosen})
    except (NameError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f'--slurm: {error}') from None
    command = [sys.executable, sys.argv[0], '--mode=sweep', f'--sweep={file.absolute()}']
    command += [f'--workdir={folder.absolute()}', *words]
    jobs = []
    try:
        with executor.batch():
            for index, task in enumerate(tasks):
                if not all(is_final(trial, folder) for trial in task.trials):
                    jobs.append(executor.submit(Job([*command, f'--sweep_index={index}'])))
    except submitit.core.utils.FailedJobError as error:
        raise InputError(f'--slurm: {error}') from None
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
