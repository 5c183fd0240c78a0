"""Our own feature nets: exported, read back, and named for their weights."""

import importlib
import json

import jax
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from gen_jax import parallel
from gen_jax.data import images
from gen_jax.errors import InputError
from gen_jax.export import export
from gen_jax.features.extractor import hash_of, make_embedder
from gen_jax.features.feature_net import feature_net
from gen_jax.features.references import read
from gen_jax.run import assemble
from gen_jax.state import sampling_params
from gen_jax.train import train
from gen_jax.types import DataSpec

DIGITS = images.describe().spec


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
    """A feature net of three steps: its run, its last state, its file."""
    workdir = tmp_path_factory.mktemp('net')
    config = importlib.import_module('configs.feature_net_digits').get_config('smoke')
    state = train(config, workdir)
    return config, state, export(config, workdir)


def test_the_shipped_net_reads_held_out_digits():
    dataset = images.load()
    extractor = feature_net(DIGITS, weights='digits')
    embed = make_embedder(extractor, parallel.lay_out(), 100)
    numbers = np.arange(297)
    embedded = embed(read(dataset.evaluation, numbers, images.decode, DIGITS))
    label = dataset.evaluation.fetch(numbers)['label']
    assert (embedded.probabilities.argmax(1) == label).mean() >= 0.97
    assert embedded.features.shape == (297, 64)
    assert extractor.frechet == f'FD-{extractor.hash[:8]}' == f'FD{extractor.suffix}'


def test_an_exported_net_gives_the_features_of_its_averaged_weights(exported):
    config, state, path = exported
    run = assemble(config)
    extractor = feature_net(DIGITS, weights=str(path))
    x = np.random.default_rng(0).integers(256, size=(10, 8, 8, 1)).astype(np.uint8)
    embedded = make_embedder(extractor, parallel.lay_out(), 4)(x)
    values = run.method.evaluate(
        sampling_params(state),
        {},
        {'x': x / np.float32(127.5) - 1, 'label': np.zeros(10, np.int32)},
        jax.random.key(0),
    )
    np.testing.assert_allclose(-np.log(embedded.probabilities[:, 0]), values['loss'], rtol=1e-3)
    assert embedded.features.shape == (10, 16)


def test_another_weight_is_another_extractor(exported):
    _, _, path = exported
    from gen_jax.features.feature_net import read as read_weights

    arrays, _ = read_weights(path)
    other = {**arrays, 'model/out/bias': arrays['model/out/bias'] + 1e-6}
    assert hash_of(other) != hash_of(arrays)
    assert hash_of(dict(reversed(arrays.items()))) == hash_of(arrays)


def test_the_same_weights_in_another_network_are_another_extractor(exported, tmp_path):
    _, _, path = exported
    with safe_open(path, framework='numpy') as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        facts = json.loads(file.metadata()['gen_jax'])
    facts['networks']['model']['num_groups'] = 4
    other = tmp_path / 'other.safetensors'
    save_file(arrays, other, metadata={'gen_jax': json.dumps(facts)})
    hashes = {feature_net(DIGITS, weights=str(file)).hash for file in (path, other)}
    assert len(hashes) == 2
    for broken in ({**facts, 'networks': {}}, {'method': 'x'}, [1]):
        save_file(arrays, other, metadata={'gen_jax': json.dumps(broken)})
        with pytest.raises(InputError, match='weights'):
            feature_net(DIGITS, weights=str(other))


def test_files_that_do_not_fit_are_refused(exported, tmp_path):
    _, _, path = exported
    with pytest.raises(InputError, match="weights: None; give 'digits'"):
        feature_net(DIGITS)
    with pytest.raises(InputError, match='there is no file'):
        feature_net(DIGITS, weights=str(tmp_path / 'none.safetensors'))
    (tmp_path / 'text.safetensors').write_text('no weights')
    save_file({'a': np.zeros(2)}, tmp_path / 'other.safetensors')
    for name in ('text', 'other'):
        with pytest.raises(InputError, match='no file that --mode=export wrote'):
            feature_net(DIGITS, weights=str(tmp_path / f'{name}.safetensors'))
    with pytest.raises(InputError, match='train a feature net on this data'):
        feature_net(DataSpec((28, 28, 1), levels=256, num_classes=10), weights=str(path))


def test_export_refuses_what_it_cannot_write(exported, tmp_path):
    config, _, path = exported
    with pytest.raises(InputError, match=r'\.safetensors'):
        export(config, path.parent, out=str(tmp_path / 'weights.npz'))
    with pytest.raises(InputError, match='no folder'):
        export(config, path.parent, out=str(tmp_path / 'no' / 'w.safetensors'))
    with pytest.raises(InputError, match='no checkpoints'):
        export(config, tmp_path)
