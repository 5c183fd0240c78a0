"""Latents of examples as a file: those of the codec, in the order of the data."""

import jax
import numpy as np
import pytest

from gen_jax.encode import encode
from gen_jax.errors import InputError
from gen_jax.given import examples_of
from gen_jax.run import assemble, load_data
from gen_jax.state import sampling_params
from gen_jax.trained import trained


def expected(config, folder, split, num):
    run = assemble(config)
    state = trained(run, config, folder).state
    batch = split.transform(split.fetch(np.arange(num)), np.zeros(num, np.uint64))
    z = run.method.codec.encode(
        sampling_params(state), state.model_state, batch['x'], cond=batch['label']
    )
    return jax.device_get(z), batch['label']


@pytest.mark.parametrize('source', ['held_out', 'train'])
def test_latents_of_a_split_are_those_of_the_averaged_encoder(
    source, vae_config, vae_run, tmp_path
):
    config, (folder, _) = vae_config(), vae_run
    out = tmp_path / 'z.npz'
    encode(config, folder, given=source, num=19, out=str(out))
    dataset = load_data(config)
    z, label = expected(
        config, folder, dataset.evaluation if source == 'held_out' else dataset.train, 19
    )
    found = np.load(out)
    np.testing.assert_allclose(found['z'], z, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found['label'], label)


def test_the_whole_held_out_split_is_encoded_into_the_workdir(vae_config, vae_run):
    path = encode(vae_config(), vae_run[0])
    assert path == vae_run[0] / 'samples' / 'latents_held_out.npz'
    assert np.load(path)['z'].shape == (297, 16)


def test_a_file_needs_its_class_where_the_model_is_told_classes(vae_config, vae_run, tmp_path):
    from PIL import Image

    picture = tmp_path / 'digit.png'
    Image.fromarray(np.full((8, 8), 100, np.uint8)).save(picture)
    with pytest.raises(InputError, match=r'^--label: say of which class'):
        encode(vae_config(), vae_run[0], given=str(picture))
    path = encode(vae_config(), vae_run[0], given=str(picture), label=3)
    assert np.load(path)['z'].shape == (1, 16)
    assert path.name == 'latents_digit.npz'


@pytest.mark.parametrize('num', [0, -1])
def test_none_is_no_number_of_examples(num, vae_config, vae_run):
    with pytest.raises(InputError, match=rf'^--num: {num} must be at least 1'):
        encode(vae_config(), vae_run[0], num=num)


def test_training_examples_are_encoded_as_they_are_and_need_their_labels(vae_config, tmp_path):
    config = vae_config().copy_and_resolve_references().unlock()
    config.data.flip = True
    run = assemble(config)
    image = load_data(config).train.fetch(np.arange(40))['image']
    found = examples_of(config, run, tmp_path, 'train', 40)
    np.testing.assert_allclose((found.x + 1) * 8, image, atol=1e-5)
    config.data.labels_per_class = 2
    run = run._replace(method=run.method._replace(learns_unlabeled=True))
    with pytest.raises(InputError, match=r"^--given: 'train' has examples without a label"):
        examples_of(config, run, tmp_path, 'train', 40)
    assert (examples_of(config, run, tmp_path, 'train', 40, label=3).label == 3).all()


def test_other_data_than_the_run_began_with_is_refused(vae_config, vae_run, tmp_path):
    """What is held out of it may have been trained on."""
    config, folder = vae_config(), vae_run[0]
    (tmp_path / 'run.json').write_text('{"data_fingerprint": "other"}')
    run = assemble(config)
    for source in ('held_out', 'train'):
        assert len(examples_of(config, run, folder, source, 2).x) == 2
        with pytest.raises(
            InputError, match=r'^data: .* began with data of fingerprint other, and'
        ):
            examples_of(config, run, tmp_path, source, 2)


def test_methods_without_an_encoder_are_refused(tokens_config, tokens_run):
    with pytest.raises(InputError, match=r'^method\.name: this method has no encoder'):
        encode(tokens_config(), tokens_run[0])


def test_only_arrays_are_written(vae_config, vae_run, tmp_path):
    with pytest.raises(InputError, match=r'--out: .* must end in \.npz'):
        encode(vae_config(), vae_run[0], out=str(tmp_path / 'z.png'))
