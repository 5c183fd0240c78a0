"""The door: flags in, one function call out.

    python launch.py --config=configs/ddpm_digits.py                   train, or go on training
    python launch.py --config=configs/ddpm_digits.py --mode=sample     draw from what was trained
    python launch.py --config=configs/ddpm_cifar.py:smoke              the same, tiny and quick

Any field of the config can be set: `--config.data.batch_size=64`.
Several processes, each started with the same command, train together where the environment says
so (Slurm, Open MPI, Cloud TPU), or by --coordinator, --num_processes and --process_id.

Exit status: 0 the work was done; 2 bad input, with one line saying what would be right; others
that ask to be started again, or not to be, are in `gen_jax/errors.py`.
"""

import importlib
import os
import sys
import threading
import traceback
from pathlib import Path

from absl import app, flags
from ml_collections import config_flags

from gen_jax.command_line import parse, suggestion
from gen_jax.errors import Ended, InputError, Preempted, not_written
from gen_jax.fields import fields_of

MODES = (
    *('train', 'sample', 'evaluate', 'encode', 'compare', 'export', 'plan'),
    *('animate', 'inspect', 'replay', 'certify', 'sweep', 'together', 'report'),
)
OF_FOLDERS = ('inspect', 'together')  # which need no config
FORMATS = ('weights', 'huggingface')

CONFIG = config_flags.DEFINE_config_file(
    'config', None, 'File of the run, for example configs/X.py.'
)
WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the run; runs/<config name> by default.')
MODE = flags.DEFINE_enum('mode', 'train', MODES, 'What to do.')
NUM = flags.DEFINE_integer(
    'num', None, 'sample, encode: how many; sample.num of the config, or all, by default.'
)
SEED = flags.DEFINE_integer('seed', None, 'sample, evaluate: seed of the samples.')
OUT = flags.DEFINE_string(
    'out',
    None,
    'sample, encode, export, animate: file or folder to write; one in the workdir by default.',
)
FORMAT = flags.DEFINE_enum(
    'format', 'weights', FORMATS, 'export: one file, or a folder for transformers.'
)
LABEL = flags.DEFINE_integer('label', None, 'sample: the class to draw; all in turn by default.')
STEPS = flags.DEFINE_integer(
    'steps', None, 'sample: steps of the sampler, or of a projection; certify: steps to train.'
)
PROMPT = flags.DEFINE_string('prompt', None, 'sample: what a text begins with.')
PROMPT_FILE = flags.DEFINE_string(
    'prompt_file', None, 'sample: a file with the prompt, or a .jsonl file with one in each line.'
)
MAX_TOKENS = flags.DEFINE_integer('max_tokens', None, 'sample: tokens to draw after a prompt.')
GIVEN = flags.DEFINE_string(
    'given', None, "sample, encode: a file, or 'held_out' for examples of the evaluation split."
)
EDIT = flags.DEFINE_string(
    'edit',
    None,
    "sample: a picture of latents: 'interpolate', 'traverse'; with an encoder 'reconstruct'; "
    "of a generator 'mix', 'project'.",
)
KEEP = flags.DEFINE_string('keep', None, "sample: what is kept of --given, for example 'top'.")
KILLS = flags.DEFINE_integer('kills', 20, 'certify: how often to kill the run.')
CHECKPOINT = flags.DEFINE_string(
    'checkpoint', 'latest', "sample, encode, evaluate, export: 'latest', 'best' or a step."
)
EMA_LENGTH = flags.DEFINE_float(
    'ema_length',
    None,
    'sample, encode, evaluate, export: length of the average, of all training.',
)
COORDINATOR = flags.DEFINE_string(
    'coordinator', None, 'Several processes: host:port of the first one.'
)
NUM_PROCESSES = flags.DEFINE_integer('num_processes', None, 'Several processes: how many.')
PROCESS_ID = flags.DEFINE_integer('process_id', None, 'Several processes: which this is, from 0.')
WORKDIRS = flags.DEFINE_list('workdirs', None, 'compare: evaluated runs, with commas between.')
SWEEP = flags.DEFINE_string('sweep', None, 'sweep, report: experiments/<study>/sweep.py.')
SWEEP_INDEX = flags.DEFINE_integer('sweep_index', None, 'sweep: the one trial to run, from 0.')
WORKERS = flags.DEFINE_integer('workers', 1, 'sweep: how many trials run at a time.')
RETRIES = flags.DEFINE_integer(
    'retries', 1, "sweep: how often a trial's process that crashed is started again."
)
TOGETHER = flags.DEFINE_integer(
    'together', 1, 'sweep: how many trials at most are trained in one program.'
)
TRIALS = flags.DEFINE_list('trials', None, 'together: their names, with commas between.')
SLURM = flags.DEFINE_list(
    'slurm', None, "sweep: hand trials to Slurm, with submitit's options: timeout_min=60,..."
)

