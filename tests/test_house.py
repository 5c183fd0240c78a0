"""The house itself: arrows that point down, configs that all run, and what must never be loaded."""

import ast
import importlib
import json
import os
from pathlib import Path

import ml_collections
import numpy as np
import pytest

from gen_jax.run import assemble
from gen_jax.train import train
from gen_jax.writers import read_rows

ROOT = Path(__file__).parent.parent
CONFIGS = sorted(
    path.stem
    for path in (ROOT / 'configs').glob('[!_]*.py')
    if path.stem not in ('common', 'models')
)

# Configs of the same parts as another one, with other sizes, data or options. The smoke of that one
# stands for theirs; all are built at full size.
SAME_PARTS = {
    'dcgan_mnist': 'dcgan_digits',
    'dcgan_stacked_mnist': 'dcgan_digits',
    'ddpm_mnist': 'ddpm_digits',
    'feature_net_cifar': 'feature_net_digits',
    'feature_net_mnist': 'feature_net_digits',
    'gan_25gaussians': 'gan_8gaussians',
    'gpt2_124m': 'gpt_shakespeare_char_cpu',
    'gpt_shakespeare_char': 'gpt_shakespeare_char_cpu',
    'pixelcnn_cifar': 'pixelcnn_digits',
    'r3gan_mnist': 'r3gan_digits',
    'vae_bmnist': 'iwae_bmnist',
    'vdvae_cifar': 'vdvae_digits',
    'wgan_gp_mnist': 'r3gan_digits',
}

# The losses of the first two steps of `:smoke`, seed 0, of configs of several methods.
PINNED = {
    'vae_digits': (2.957674, 2.818423),
    'iwae_bmnist': (0.755445, 0.738197),
    'ddpm_digits': (0.767775, 0.887972),
    'ddpm_cifar': (0.994023, 0.998709),
    'vdvae_digits': (3.224513, 3.274752),
    'vqgan_cifar': (3.076622, 15.346652),
    'fsq_digits': (3.335355, 3.07248),
    # Of the first player by name, the discriminator.
    'dcgan_digits': (1.364385, 1.363228),
    'r3gan_digits': (0.635868, 0.623961),
    'gan_8gaussians': (0.836183, 0.720004),
}
MESSAGE = (
    'The first steps of {name} are others than before. If that was not meant, it is a bug: in the '
    'data, the keys, the initialization, the network, the loss or the optimizer. If it was, runs '
    'from before cannot be repeated: say so in the commit, and pin {losses}.'
)

