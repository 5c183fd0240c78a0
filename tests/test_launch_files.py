"""Launch files: they parse, name only what exists, and treat a status as docs/scale.md says."""

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
import yaml

from configs import ddpm_8gaussians
from gen_jax.errors import CheckFailed, InputError, Preempted

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / 'experiments' / 'launch'
SLURM = FOLDER / 'slurm.sh'
PAGE = ROOT / 'docs' / 'scale.md'
YAMLS = sorted(FOLDER.glob('*.yaml'))
TEXTS = [*YAMLS, SLURM, FOLDER / 'README.md', PAGE]

# Of other programs: sbatch, srun and squeue, uv, sky, kubectl, gen_jax.data.prepare, and XLA.
FOREIGN = {
    *('job-name', 'nodes', 'ntasks-per-node', 'gpus-per-node', 'gpus-per-task', 'cpus-per-task'),
    *('time', 'open-mode', 'requeue', 'signal', 'kill-on-bad-exit', 'wait'),
    *('noheader', 'jobs', 'format', 'python', 'seed', 'env', 'prefix', 'name', 'data_dir'),
    'xla_gpu_deterministic_ops',
}


def documents(name: str) -> list[dict]:
    return list(yaml.safe_load_all((FOLDER / name).read_text()))


def flags_in(path: Path) -> set[str]:
    """Every `--flag` of a text, without what it is set to."""
    return set(re.findall(r'(?<![\w-])--([a-z](?:[\w.-]*\w)?)', path.read_text()))


def statuses() -> dict[int, bool]:
    """From the page's table: every status, and whether a launcher should start again."""
    rows = re.findall(r'^\| (\d+) \|.*\| (start again|stop)\b.*\|$', PAGE.read_text(), re.M)
    return {int(status): action == 'start again' for status, action in rows}


def those_to(start_again: bool) -> set[int]:
    return {status for status, again in statuses().items() if again == start_again}


def job() -> dict:
    return next(part for part in documents('kubernetes.yaml') if part['kind'] == 'Job')


def container() -> dict:
    return job()['spec']['template']['spec']['containers'][0]


def test_the_page_has_every_status_with_what_to_do():
    stop, again = (0, 2, 3, 4, 130), (75, 76, 134)
    assert statuses() == dict.fromkeys(stop, False) | dict.fromkeys(again, True)


@pytest.mark.parametrize('path', TEXTS, ids=lambda path: path.name)
def test_every_flag_exists(path):
    defined = set(re.findall(r"DEFINE_\w+\(\s*'(\w+)'", (ROOT / 'launch.py').read_text()))
    used = {flag for flag in flags_in(path) if not flag.startswith('config.')}
    assert used and used <= defined | FOREIGN, used - defined - FOREIGN


@pytest.mark.parametrize('path', [*YAMLS, PAGE], ids=lambda path: path.name)
def test_every_config_field_exists(path):
    """Those of flags, and those that the page names in its text."""
    fields = {flag.removeprefix('config.') for flag in flags_in(path) if '.' in flag}
    config = ddpm_8gaussians.get_config()
    sections = '|'.join(name for name in config if name != 'seed')
    fields |= set(re.findall(rf'`((?:{sections})\.\w+)`', path.read_text()))
    assert fields or 'sweep' in path.name  # whose study has them
    for field in fields:
        section = config
        for name in field.split('.'):
            assert name in section, field
            section = section[name]


def test_no_foreign_flag_is_listed_in_vain():
    assert set.union(*(flags_in(path) for path in TEXTS)) >= FOREIGN


@pytest.mark.parametrize('path', TEXTS, ids=lambda path: path.name)
def test_every_config_and_file_named_exists(path):
    names = re.findall(r'\b(?:configs|experiments/launch|tests)/\w+\.\w+', path.read_text())
    assert names and [name for name in names if not (ROOT / name).exists()] == []


