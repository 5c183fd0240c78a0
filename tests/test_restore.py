"""A run that begins with weights: those, and no others, wherever a parameter is kept."""

import importlib
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from tokenizers import Tokenizer, models

from gen_jax import restore
from gen_jax.errors import InputError
from gen_jax.export import export
from gen_jax.run import assemble, initialize
from gen_jax.train import train
from gen_jax.workdir import facts
from gen_jax.writers import read_rows


@pytest.fixture(scope='module')
def trained(tokens_config, tokens_run, tmp_path_factory):
    """A workdir, its last state, and the folder of Hugging Face that was exported from it."""
    folder, state = tokens_run
    out = str(tmp_path_factory.mktemp('exported'))
    return folder, state, export(tokens_config(), folder, format='huggingface', out=out)


def restoring(config, folder):
    config.restore.model = str(folder)
    return config


def equal(a, b) -> bool:
    return all(jax.tree.leaves(jax.tree.map(lambda x, y: np.array_equal(x, y), a, b)))


@pytest.mark.parametrize('kind', ['workdir', 'huggingface'])
def test_step_0_begins_with_them_and_with_a_fresh_optimizer(kind, trained, tokens_config, tmp_path):
    workdir, state, folder = trained
    config = restoring(tokens_config(), workdir if kind == 'workdir' else folder)
    config.parallel.update(data=1, fsdp=8)
    run = assemble(config)
    begun = initialize(run, 0, restore.weights(run, config, tmp_path)[0])
    fresh = initialize(run, 0)
    average = jax.device_get(state.ema_params)
    assert not equal(average, fresh.params) and not equal(average, state.params)
    for params in (begun.params, begun.ema_params, *begun.power_ema):
        assert equal(params, average)
    assert len(begun.power_ema) == 2
    rest = {'params': None, 'ema_params': None, 'power_ema': (), 'key': None}
    assert equal(begun.replace(**rest), fresh.replace(**rest))
    places = [jax.tree.map(lambda leaf: leaf.sharding, tree) for tree in (begun, run.template)]
    assert places[0] == places[1]
    split = begun.params['model']['block_0']['in']['kernel'].sharding
    assert not split.is_fully_replicated


def test_a_scanned_network_takes_them_from_one_that_is_not(trained, tokens_config, tmp_path):
    _, state, folder = trained
    config = restoring(tokens_config(scan=True, dropout=0.1, hidden=64), folder)
    run = assemble(config)
    found = restore.weights(run, config, tmp_path)[0]['model'].params
    average = jax.device_get(state.ema_params['model'])
    for i in range(2):
        block = jax.tree.map(lambda leaf, i=i: leaf[i], found['blocks'])
        assert equal(block, average[f'block_{i}'])


def test_a_run_that_goes_on_asks_for_them_no_more(trained, tokens_config, tmp_path, capsys):
    folder = shutil.copytree(trained[2], tmp_path / 'model')
    config, workdir = restoring(tokens_config(), folder), tmp_path / 'run'
    config.train.num_steps = 1
    train(config, workdir)
    assert f'model begins with the weights in {folder}' in capsys.readouterr().err
    shutil.rmtree(folder)
    config.train.num_steps = 2
    state = train(config, workdir)
    assert int(state.step) == 2
    assert 'begins with' not in capsys.readouterr().err
    assert facts(workdir)['begins_with'] == {'model': {'folder': str(folder)}}
    # What has learned for two steps reads these digits better than what begins.
    first = read_rows(workdir / 'metrics.jsonl')[0]['model/loss']
    (start,) = (row for row in read_rows(trained[0] / 'metrics.jsonl') if row['step'] == 1)
    assert first < start['model/loss'] - 0.05


def test_nothing_is_written_where_they_cannot_be_had(tokens_config, tmp_path):
    config, workdir = restoring(tokens_config(), tmp_path / 'gone'), tmp_path / 'run'
    with pytest.raises(InputError, match=r'^restore.model: .*gone: there is no such folder; name'):
        train(config, workdir)
    assert not workdir.exists()