# Rooms by floor, from the ground up. A room imports from the floors below it.
FLOORS = (
    (
        'types',
        'errors',
        'fields',
        'command_line',
        'files',
        'keys',
        'runtime',
        'parallel',
        'hosts',
        'preemption',
    ),
    (
        *('processes', 'losses', 'augmentations', 'quantizers', 'samplers', 'networks', 'data'),
        *('metrics', 'averaging', 'projection', 'varied'),
    ),
    ('methods', 'huggingface'),
    (
        *('build', 'optim', 'state', 'step', 'checkpoint', 'writers', 'workdir', 'run'),
        *(
            'manifest',
            'divergence',
            'symptoms',
            'features',
            'selection',
            'passport',
            'scores',
            'report',
        ),
        *('trained', 'sweeps'),
    ),
    (
        *('train', 'chores', 'evaluate', 'scoring', 'sample', 'completion', 'given', 'restore'),
        *('coding', 'editing', 'exploring', 'encode'),
        *(
            'compare',
            'export',
            'animate',
            'plan',
            'inspect',
            'replay',
            'certify',
            'sweep',
            'together',
        ),
    ),
)
# The doors between rooms on one floor, every one of them.
DOORS = {
    ('keys', 'types'),
    ('fields', 'errors'),
    ('command_line', 'errors'),
    ('command_line', 'fields'),
    ('parallel', 'types'),
    ('parallel', 'errors'),
    ('parallel', 'runtime'),
    ('hosts', 'types'),
    ('hosts', 'errors'),
    ('preemption', 'errors'),
    ('losses', 'processes'),
    ('quantizers', 'losses'),
    ('samplers', 'processes'),
    ('optim', 'build'),
    ('step', 'state'),
    ('step', 'optim'),
    ('checkpoint', 'state'),
    ('checkpoint', 'manifest'),
    ('divergence', 'state'),
    ('divergence', 'writers'),
    ('trained', 'checkpoint'),
    ('trained', 'run'),
    ('trained', 'selection'),
    ('trained', 'state'),
    ('workdir', 'writers'),
    ('selection', 'writers'),
    ('passport', 'selection'),
    ('report', 'writers'),
    ('sweeps', 'passport'),
    ('sweeps', 'selection'),
    ('sweeps', 'workdir'),
    ('sweeps', 'writers'),
    ('features', 'build'),
    ('scores', 'features'),
    ('scores', 'passport'),
    ('run', 'build'),
    ('run', 'optim'),
    ('run', 'state'),
    ('run', 'step'),
    ('editing', 'coding'),
    ('editing', 'given'),
    ('exploring', 'coding'),
    ('exploring', 'editing'),
    ('exploring', 'given'),
    ('encode', 'coding'),
    ('encode', 'given'),
    ('sample', 'completion'),
    ('sample', 'editing'),
    ('sample', 'exploring'),
    ('sample', 'given'),
    ('scoring', 'sample'),
    ('evaluate', 'scoring'),
    ('chores', 'evaluate'),
    ('chores', 'sample'),
    ('chores', 'scoring'),
    ('train', 'chores'),
    ('train', 'restore'),
    ('sweep', 'train'),
    ('together', 'train'),
    ('together', 'evaluate'),
}


def arrows():
    """(room, imported room, file) for every import of gen_jax inside gen_jax."""
    for path in sorted((ROOT / 'gen_jax').rglob('*.py')):
        room = path.relative_to(ROOT / 'gen_jax').with_suffix('').parts[0]
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or '').startswith('gen_jax'):
                names = node.module.split('.')[1:2] or [alias.name for alias in node.names]
            elif isinstance(node, ast.Import):
                names = [a.name.split('.')[1] for a in node.names if a.name.startswith('gen_jax.')]
            else:
                continue
            for name in names:
                yield room, name, path.name


def test_arrows_point_down():
    floor = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
    up = [
        (room, other, file)
        for room, other, file in arrows()
        if room != other and floor[other] >= floor[room] and (room, other) not in DOORS
    ]
    assert up == []


def test_every_door_is_used():
    assert {(a, b) for a, b, _ in arrows()} >= DOORS


def test_only_one_file_says_pmap():
    says = [
        path.name
        for path in (ROOT / 'gen_jax').rglob('*.py')
        if any(
            isinstance(node, ast.Attribute) and node.attr == 'pmap'
            for node in ast.walk(ast.parse(path.read_text()))
        )
    ]
    assert says == ['parallel.py']


def test_nothing_falls_back_in_silence():
    """One source of defaults: `config.get(name, default)` would hide a typo."""
    for path in (ROOT / 'gen_jax').rglob('*.py'):
        assert 'config.get(' not in path.read_text(), path


@pytest.mark.parametrize('name', CONFIGS)
def test_every_config_builds_at_full_size(name):
    config = importlib.import_module(f'configs.{name}').get_config()
    if config.data.source == 'folder':  # of whoever runs it
        config.data.source = 'synthetic'
    run = assemble(config)
    assert config.is_locked
    assert set(run.template.params) == set(config.networks)


@pytest.mark.parametrize('name', CONFIGS)
def test_every_field_of_a_config_can_be_set(name):
    """A flag needs the type of what it sets, also where there is nothing yet."""

    def check(section, path: str) -> None:
        for field in section:
            here = f'{path}.{field}'
            assert section.get_type(field) is not type(None), here
            if isinstance(section[field], ml_collections.ConfigDict):
                check(section[field], here)

    check(importlib.import_module(f'configs.{name}').get_config(), 'config')


