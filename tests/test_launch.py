"""The door: bad input is one line and status 2, and leaves nothing behind."""

import errno
import json

import pytest

import launch as door
from configs import ddpm_digits, stylegan2_ada_cifar
from gen_jax import command_line
from gen_jax.errors import NotWritten
from gen_jax.workdir import config_values

SMOKE = '--config=configs/ddpm_digits.py:smoke'

BAD = {
    'no config': ((), '--config: which run?'),
    'config file absent': (('--config=configs/nope.py',), "cannot load 'configs/nope.py'"),
    'config file absent, and a field': (
        ('--config=configs/nope.py', '--config.seed=3'),
        "--config: cannot load 'configs/nope.py'; give a file like",
    ),
    'config file nearly': (
        ('--config', 'configs/r3gan_digit.py:smoke', '--config.seed=3'),
        "cannot load 'configs/r3gan_digit.py'; did you mean configs/r3gan_digits.py?",
    ),
    'config file without its folder': (('--config=ddpm_digits',), 'mean configs/ddpm_digits.py?'),
    'config file of another kind': (
        ('--config=README.md',),
        "--config: cannot load 'README.md'; give a file like configs/ddpm_digits.py",
    ),
    'config folder': (
        ('--config=configs', '--config.seed=1'),
        "--config: cannot load 'configs'; give a file like configs/ddpm_digits.py",
    ),
    'config file without a config': (
        ('--config=configs/common.py', '--config.seed=1'),
        "--config: cannot load 'configs/common.py': module 'config_config' has no attribute",
    ),
    'a field of no config': (
        ('--config.seed=3',),
        '--config.seed: fields are set beside the --config that has them',
    ),
    'config argument': (('--config=configs/ddpm_digits.py:tiny',), "no argument 'tiny'"),
    'unknown field': (
        (SMOKE, '--config.data.batchsize=3'),
        "--config.data.batchsize: there is no field 'batchsize' in data; did you mean 'batch_s",
    ),
    'unknown field like none': (
        (SMOKE, '--config.seed=1', '--config.optim.model.lr=1'),
        "optim.model.lr: there is no field 'lr' in optim.model; there are clip_norm, decay_",
    ),
    'field of no section': (
        (SMOKE, '--config.seed.x=1'),
        "--config.seed.x: there is no field 'x' in seed, which is no section",
    ),
    'unknown section': ((SMOKE, '--config.zzz=3'), "--config.zzz: there is no field 'zzz'"),
    'no whole number': (
        (SMOKE, '--config.data.batch_size=1e3'),
        "--config.data.batch_size: '1e3' must be a whole number",
    ),
    'no whole number of a flag': ((SMOKE, '--num=x'), "--num: 'x' must be a whole number"),
    'no number': (
        (SMOKE, '--config.ema.decay=high'),
        "ema.decay: 'high' must be a number",
    ),
    'neither true nor false': (
        (SMOKE, '--config.method.class_conditional=maybe'),
        "--config.method.class_conditional: 'maybe' must be True or False",
    ),
    'a word for a section': (
        (SMOKE, '--config.optim=adam'),
        "--config.optim: 'adam' must be a section; set one of its fields instead",
    ),
    'not a number': (
        (SMOKE, '--config.optim.model.clip_norm=nan'),
        '--config.optim.model.clip_norm: nan must be a finite number',
    ),
    'infinite': ((SMOKE, '--config.ema.decay=-inf'), '--config.ema.decay: -inf must be a finite'),
    'infinite among several': (
        (SMOKE, '--config.ema.lengths=(0.1, 1e999)'),
        '--config.ema.lengths: inf must be a finite number',
    ),
    'unknown flag': ((SMOKE, '--nun=3'), '--nun: there is no such flag; did you mean --num?'),
    'unknown flag like none': (
        (SMOKE, '--lr=3'),
        '--lr: there is no such flag; see --help; fields of the config are set with --config.<',
    ),
    'mode alone': ((SMOKE, 'train'), "'train' is no flag; did you mean --mode=train?"),
    'flag without dashes': ((SMOKE, 'num=3'), "'num=3' is no flag; did you mean --num=3?"),
    'field without dashes': ((SMOKE, 'config.seed=3'), 'did you mean --config.seed=3?'),
    'no flag': ((SMOKE, 'foo'), "'foo' is no flag; see --help; fields of the config"),
    'unknown mode': ((SMOKE, '--mode=trian'), 'train|sample|evaluate|encode|compare|export|plan'),
    'flag of another mode': ((SMOKE, '--num=3'), '--num: only --mode=sample, encode takes it'),
    'checkpoint of a mode that has none': (
        (SMOKE, '--checkpoint=best'),
        '--checkpoint: only --mode=sample, encode, evaluate, export takes it, not --mode=train',
    ),
    'format of a mode that has none': (
        (SMOKE, '--format=huggingface'),
        '--format: only --mode=export takes it, not --mode=train',
    ),
    'format for another kind of model': (
        (SMOKE, '--mode=export', '--format=huggingface'),
        '--format: huggingface is for a model that is one transformer over tokens',
    ),
    'nothing to restore': (
        (SMOKE, '--config.restore.model=/no/such'),
        'restore.model: /no/such: there is no such folder',
    ),
    'workdirs of a mode that has none': (
        (SMOKE, '--mode=evaluate', '--workdirs=a,b'),
        '--workdirs: only --mode=compare takes it',
    ),
    'one run to compare': (('--mode=compare', '--workdirs=a'), 'two or more evaluated runs'),
    'weights that are not there': (
        (SMOKE, '--config.evaluate.scores.features.weights=none.safetensors'),
        'evaluate.scores.features.weights: there is no file none.safetensors',
    ),
    'num=0': ((SMOKE, '--mode=sample', '--num=0'), '--num: 0 must be at least 1'),
    'out of another kind': ((SMOKE, '--mode=sample', '--out=x.gif'), 'end in .npz or .png'),
    'label out of range': ((SMOKE, '--mode=sample', '--label=10'), 'from 0 to 9'),
    'more steps than the chain': ((SMOKE, '--mode=sample', '--steps=51'), '1 to 50'),
    'sampling steps of the config': (
        (SMOKE, '--config.sample.options.num_steps=51'),
        'sample.options.num_steps: 51 is out of range',
    ),
    'eta': ((SMOKE, '--config.sample.options.eta=2.0'), 'sample.options.eta: 2.0 must be from 0'),
    'guidance without labels': (
        ('--config=configs/ddpm_cifar.py:smoke', '--config.sample.options.guidance=2.0'),
        'sample.options.guidance: it needs class_conditional',
    ),
    'no terms of the bound': (
        (SMOKE, '--config.evaluate.options.bound_terms=0'),
        'evaluate.options.bound_terms: 0 of 49',
    ),
    'a field of a study': (
        ('--mode=sweep', '--sweep=sweep.py', '--config.train.num_steps=5'),
        '--config.train.num_steps: fields are set beside the --config that has them; '
        'those of a study in its sweep.py',
    ),
    'None where there is no field': ((SMOKE, '--config.data.nam=None'), "no field 'nam'"),
    'None for a number': ((SMOKE, '--config.train.num_steps=None'), 'train.num_steps: None'),
    'None, and then a number': (
        (SMOKE, '--config.train.num_steps=None', '--config.train.num_steps=0'),
        'train.num_steps: 0 must be at least 1',
    ),
    'None for an argument': (
        (SMOKE, '--config.optim.model.learning_rate=None'),
        'optim.model.learning_rate: None; it needs a value',
    ),
    'None for a section': (
        (SMOKE, '--config.train=None'),
        "--config.train: 'None' must be a section; set one of its fields instead",
    ),
    'None for a section in a section': (
        (SMOKE, '--config.optim.model=None'),
        "--config.optim.model: 'None' must be a section",
    ),
    'None for a method in a method': (
        ('--config=configs/latent_flow_digits.py:smoke', '--config.method.inner=None'),
        "method.inner.name: it must name a 'module.Name' under gen_jax/methods",
    ),
    'None for a part that is needed': (
        (SMOKE, '--config.method.process=None'),
        'method.process: None; it needs a value',
    ),
    'never trained': ((SMOKE, '--mode=sample'), 'has no checkpoints; train first'),
    'never trained, evaluate': ((SMOKE, '--mode=evaluate'), 'has no checkpoints; train first'),
    'network name': ((SMOKE, '--config.networks.model.name=unet.Unet'), '; it has UNet'),
    'network module': ((SMOKE, '--config.networks.model.name=unett.UNet'), "mean 'unet.UNet'?"),
    'precision': ((SMOKE, '--config.precision=float8'), "precision: no 'float8'; choose from"),
    'no precision': ((SMOKE, '--config.precision=None'), 'precision: no None; choose from float32'),
    'precision of a network': (
        (SMOKE, '--config.networks.model.dtype=float16'),
        "no field 'dtype'",
    ),
    'no levels': (
        (SMOKE, '--config.networks.model.channel_multipliers=()'),
        'networks.model.channel_multipliers: ()',
    ),
    'groups': ((SMOKE, '--config.networks.model.num_groups=3'), 'networks.model.num_groups: '),
    'no groups': ((SMOKE, '--config.networks.model.num_groups=0'), 'num_groups: 0'),
    'dropout': ((SMOKE, '--config.networks.model.dropout=1.0'), 'dropout: 1.0'),
    'odd channels': ((SMOKE, '--config.networks.model.channels=7'), 'channels: 7 must be even'),
    'seed': ((SMOKE, '--config.seed=3000000000'), 'seed: 3000000000'),
    'no chain': ((SMOKE, '--config.method.process.num_steps=0'), 'num_steps: 0'),
    'no sampling steps': ((SMOKE, '--mode=sample', '--steps=0'), 'sample.options.num_steps: 0'),
    'label dropout': ((SMOKE, '--config.method.label_dropout=1.5'), 'label_dropout: 1.5'),
    'prediction': ((SMOKE, '--config.method.prediction=noise'), 'choose from epsilon, x0'),
    'sampler': ((SMOKE, '--config.sample.options.sampler=dimm'), 'choose from ancestral, ddim'),
    'negative steps': ((SMOKE, '--config.train.num_steps=-1'), 'train.num_steps: -1'),
    'ema': ((SMOKE, '--config.ema.decay=1.0'), 'ema.decay: 1.0'),
    'no length': ((SMOKE, '--config.ema.lengths=()'), 'ema.lengths: give at least one'),
    'None for lengths': (
        (SMOKE, '--config.ema.snapshot_every=None', '--config.ema.lengths=None'),
        'ema.lengths: None; it needs a value',
    ),
    'length': ((SMOKE, '--config.ema.lengths=("a",)'), "ema.lengths: 'a' must be above 0"),
    'turns that do not divide the batch': (
        ('--config=configs/gan_8gaussians.py:smoke', '--config.method.discriminator_steps=3'),
        'data.batch_size: 8 examples do not divide into the 3 parts',
    ),
    'an image that does not halve so often': (
        ('--config=configs/dcgan_digits.py', '--config.networks.discriminator.num_levels=4'),
        'networks.discriminator.num_levels: ',
    ),
    'parts of a plan': (
        (SMOKE, '--mode=plan', '--config.train.accumulate=3'),
        'data.batch_size: ',
    ),
    'strategy': ((SMOKE, '--config.parallel.strategy=xmap'), "neither 'jit' nor 'pmap'"),
    'source': ((SMOKE, '--config.data.source=web'), 'tfds, embedded, folder, synthetic'),
    'no such folder': (
        (SMOKE, '--config.data.source=folder', '--config.data.data_dir=/no/such'),
        'data.data_dir',
    ),
}