@pytest.mark.parametrize(
    ('network', 'message'),
    [
        ({'width': 32}, 'width is 32 here and 16 there'),
        ({'num_layers': 3}, 'num_layers is 3 here and 2 there'),
        ({'num_heads': 2}, 'num_heads is 2 here and 4 there'),
        ({'norm_epsilon': 1e-6}, 'norm_epsilon is 1e-06 here and 1e-05 there'),
    ],
)
def test_a_model_of_other_fields_is_refused(network, message, trained, tokens_config, tmp_path):
    config = restoring(tokens_config(**network), trained[2])
    with pytest.raises(InputError, match=rf'^restore.model: .*{message}.*; set here what is there'):
        restore.weights(assemble(config), config, tmp_path)


@pytest.mark.parametrize(
    ('network', 'message'),
    [
        ({'width': 32}, 'networks.model.width is 16 there and 32 here'),
        ({'num_heads': 2}, 'networks.model.num_heads is 4 there and 2 here'),
        ({'scan': True}, "networks.model.scan is 'absent' there and True here"),
    ],
)
def test_a_run_of_another_network_is_refused(network, message, trained, tokens_config, tmp_path):
    config = restoring(tokens_config(**network), trained[0])
    with pytest.raises(InputError, match=rf'^restore.model: .*: it has another network: {message}'):
        restore.weights(assemble(config), config, tmp_path)


def test_a_run_of_other_data_is_refused(trained, tokens_config, tmp_path):
    config = restoring(tokens_config(), trained[0])
    with config.unlocked():
        config.method.class_conditional = True  # a token for each class
    with pytest.raises(
        InputError, match=r'^restore.model: .*tokens/embedding is float32\[18, 16\]'
    ):
        restore.weights(assemble(config), config, tmp_path)


def test_where_the_newest_checkpoint_is_damaged_the_one_before_is_taken(
    trained, tokens_config, tmp_path, capsys
):
    folder = shutil.copytree(trained[0], tmp_path / 'run')
    (folder / 'checkpoints' / '2' / 'manifest' / 'metadata').write_text('{}')
    config = restoring(tokens_config(), folder)
    run = assemble(config)
    given, origins = restore.weights(run, config, tmp_path / 'new')
    found = given['model'].params
    assert origins == {'model': {'folder': str(folder), 'step': 1, 'num_steps': 2}}
    warnings = capsys.readouterr().err
    assert 'checkpoint 2 is damaged' in warnings
    assert f'restore.model: {folder} is at step 1 of 2' in warnings
    assert not equal(found, trained[1].ema_params['model'])
    shutil.rmtree(folder / 'checkpoints' / '2')
    shutil.rmtree(folder / 'checkpoints' / '1')
    with pytest.raises(InputError, match=r'^restore.model: .*: it has no finished checkpoint yet'):
        restore.weights(run, config, tmp_path / 'new')


def test_other_players_and_other_networks_are_named(trained, tokens_config, tmp_path):
    config = tokens_config()
    with config.unlocked():
        config.restore.critic = str(trained[2])
    with pytest.raises(InputError, match=r'^restore.critic: .* no such player; it has model'):
        restore.weights(assemble(config), config, tmp_path)
    from configs import ddpm_digits

    config = restoring(ddpm_digits.get_config('smoke'), trained[2])
    with pytest.raises(InputError, match=r'only a transformer over tokens is read from others'):
        restore.weights(assemble(config), config, tmp_path)


def test_text_of_another_tokenizer_is_refused(trained, tokens_config, tmp_path):
    """Numbers of tokens are all that the network knows of them."""
    words = {f'w{i}': i for i in range(18)}
    other = {f'w{i}': 17 - i for i in range(18)}
    config = restoring(tokens_config(), shutil.copytree(trained[2], tmp_path / 'model'))
    run = assemble(config)
    run = run._replace(spec=run.spec._replace(tokenizer=made(words)))
    restore.weights(run, config, tmp_path)  # no tokenizer.json: nothing to compare with
    path = Path(config.restore.model) / 'tokenizer.json'
    path.write_text(made(words))
    restore.weights(run, config, tmp_path)
    path.write_text(made(other))
    with pytest.raises(
        InputError, match=r"^restore.model: .*: its tokenizer is another .*'w0' is 0"
    ):
        restore.weights(run, config, tmp_path)
    # A run's own folder has a tokenizer as well.
    workdir = shutil.copytree(trained[0], tmp_path / 'workdir')
    (workdir / 'tokenizer.json').write_text(made(other))
    with pytest.raises(InputError, match=r'^restore.model: .*: its tokenizer is another'):
        restore.weights(run, restoring(tokens_config(), workdir), tmp_path)
    (workdir / 'tokenizer.json').write_text(made(words))
    restore.weights(run, restoring(tokens_config(), workdir), tmp_path)
    path.write_text(json.dumps('nothing'))
    with pytest.raises(InputError, match=r'tokenizer.json cannot be read'):
        restore.weights(run, config, tmp_path)