def check_run(name: str, folder: Path) -> None:
    """Every file that a run of three steps should leave, and its first losses."""
    rows = read_rows(folder / 'metrics.jsonl')
    assert [row['step'] for row in rows] == [1, 2, 3, 3]
    losses = [value for row in rows[:3] for key, value in row.items() if key.endswith('/loss')]
    assert len(losses) >= 3 and np.all(np.isfinite(losses))
    player = next(iter(importlib.import_module(f'configs.{name}').get_config().networks))
    first = tuple(row[f'{player}/loss'] for row in rows[: len(PINNED.get(name, ()))])
    assert np.allclose(first, PINNED.get(name, ()), rtol=1e-4), MESSAGE.format(
        name=name, losses=first
    )
    of_data = {'eval/bits_per_dim', 'eval/nats_per_dim', 'eval/perplexity', 'eval/accuracy'}
    of_others = {'eval/mse', 'eval/latent_nats_per_dim', 'eval/told_apart'}
    assert {'eval/loss', 'eval/discriminator_loss'} & rows[3].keys()
    assert (of_data | of_others) & rows[3].keys()
    run = json.loads((folder / 'run.json').read_text())
    assert run['starts'][0]['devices'].startswith('8 x')
    if importlib.import_module(f'configs.{name}').get_config().train.sample_every is not None:
        (sample,) = (folder / 'samples').glob('step_00000003.*')
        assert sample.stat().st_size > 100
    assert list(folder.glob('events.out.tfevents.*'))


def test_what_is_pinned_is_there():
    assert PINNED.keys() <= set(CONFIGS) - SAME_PARTS.keys()


@pytest.mark.parametrize('name', SAME_PARTS)
def test_what_another_one_stands_for_has_its_parts(name):
    own, other = (
        importlib.import_module(f'configs.{config}').get_config('smoke')
        for config in (name, SAME_PARTS[name])
    )
    assert own.method.name == other.method.name
    assert {player: section.name for player, section in own.networks.items()} == {
        player: section.name for player, section in other.networks.items()
    }


@pytest.mark.parametrize('name', sorted(set(CONFIGS) - SAME_PARTS.keys()))
def test_every_config_smokes(name, tmp_path, compiled_quickly):
    """On eight devices, in this process, which has loaded everything already."""
    train(importlib.import_module(f'configs.{name}').get_config('smoke'), tmp_path)
    check_run(name, tmp_path)


@pytest.mark.parametrize(
    ('name', 'strategy'), [('gpt_shakespeare_char_cpu', 'jit'), ('ddpm_8gaussians', 'pmap')]
)
def test_configs_smoke_through_the_door(name, strategy, launch, tmp_path):
    flags = (
        f'--config=configs/{name}.py:smoke',
        f'--workdir={tmp_path}',
        f'--config.parallel.strategy={strategy}',
    )
    done = launch(*flags, devices=8)
    assert done.returncode == 0, done.stderr
    check_run(name, tmp_path)


def test_training_never_loads_tensorflow_or_torch(launch, tmp_path):
    """Packages of those names are planted that leave a mark when anything tries to import them."""
    for name in ('tensorflow', 'torch'):
        (tmp_path / 'trap' / name).mkdir(parents=True)
        (tmp_path / 'trap' / name / '__init__.py').write_text(
            f'import pathlib, traceback\n'
            f'stack = "".join(traceback.format_stack())\n'
            f'pathlib.Path({str(tmp_path / name)!r}).write_text(stack)\n'
            f'raise ImportError("a trap")\n'
        )
    path = os.pathsep.join([str(tmp_path / 'trap'), os.environ.get('PYTHONPATH', '')])
    done = launch(
        '--config=configs/vqvae_cifar.py:smoke', f'--workdir={tmp_path / "run"}', PYTHONPATH=path
    )
    assert done.returncode == 0, done.stderr
    for name in ('tensorflow', 'torch'):
        assert not (tmp_path / name).exists(), (tmp_path / name).read_text()