@pytest.mark.parametrize('case', BAD)
def test_bad_input_is_one_line_and_status_two(case, launch, tmp_path):
    arguments, message = BAD[case]
    done = launch(*arguments, f'--workdir={tmp_path / "run"}')
    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith('error: '), done.stderr
    assert message in lines[0]
    assert not (tmp_path / 'run').exists()


def test_a_part_of_a_method_may_be_left_out():
    config = stylegan2_ada_cifar.get_config('smoke')
    command_line._set_to_none(config, '--config.method.augmentation=None')
    assert config.method.augmentation is None


def test_a_config_file_that_is_wrong_itself(launch, tmp_path):
    file = tmp_path / 'mine.py'
    head = 'from configs import common\ndef get_config():\n    config = common.get_base().lock()'
    for body, message in (
        ('raise KeyError', 'KeyError()'),
        ('config.data.batchsize = 3', 'Did you mean "batch_size" instead of "batchsize"?'),
        ('import nothing_of_this_name', "No module named 'nothing_of_this_name'"),
        ('x = (', "'(' was never closed (mine.py, line 4)"),
    ):
        file.write_text(f'{head}\n    {body}\n    return config')
        done = launch(f'--config={file}', '--config.seed=1')
        assert done.returncode == 2
        assert done.stderr == f"error: --config: cannot load '{file}': {message}\n"


