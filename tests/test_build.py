"""From a config's names to code, and the messages where there is none of that name."""

import importlib

import pytest

from gen_jax import build
from gen_jax.errors import InputError
from gen_jax.methods.method import Method
from gen_jax.types import DataSpec

SPEC = DataSpec((8, 8, 1), levels=17, num_classes=10)


@pytest.fixture
def config():
    return importlib.import_module('configs.ddpm_digits').get_config('smoke').unlock()


def test_a_config_becomes_a_method(config):
    assert isinstance(build.method(config, SPEC), Method)


def test_every_network_computes_in_the_precision_of_the_config(config, monkeypatch):
    def method(networks, spec, process, **options):
        return {player: make().dtype for player, make in networks.items()}

    monkeypatch.setattr('gen_jax.methods.diffusion.diffusion', method)
    config.networks.critic = {'name': 'mlp.MLP'}
    config.precision = 'bfloat16'
    assert build.method(config, SPEC) == {'model': 'bfloat16', 'critic': 'bfloat16'}


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        (
            'unet.UNet',
            r'^networks\.autoencoder\.name: UNet is not for .* has no shape,',
        ),
        (
            'autoencoder.ConvAutoencoder',
            r'^networks\.autoencoder\.name: ConvAutoencoder is .* needs code_channels$',
        ),
    ],
)
def test_a_network_of_another_kind_is_refused(name, message):
    config = importlib.import_module('configs.vdvae_digits').get_config('smoke').unlock()
    config.networks.autoencoder = {'name': name}
    with pytest.raises(InputError, match=message):
        build.method(config, SPEC)


def remove(section: str, name: str):
    def change(config):
        owner = config
        for part in section.split('.'):
            owner = owner[part]
        del owner[name]

    return change


def put(field: str, value):
    return lambda config: config.update_from_flattened_dict({field: value})


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (remove('method', 'name'), r'^method\.name: it must name'),
        (remove('method.process', 'name'), r'^method\.process\.name: it must name'),
        (remove('networks.model', 'name'), r'^networks\.model\.name: it must name'),
        (remove('networks', 'model'), r'^networks: has sections for \[\]'),
        (remove('method', 'process'), r'^method\.process: diffusion needs it'),
        (put('method.name', 'diffusion.gan'), r'^method\.name: gen_jax\.methods\.diffusion has no'),
        (put('method.name', 'boltzmann.machine'), r"^method\.name: no 'boltzmann\.machine'"),
        (put('method.name', 'boltzmann'), r"^method\.name: no 'boltzmann'; it must name a 'module"),
        (put('method.name', 'gan'), r"^method\.name: no 'gan'; did you mean 'gan\.gan'\?$"),
        (put('networks.model.name', 'UNet'), r"no 'UNet'; did you mean 'unet\.UNet'\?$"),
        (
            put('networks.model.name', 'mpl.Block'),
            r"no 'mpl\.Block'; did you mean 'autoencoder\.Block' or 'discriminator\.Block' or ",
        ),
        # What a module is made of is not for a config, also where an annotation names what is.
        (put('networks.model.name', 'gan_mlp.Gen'), r"no 'Gen'; it has Discriminator, Generator$"),
        (put('networks.model.name', 'transformer.GPT'), r"no 'GPT'; it has Transformer$"),
        (put('method.process.name', 'gaussian.cubic'), r'has no .cubic.; it has .*cosine'),
        (put('method.color', 3), r"^method\.color: diffusion takes no 'color'; it takes process"),
        (put('method.process.beta', 3), r"^method\.process\.beta: cosine takes no 'beta'"),
        (put('networks.model.width', 3), r"^networks\.model\.width: UNet takes no 'width'"),
        (put('networks.model.num_classes', 3), r'^networks\.model\.num_classes: the data decides'),
        (put('networks.model.dtype', 'bfloat16'), r'^networks\.model\.dtype: `precision` decides'),
        (
            put('precision', 'float8'),
            r"^precision: no 'float8'; choose from float32, bfloat16, float16$",
        ),
        (put('networks.critic', {'name': 'unet.UNet'}), r"^networks: has .*'critic'"),
    ],
)
def test_what_does_not_exist_is_named(change, message, config):
    change(config)
    with pytest.raises(InputError, match=message):
        build.method(config, SPEC)


def test_the_name_of_a_bound_function_is_that_of_the_function(config):
    sample = build.method(config, SPEC).sample
    with pytest.raises(InputError, match=r"^sample\.options\.seed: sample takes no 'seed'"):
        build.check_keywords(sample, {'seed': 1}, 'sample.options')


@pytest.mark.parametrize(
    ('name', 'field', 'value', 'message'),
    [
        ('vqvae_cifar', 'method.quantizer.num_codes', 1, 'num_codes: 1 must be a whole number'),
        ('vqvae_cifar', 'method.quantizer.name', 'codebook.kmeans', 'name: .* has no .kmeans.'),
        ('latent_flow_cifar', 'method.autoencoder.quantizer.depth', 0, 'depth: 0 must be'),
        ('vqgan_cifar', 'method.adversarial.name', 'adversarial.wgan', 'name: .*hinge'),
        ('vqgan_cifar', 'method.adversarial.name', 'hinge', "name: .* mean 'adversarial.hinge'"),
    ],
)
def test_parts_of_parts_are_named_by_their_sections(name, field, value, message):
    config = importlib.import_module(f'configs.{name}').get_config('smoke')
    config.update_from_flattened_dict({field: value})
    section = field.rpartition('.')[0].replace('.', r'\.')
    with pytest.raises(InputError, match=rf'^{section}\.{message}'):
        build.method(config, DataSpec((32, 32, 3), levels=256, num_classes=10))