# The flags that belong to some modes only.
FLAGS_OF = {
    'sample': (
        *('num', 'seed', 'out', 'label', 'steps', 'checkpoint', 'ema_length'),
        *('prompt', 'prompt_file', 'max_tokens', 'given', 'keep', 'edit'),
    ),
    'encode': ('num', 'out', 'label', 'given', 'checkpoint', 'ema_length'),
    'evaluate': ('checkpoint', 'seed', 'ema_length'),
    'export': ('checkpoint', 'out', 'format', 'ema_length'),
    'certify': ('steps', 'kills', 'seed'),
    'animate': ('out',),
    'compare': ('workdirs',),
    'sweep': ('sweep', 'sweep_index', 'workers', 'retries', 'together', 'slurm'),
    'together': ('trials',),
    'report': ('sweep', 'out'),
}


def main(argv: list[str]) -> None:
    """Runs one mode."""
    if len(argv) > 1:
        raise InputError(f'{argv[1]!r} is no flag; {suggestion(argv[1])}')
    if SEED.value is not None and not 0 <= SEED.value < 2**31:
        raise InputError(f'--seed: {SEED.value} must be from 0 to 2147483647')
    mine = FLAGS_OF.get(MODE.value, ())
    for name in sorted({name for names in FLAGS_OF.values() for name in names} - {*mine}):
        if flags.FLAGS[name].present:
            takers = ', '.join(mode for mode, its in FLAGS_OF.items() if name in its)
            raise InputError(f'--{name}: only --mode={takers} takes it, not --mode={MODE.value}')
    if MODE.value == 'compare':
        from gen_jax.compare import compare

        compare([Path(name).expanduser() for name in WORKDIRS.value or ()])
        return
    if MODE.value in ('sweep', 'report'):
        study()
        return
    if MODE.value == 'together' and (WORKDIR.value is None or CONFIG.value is not None):
        raise InputError('--workdir: give the folder of a sweep, and no --config')
    # A folder of a run says which it is; a certificate starts runs with the words for a config.
    if CONFIG.value is None and not (WORKDIR.value and (MODE.value in OF_FOLDERS or is_begun())):
        raise InputError(
            '--config: which run? For example --config=configs/ddpm_digits.py, or else the '
            '--workdir of one that has begun'
        )
    config, workdir = CONFIG.value, Path(WORKDIR.value or default_workdir()).expanduser()
    chosen = {name: flags.FLAGS[name].value for name in mine}

    # Imported here, so that --help and a mistyped flag are answered at once.
    from gen_jax import hosts, runtime
    from gen_jax.workdir import other_commit, saved_config

    if config is None and MODE.value not in OF_FOLDERS:
        config = saved_config(workdir)
        check_version(config, workdir)
    hosts.start(
        *(COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value),
        share_signals=MODE.value in ('train', 'together'),  # which alone has something to save
    )
    if CONFIG.value is None and hosts.is_first() and (other := other_commit(workdir)):
        print(
            f'{workdir} is of another commit, {other}; fields may have changed since',
            file=sys.stderr,
        )
    runtime.start()
    work = getattr(importlib.import_module(f'gen_jax.{MODE.value}'), MODE.value)
    if MODE.value == 'plan':
        work(config)
    elif MODE.value == 'inspect':
        work(workdir, config)
    elif MODE.value == 'together':
        work(workdir, TRIALS.value or ())
    elif MODE.value == 'certify':
        work(config, workdir, config_words(), **chosen)
    else:
        work(config, workdir, **chosen)