def test_a_batch_that_does_not_divide_by_the_devices(launch, tmp_path):
    done = launch(SMOKE, '--config.data.batch_size=12', f'--workdir={tmp_path / "run"}', devices=8)
    assert done.returncode == 2
    assert 'error: data.batch_size: 12 examples cannot be split over 8 device(s)' in done.stderr
    assert not (tmp_path / 'run').exists()


def test_missing_data_names_the_set_the_folder_and_the_way_out(launch, tmp_path):
    done = launch(
        '--config=configs/ddpm_mnist.py',
        f'--config.data.data_dir={tmp_path / "data"}',
        f'--workdir={tmp_path / "run"}',
        # No proxy answers there: this is a machine without a network, wherever the test runs.
        https_proxy='http://127.0.0.1:9',
        http_proxy='http://127.0.0.1:9',
    )
    assert done.returncode == 2
    assert done.stderr.count('\n') == 1
    assert "'mnist'" in done.stderr and str(tmp_path / 'data') in done.stderr
    assert not (tmp_path / 'run').exists() and not (tmp_path / 'data').exists()


def test_a_workdir_that_cannot_be_written(launch, tmp_path):
    (tmp_path / 'file').write_text('in the way')
    done = launch(SMOKE, f'--workdir={tmp_path / "file" / "run"}')
    assert done.returncode == 2
    assert done.stderr.count('\n') == 1
    assert '--workdir' in done.stderr and 'cannot be written' in done.stderr


