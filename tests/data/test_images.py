"""`load` and `describe`: the embedded digits, synthetic sets, augmentation and bad arguments."""

import itertools

import numpy as np
import pytest

from gen_jax.data import images
from gen_jax.data.dataset import evaluation_batches, training_batches
from gen_jax.errors import InputError
from gen_jax.types import DataSpec


def everything(split) -> dict[str, np.ndarray]:
    return next(evaluation_batches(split, batch_size=split.num_examples))


@pytest.fixture(scope='module')
def digits():
    return images.load(source='embedded')


def test_digits_are_divided_once_and_in_proportion(digits):
    from sklearn.datasets import load_digits

    train, evaluation = everything(digits.train), everything(digits.evaluation)
    assert (len(train['x']), len(evaluation['x'])) == (1500, 297)
    whole, label = load_digits(return_X_y=True)
    both = np.concatenate([train['x'], evaluation['x']]).reshape(1797, 64)
    np.testing.assert_allclose(np.sort((both + 1) * 8, axis=0), np.sort(whole, axis=0), atol=1e-5)
    share = np.bincount(evaluation['label'], minlength=10) / np.bincount(label, minlength=10)
    assert np.abs(share - 297 / 1797).max() < 0.01
    assert len(np.unique(evaluation['label'][:60])) == 10, 'a prefix must not be one class'


def test_a_batch_is_what_the_spec_says(digits):
    assert digits.spec == DataSpec((8, 8, 1), levels=17, num_classes=10)
    batch = everything(digits.evaluation)
    assert batch['x'].dtype == np.float32
    assert (batch['x'].min(), batch['x'].max()) == (-1, 1)
    assert batch['label'].dtype == np.int32
    assert len(np.unique(batch['x'])) == 17
    decoded = images.decode(batch['x'], digits.spec)
    assert decoded.dtype == np.uint8
    assert (decoded.min(), decoded.max()) == (0, 255)


def test_the_fingerprint_is_of_the_content(digits):
    assert digits.fingerprint == images.load(flip=True).fingerprint
    assert digits.fingerprint != images.load(source='synthetic', name='digits').fingerprint


@pytest.mark.parametrize(
    ('name', 'spec'),
    [
        ('digits', DataSpec((8, 8, 1), levels=17, num_classes=10)),
        ('mnist', DataSpec((28, 28, 1), levels=256, num_classes=10)),
        ('cifar10', DataSpec((32, 32, 3), levels=256, num_classes=10)),
        ('celeb_a', DataSpec((218, 178, 3), levels=256)),
    ],
)
def test_synthetic_sets_have_the_spec_of_the_set_they_are_named_for(name, spec):
    assert images.describe(source='synthetic', name=name).spec == spec
    if name == 'celeb_a':
        return
    dataset = images.load(source='synthetic', name=name)
    assert dataset.spec == spec
    assert everything(dataset.evaluation)['x'].shape[1:] == spec.shape


def test_synthetic_squares():
    spec = images.load(source='synthetic', image_size=12).spec
    assert spec == DataSpec((12, 12, 3), levels=256, num_classes=10)
    assert images.load(source='synthetic', image_size=12, channels=1).spec.shape == (12, 12, 1)


def test_flip_mirrors_about_half_of_the_training_images_only():
    plain, flipped = (
        images.load(source='synthetic', name='cifar10', flip=flip) for flip in (False, True)
    )
    a, b = (
        next(training_batches(dataset.train, batch_size=400, seed=0))['x']
        for dataset in (plain, flipped)
    )
    mirrored = (a != b).any(axis=(1, 2, 3))
    assert 150 < mirrored.sum() < 250
    np.testing.assert_array_equal(b[mirrored], a[mirrored, :, ::-1])
    np.testing.assert_array_equal(
        everything(plain.evaluation)['x'], everything(flipped.evaluation)['x']
    )


def test_flips_and_noise_do_not_depend_on_the_number_of_processes():
    dataset = images.load(flip=True, dequantize=True)

    def batches(index, count):
        stream = training_batches(
            dataset.train, batch_size=32, seed=1, process_index=index, process_count=count
        )
        return list(itertools.islice(stream, 3))

    whole = batches(0, 1)
    halves = [batches(index, 2) for index in range(2)]
    for step in range(3):
        joined = np.concatenate([half[step]['x'] for half in halves])
        np.testing.assert_array_equal(joined, whole[step]['x'])


def test_dequantized_data_says_so_and_is_the_same_at_every_evaluation():
    dataset = images.load(dequantize=True)
    assert dataset.spec.dequantized
    assert images.describe(dequantize=True).spec == dataset.spec
    x = everything(dataset.evaluation)['x']
    again = np.concatenate(
        [batch['x'] for batch in evaluation_batches(dataset.evaluation, batch_size=99)]
    )
    np.testing.assert_array_equal(x, again)
    np.testing.assert_array_equal(
        images.decode(x, dataset.spec),
        images.decode(everything(images.load().evaluation)['x'], images.load().spec),
    )


@pytest.mark.parametrize(
    'arguments', [{'source': 'embedded'}, {'source': 'synthetic', 'image_size': 16}]
)
def test_describe_agrees_with_load(arguments):
    description, dataset = images.describe(**arguments), images.load(**arguments)
    assert description.spec == dataset.spec
    assert description.present
    text = ' '.join(description.lines)
    assert f'{dataset.train.num_examples:,} training' in text
    assert f'{dataset.evaluation.num_examples:,} evaluation' in text


@pytest.mark.parametrize('call', [images.load, images.describe])
@pytest.mark.parametrize(
    ('arguments', 'field'),
    [
        ({'source': 'web'}, 'data.source'),
        ({'source': 'embedded', 'name': 'cifar10'}, 'data.name'),
        ({'source': 'embedded', 'image_size': 16}, 'data.image_size'),
        ({'source': 'embedded', 'data_dir': 'x'}, 'data.data_dir'),
        ({'source': 'synthetic'}, 'data.image_size'),
        ({'source': 'synthetic', 'image_size': 0}, 'data.image_size'),
        ({'source': 'synthetic', 'image_size': 8, 'channels': 2}, 'data.channels'),
        ({'source': 'synthetic', 'name': 'cifar11'}, 'data.name'),
        ({'source': 'tfds'}, 'data.name'),
        ({'source': 'folder'}, 'data.data_dir'),
    ],
)
def test_bad_arguments_name_the_field(call, arguments, field):
    with pytest.raises(InputError, match=field) as caught:
        call(**arguments)
    assert '\n' not in str(caught.value)