def made(vocabulary: dict[str, int]) -> str:
    return Tokenizer(models.WordLevel(vocabulary, unk_token='w1')).to_str()


def test_a_codebook_comes_with_its_autoencoder_and_the_discriminator_stays_behind(tmp_path):
    config = importlib.import_module('configs.vqgan_cifar').get_config('smoke')
    config.networks.autoencoder.channel_multipliers = (1,)
    config.train.update(num_steps=2, evaluate_every=None)
    state = train(config, tmp_path / 'first')
    second = importlib.import_module('configs.latent_flow_cifar').get_config('smoke')
    second.networks.autoencoder.channel_multipliers = (1,)
    second.restore.autoencoder = str(tmp_path / 'first')
    run = assemble(second)
    assert set(run.template.params) == {'autoencoder', 'model'}
    (given,) = restore.weights(run, second, tmp_path / 'second')[0].values()
    assert equal(given.params, state.ema_params['autoencoder'])
    assert equal(given.model_state, state.model_state['autoencoder'])
    assert np.abs(given.model_state['sum']).max() > 0


# Two stages


@pytest.fixture(scope='module')
def second_config(vae_config, vae_run):
    """Makes the config of a second stage on the latents of a VAE that was trained."""
    from configs import latent_flow_digits
    from configs import models as sections

    def make(folder=vae_run[0], first=None):
        config = latent_flow_digits.get_config('smoke').copy_and_resolve_references().unlock()
        sections.use_autoencoder(config, first or vae_config(), workdir=str(folder))
        config.method.inner = sections.flow_matching(class_conditional=True)
        config.data.source = 'embedded'
        config.evaluate.scores.num = config.train.score_every = None
        return config.lock()

    return make


def test_a_frozen_player_is_the_averaged_one_of_its_run_and_stays_it(
    second_config, vae_run, tmp_path, capsys
):
    state = train(second_config(), tmp_path)
    said = capsys.readouterr().err
    assert f'autoencoder begins with the weights of step 4 of 4 in {vae_run[0]}' in said
    assert 'restore.autoencoder' not in said
    average = vae_run[1].ema_params['autoencoder']
    assert not equal(average, vae_run[1].params['autoencoder'])
    assert equal(state.params['autoencoder'], average)
    assert set(state.opt_state) == set(state.ema_params) == {'model'}


def test_an_autoencoder_that_means_something_else_is_refused(second_config, vae_config, tmp_path):
    first = vae_config().copy_and_resolve_references().unlock()
    first.method.observation.name = 'observation.categorical'
    config = second_config(first=first)
    with pytest.raises(InputError, match=r'^restore\.autoencoder: .*method\.autoencoder\.obs'):
        restore.weights(assemble(config), config, tmp_path)
    config = second_config().copy_and_resolve_references().unlock()
    config.data.binarize = 'threshold'
    with pytest.raises(InputError, match=r'whose levels is 17, and here it is 2'):
        restore.weights(assemble(config), config, tmp_path)


def test_a_frozen_player_without_weights_is_warned_of(second_config, tmp_path, capsys):
    config = second_config().copy_and_resolve_references().unlock()
    with config.ignore_type():
        config.restore.autoencoder = None
    assert restore.weights(assemble(config), config, tmp_path) == ({}, {})
    assert 'restore.autoencoder: None, and nothing trains this player' in capsys.readouterr().err