def test_a_workdir_of_a_different_config(launch, tmp_path):
    points = '--config=configs/ddpm_8gaussians.py:smoke'
    done = launch(points, f'--workdir={tmp_path}')
    assert done.returncode == 0 and "data.source is 'synthetic'" in done.stderr
    before = {path: path.read_bytes() for path in tmp_path.rglob('*') if path.is_file()}
    done = launch(points, f'--workdir={tmp_path}', '--config.optim.model.learning_rate=0.5')
    assert done.returncode == 2
    assert 'optim.model.learning_rate is 0.001 there and 0.5 here' in done.stderr
    done = launch(points, f'--workdir={tmp_path}', '--config.train.num_steps=3')
    assert done.returncode == 0 and 'step 3 is already done' in done.stderr
    after = {path: path.read_bytes() for path in before if path.suffix == '.jsonl'}
    assert all(before[path] == after[path] for path in after)
    # The folder alone says which run it is.
    assert launch(f'--workdir={tmp_path}', '--mode=sample', '--num=2').returncode == 0
    for arguments in (
        (f'--workdir={tmp_path / "none"}',),
        (f'--workdir={tmp_path}', '--mode=certify'),
    ):
        done = launch(*arguments)
        assert done.returncode == 2 and '--config: which run?' in done.stderr


@pytest.mark.parametrize('gone', ['train.stop_after_symptoms', 'restore'])
def test_a_folder_of_another_version(gone, launch, tmp_path):
    values = config_values(ddpm_digits.get_config('smoke'))
    *section, field = gone.split('.')
    del (values[section[0]] if section else values)[field]
    (tmp_path / 'config.json').write_text(json.dumps(values))
    done = launch(f'--workdir={tmp_path}')
    assert done.returncode == 2 and done.stderr.count('\n') == 1
    assert f'by another version: its config has no {gone}; start it with --config' in done.stderr


def test_a_full_disk_is_one_line(monkeypatch, capsys):
    def fails(*_, **__):
        try:
            raise OSError(errno.ENOSPC, 'No space left on device', '/runs/x')
        except OSError as error:
            raise RuntimeError('while a checkpoint was written') from error

    monkeypatch.setattr(door.app, 'run', fails)
    with pytest.raises(SystemExit) as end:
        door.run()
    assert end.value.code == NotWritten.status
    assert capsys.readouterr().err == (
        'error: /runs/x: No space left on device; nothing is lost: when that is mended the same '
        'command goes on\n'
    )


def test_an_interrupt_before_the_flags_are_read(monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(door.app, 'run', interrupted)
    with pytest.raises(SystemExit) as end:
        door.run()
    assert end.value.code == 130 and capsys.readouterr().err == 'interrupted\n'


def test_what_was_not_foreseen_is_raised(monkeypatch):
    monkeypatch.setattr(door.app, 'run', lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        door.run()


def test_a_wrong_value_is_named_before_a_folder_of_another_config(launch, tmp_path):
    (tmp_path / 'config.json').write_text('{}')
    done = launch(SMOKE, f'--workdir={tmp_path}', '--config.ema.decay=1.5')
    assert done.returncode == 2 and 'ema.decay: 1.5 must be' in done.stderr