@pytest.mark.parametrize('name', ['skypilot_gpu.yaml', 'skypilot_tpu.yaml'])
def test_skypilot_recovers_by_the_statuses_of_the_page(name):
    (task,) = documents(name)
    recovery = task['resources']['job_recovery']
    assert set(recovery['recover_on_exit_codes']) == those_to(start_again=True)
    assert recovery['max_restarts_on_errors'] == 0
    # The workdir lies in what is mounted; MOUNT_CACHED would show it to the others late.
    ((folder, mount),) = task['file_mounts'].items()
    assert mount['mode'] == 'MOUNT' and f'--workdir="{folder}/' in task['run']


@pytest.mark.parametrize('name', [path.name for path in YAMLS if 'skypilot' in path.name])
@pytest.mark.parametrize('part', ['setup', 'run'])
def test_commands_of_skypilot_are_bash(name, part):
    (task,) = documents(name)
    done = subprocess.run(['bash', '-n'], input=task[part], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_kubernetes_treats_a_status_as_the_page_says():
    rules = job()['spec']['podFailurePolicy']['rules']
    by_status = {
        status: rule['action']
        for rule in rules
        if 'onExitCodes' in rule
        for status in rule['onExitCodes']['values']
    }
    # 0 is no failure, and nobody interrupts a pod by hand.
    fail = those_to(start_again=False) - {0, 130}
    again = those_to(start_again=True)
    assert by_status == dict.fromkeys(fail, 'FailJob') | dict.fromkeys(again, 'Ignore')
    for rule in rules:
        assert len({'onExitCodes', 'onPodConditions'} & rule.keys()) == 1
        if 'onExitCodes' in rule:
            assert rule['onExitCodes']['operator'] == 'In'
            assert rule['onExitCodes']['containerName'] == container()['name']
    disrupted = {'action': 'Ignore', 'onPodConditions': [{'type': 'DisruptionTarget'}]}
    assert disrupted in rules
    assert job()['spec']['template']['spec']['restartPolicy'] == 'Never'


def test_names_and_numbers_of_kubernetes_agree():
    claim, service, _ = documents('kubernetes.yaml')
    spec, pod = job()['spec'], job()['spec']['template']['spec']
    name, arguments = job()['metadata']['name'], container()['args']
    assert [claim['kind'], service['kind']] == ['PersistentVolumeClaim', 'Service']
    assert spec['completionMode'] == 'Indexed'
    assert spec['completions'] == spec['parallelism']
    assert f'--num_processes={spec["completions"]}' in arguments
    assert '--process_id=$(JOB_COMPLETION_INDEX)' in arguments
    assert service['spec']['clusterIP'] == 'None'
    assert service['spec']['selector'] == {'job-name': name}
    assert pod['subdomain'] == service['metadata']['name']
    coordinator = f'--coordinator={name}-0.{pod["subdomain"]}:'
    assert any(argument.startswith(coordinator) for argument in arguments)
    volumes = {volume['name']: volume for volume in pod['volumes']}
    mounts = {mount['mountPath']: mount['name'] for mount in container()['volumeMounts']}
    assert volumes[mounts['/dev/shm']]['emptyDir']['medium'] == 'Memory'
    shared = volumes[mounts['/shared']]['persistentVolumeClaim']['claimName']
    assert shared == claim['metadata']['name']
    assert claim['spec']['accessModes'] == ['ReadWriteMany']
    assert any(argument.startswith('--workdir=/shared/') for argument in arguments)


def test_slurm_script_is_bash():
    done = subprocess.run(['bash', '-n', str(SLURM)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def slurm(tmp_path):
    """Runs `slurm.sh` with stand-ins for Slurm's commands, which write down what they are given."""
    commands, calls = tmp_path / 'bin', tmp_path / 'calls'
    stand_ins = {
        'srun': 'printf "[%s]" "$@" >> "$CALLS"; echo " $JAX_LOCAL_DEVICE_IDS" >> "$CALLS"\n'
        '[ -z "$SIGNAL" ] || kill -s "$SIGNAL" $PPID\nexit "$STATUS"',
        'squeue': 'echo "$STATE"',
        'scontrol': 'echo "scontrol $*" >> "$CALLS"',
    }
    commands.mkdir()
    for name, text in stand_ins.items():
        (commands / name).write_text(f'#!/bin/bash\n{text}\n')
        (commands / name).chmod(0o755)
    (tmp_path / 'venv' / 'bin').mkdir(parents=True)
    (tmp_path / 'venv' / 'bin' / 'activate').write_text('')

    def run(*arguments: str, status: int, **variables: str) -> tuple[int, list[str]]:
        environment = {
            **{'PATH': f'{commands}{os.pathsep}{os.environ["PATH"]}', 'CALLS': str(calls)},
            **{'STATUS': str(status), 'STATE': 'RUNNING', 'SIGNAL': '', 'SLURM_JOB_ID': '17'},
            **{'GEN_JAX_VENV': str(tmp_path / 'venv'), 'JAX_LOCAL_DEVICE_IDS': ''},
        }
        done = subprocess.run(
            ['bash', str(SLURM), *arguments],
            cwd=ROOT,
            env=environment | variables,
            capture_output=True,
            text=True,
        )
        return done.returncode, calls.read_text().splitlines()

    return run


def test_slurm_hands_on_flags_and_all_gpus_of_a_node(slurm):
    gpus = {'SLURM_GPUS_ON_NODE': '4', 'SLURM_NTASKS_PER_NODE': '1'}
    status, calls = slurm('--config=a b.py', '--num=3', status=0, **gpus)
    assert status == 0
    assert len(calls) == 1
    assert calls[0].endswith('[python][launch.py][--config=a b.py][--num=3] 0,1,2,3')


def test_slurm_leaves_the_gpus_of_several_tasks_to_jax(slurm):
    gpus = {'SLURM_GPUS_ON_NODE': '4', 'SLURM_NTASKS_PER_NODE': '4'}
    _, calls = slurm(status=0, **gpus)
    assert calls[0].endswith('[launch.py] ')


@pytest.mark.parametrize('status', [*statuses(), 1, 128 + signal.SIGKILL])
def test_slurm_requeues_by_the_statuses_of_the_page(status, slurm):
    """And where a task was killed, which is what Slurm then reports of all."""
    again = statuses().get(status, status > 128)
    ended, calls = slurm(status=status)
    assert ended == status
    assert calls[1:] == (['scontrol requeue 17'] if again else [])


def test_slurm_gives_up_after_so_many_restarts(slurm):
    for count, requeues in (('2', 1), ('3', 0)):
        calls = slurm(status=76, SLURM_RESTART_COUNT=count, GEN_JAX_RESTARTS='3')[1]
        assert calls[-1].startswith('scontrol') == bool(requeues)


@pytest.mark.parametrize('variables', [{'SIGNAL': 'TERM'}, {'STATE': 'COMPLETING'}])
def test_slurm_does_not_bring_back_a_canceled_job(variables, slurm):
    ended, calls = slurm(status=75, **variables)
    assert ended == 75
    assert len(calls) == 1


def test_sweeps_by_index_start_again_what_was_only_interrupted():
    """One trial ends with 75 where it was asked to end, with 2 or 4 where it failed."""
    (job,) = documents('kubernetes_sweep.yaml')
    rules = job['spec']['podFailurePolicy']['rules']
    by_action = {r['action']: r['onExitCodes']['values'] for r in rules if 'onExitCodes' in r}
    assert by_action == {
        'FailIndex': [InputError.status, CheckFailed.status],
        'Ignore': [Preempted.status],
    }
    (container,) = job['spec']['template']['spec']['containers']
    assert '--sweep_index=$(JOB_COMPLETION_INDEX)' in container['args']
    (task,) = documents('skypilot_sweep.yaml')
    assert task['resources']['job_recovery']['recover_on_exit_codes'] == [Preempted.status]
    (study,) = {word for word in container['args'] if word.startswith('--sweep=')}
    assert study == f'--sweep=experiments/{task["envs"]["STUDY"]}/sweep.py'