def is_begun() -> bool:
    """Whether the work can go by the config of the run in --workdir."""
    return MODE.value != 'certify' and (Path(WORKDIR.value).expanduser() / 'config.json').exists()


def check_version(config, workdir: Path) -> None:
    """Raises InputError where the config of a folder has not all fields that each has today."""
    from configs.common import get_base

    missing = sorted({*fields_of(get_base())} - {*fields_of(config)})
    if missing:
        raise InputError(
            f'--workdir: {workdir} was written by another version: its config has no '
            f'{missing[0]}; start it with --config'
        )


def study() -> None:
    """Runs a study, or reports on it."""
    if SWEEP.value is None:
        raise InputError('--sweep: which study? For example --sweep=experiments/<study>/sweep.py')
    if CONFIG.value is not None:
        raise InputError(f'--config: the study names its own; leave it out of --mode={MODE.value}')
    if COORDINATOR.value is not None or NUM_PROCESSES.value is not None:
        raise InputError('--coordinator: a trial is one process; leave it out')
    file = Path(SWEEP.value).expanduser()
    folder = Path(WORKDIR.value or f'runs/{file.absolute().parent.name}').expanduser()
    if MODE.value == 'report':
        from gen_jax.sweeps.report import report

        report(file, folder, OUT.value)
        return
    from gen_jax.sweep import sweep

    sweep(
        *(file, folder),
        workers=WORKERS.value,
        index=SWEEP_INDEX.value,
        retries=RETRIES.value,
        together=TOGETHER.value,
        slurm=SLURM.value,
    )


def config_words() -> list[str]:
    """The words of the command line that say which config it is, as they were given."""
    words = []
    for i, word in enumerate(sys.argv):
        name, equals, _ = word.lstrip('-').partition('=')
        if word.startswith('-') and f'{name}.'.startswith(('config.', 'noconfig.')):
            # A flag is no value: `--config.train.x` alone sets it.
            following = sys.argv[i + 1 : i + 2]
            is_value = not equals and following and not following[0].startswith('--')
            words += [word, *following] if is_value else [word]
    return words


def default_workdir() -> str:
    """`runs/<config name>-<argument of the config>`, and `-certificate` for a certificate."""
    path, _, argument = config_flags.get_config_filename(flags.FLAGS['config']).partition(':')
    name = Path(path).stem
    kind = 'certificate' if MODE.value == 'certify' else ''
    return 'runs/' + '-'.join(part for part in (name, argument, kind) if part)


def end_alone(error: Exception) -> None:
    """Where several processes run and this one cannot go on, ends it at once: the usual way out
    waits for the others, and they for it."""
    import jax

    if not jax.distributed.is_initialized():
        return
    from gen_jax import hosts

    end = error if isinstance(error, Ended) else hosts.explain(error)
    if end is None:
        traceback.print_exception(error)
    else:
        print(f'error: {end}', file=sys.stderr)
    sys.stderr.flush()
    os._exit(1 if end is None else end.status)


def end_soon(status: int) -> None:
    """Where several processes run, exits in ten seconds if the usual way out has not by then: it
    waits for the others, and this bad input may be of one process alone."""
    jax = sys.modules.get('jax')
    if jax is None or not jax.distributed.is_initialized():
        return
    timer = threading.Timer(10, os._exit, [status])
    timer.daemon = True
    timer.start()


def run() -> None:
    """Runs `main`, and turns every end that was foreseen into one line and its status."""
    hint = '; the same command goes on from the last checkpoint'
    try:
        app.run(main, flags_parser=parse)
    except Preempted as reason:
        print(f'{reason}{hint}', file=sys.stderr)
        sys.exit(reason.status)
    except Ended as error:
        print(f'error: {error}', file=sys.stderr, flush=True)
        if isinstance(error, InputError):
            end_soon(error.status)
        sys.exit(error.status)
    except Exception as error:
        full = not_written(error)
        end_alone(full or error)
        if full is None:
            raise
        print(f'error: {full}', file=sys.stderr)
        sys.exit(full.status)
    except KeyboardInterrupt:
        trains = flags.FLAGS.is_parsed() and MODE.value == 'train'
        print(f'interrupted{f"{hint}, if any" if trains else ""}', file=sys.stderr)
        sys.exit(130)


if __name__ == '__main__':
    run()
