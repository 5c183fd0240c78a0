"""Plans: the paper's counts, and nothing read or written."""

import importlib

import pytest

from gen_jax.errors import InputError
from gen_jax.plan import plan, show
from gen_jax.run import assemble
from gen_jax.state import count_parameters


def test_the_cifar_network_has_the_papers_parameters():
    run = assemble(importlib.import_module('configs.ddpm_cifar').get_config())
    assert count_parameters(run.template.params['model']) == 35_746_307


def test_a_plan_reads_nothing_and_writes_nothing(launch, tmp_path):
    done = launch(
        '--config=configs/vae_bmnist.py:smoke',
        '--config.data.source=tfds',
        f'--config.data.data_dir={tmp_path / "data"}',
        f'--workdir={tmp_path / "run"}',
        '--mode=plan',
    )
    assert done.returncode == 0, done.stderr
    for text in ('parameters of autoencoder', 'GFLOP', 'MiB', 'compile time', 'mnist', 'absent'):
        assert text in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_operations_grow_with_the_batch_and_memory_is_counted():
    config = importlib.import_module('configs.ddpm_8gaussians').get_config('smoke')
    small = plan(config)
    with config.unlocked():
        config.data.batch_size = 64
    large = plan(config)
    # Without the batch's share the optimizer would be all there is.
    assert large['flops_per_step'] > 5 * small['flops_per_step']
    assert large['peak_bytes'] > small['peak_bytes'] > 4 * 4 * small['parameters']['model'] / 8


def test_the_longest_name_stands_apart_from_its_number(capsys):
    config = importlib.import_module('configs.ddpm_8gaussians').get_config('smoke')
    facts = {'parameters': {'discriminator': 1584}, 'flops_per_step': 1e9, 'peak_bytes': 1}
    show(config, facts | {'compile_seconds': 1.0}, assemble(config).parallel)
    lines = capsys.readouterr().out.splitlines()
    assert 'parameters of discriminator  1,584' in lines
    assert 'operations per step          1.0 GFLOP' in lines


def test_a_bad_config_is_refused():
    config = importlib.import_module('configs.ddpm_digits').get_config('smoke')
    config.train.log_every = 0
    with pytest.raises(InputError, match=r'train.log_every: 0 must be at least 1'):
        plan(config)
