"""Few labels: which training images keep them, and that everything else stays what it was."""

import importlib

import numpy as np
import pytest

from gen_jax.data import images, labels, pixels
from gen_jax.data.dataset import evaluation_batches, training_batches
from gen_jax.errors import InputError
from gen_jax.run import assemble, load_data
from gen_jax.scoring import _labels


def fetched(dataset, split='train'):
    part = getattr(dataset, split)
    return part.fetch(np.arange(part.num_examples))


@pytest.fixture(scope='module')
def whole():
    return fetched(images.load())


def test_so_many_of_each_class_keep_their_label_and_all_images_stay(whole):
    dataset = images.load(labels_per_class=7)
    found = fetched(dataset)
    np.testing.assert_array_equal(found['image'], whole['image'])
    known = found['label'] >= 0
    assert found['label'].dtype == np.int32 and set(found['label'][~known]) == {-1}
    np.testing.assert_array_equal(found['label'][known], whole['label'][known])
    np.testing.assert_array_equal(np.bincount(found['label'][known]), np.full(10, 7))
    np.testing.assert_array_equal(dataset.train.labeled, np.flatnonzero(known))
    some = dataset.train.fetch(np.array([5, 1499, 24]))  # in any order
    np.testing.assert_array_equal(some['label'], found['label'][[5, 1499, 24]])


def test_the_choice_is_the_same_each_time_and_grows(whole):
    chosen = {
        (k, seed): labels.choose(whole['label'], 10, k, seed) for k in (3, 10) for seed in (0, 1)
    }
    np.testing.assert_array_equal(chosen[10, 0], labels.choose(whole['label'], 10, 10, 0))
    assert set(chosen[3, 0]) < set(chosen[10, 0])
    assert len(set(chosen[10, 0]) & set(chosen[10, 1])) < 30
    # Pinned: a change means that runs with few labels cannot be repeated.
    np.testing.assert_array_equal(chosen[10, 0][:5], [24, 27, 42, 44, 50])


def test_only_the_labeled_are_left_where_that_is_asked_for(whole):
    few, only = (images.load(labels_per_class=7, labeled_only=o) for o in (False, True))
    found = fetched(only)
    assert only.train.num_examples == 70
    for name in ('image', 'label'):
        np.testing.assert_array_equal(found[name], whole[name][few.train.labeled])
    np.testing.assert_array_equal(only.train.labeled, np.arange(70))
    stream = training_batches(only.train, batch_size=140, seed=0)
    np.testing.assert_array_equal(np.bincount(next(stream)['label']), np.full(10, 14))
    stream.close()


@pytest.mark.parametrize('only', [False, True])
def test_evaluation_keeps_every_label(only):
    few, full = images.load(labels_per_class=2, labeled_only=only), images.load()
    for name, values in fetched(full, 'evaluation').items():
        np.testing.assert_array_equal(fetched(few, 'evaluation')[name], values)
    (batch,) = evaluation_batches(few.evaluation, batch_size=297)
    assert batch['label'].min() == 0


def test_fingerprints_tell_choices_apart():
    options = [{}, *({'labels_per_class': k, 'labels_seed': s} for k in (2, 3) for s in (0, 1))]
    fingerprints = [images.load(**o).fingerprint for o in options]
    assert len(set(fingerprints)) == 5
    only = images.load(labels_per_class=2, labeled_only=True)
    assert only.fingerprint == fingerprints[1]


def test_it_goes_with_images_in_black_and_white():
    both = images.load(binarize='static', labels_per_class=4, labeled_only=True)
    static = fetched(images.load(binarize='static'))['image']
    labeled = images.load(binarize='static', labels_per_class=4).train.labeled
    np.testing.assert_array_equal(fetched(both)['image'], static[labeled])


def test_labels_of_files_are_found_without_decoding(tmp_path, monkeypatch):
    from PIL import Image

    for name in ('cat', 'dog'):
        (tmp_path / name).mkdir()
        for number in range(40):
            Image.new('L', (8, 8), number).save(tmp_path / name / f'{number}.png')
    monkeypatch.setattr(pixels, 'fits_in_memory', lambda num_bytes: False)
    options = {'source': 'folder', 'data_dir': str(tmp_path), 'image_size': 8}
    dataset, full = images.load(**options, labels_per_class=3), images.load(**options)
    found, expected = fetched(dataset), fetched(full)
    np.testing.assert_array_equal(found['image'], expected['image'])
    labeled = dataset.train.labeled
    np.testing.assert_array_equal(found['label'][labeled], expected['label'][labeled])
    np.testing.assert_array_equal(np.bincount(found['label'] + 1)[1:], [3, 3])


def test_describe_says_it():
    found = images.describe(labels_per_class=10, labels_seed=4)
    assert found.partly_labeled and found.spec == images.describe().spec
    assert any('10 training images of each class' in line and 'seed 4' in line for line in found[2])
    only = images.describe(labels_per_class=10, labeled_only=True)
    assert not only.partly_labeled and any('left out' in line for line in only.lines)
    assert not images.describe().partly_labeled


@pytest.mark.parametrize('call', [images.load, images.describe])
@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'labels_per_class': 0}, r'data\.labels_per_class: 0; use 1 or more'),
        ({'labels_per_class': 1, 'labels_seed': -1}, r'data\.labels_seed: -1; use 0 or more'),
        ({'labeled_only': True}, r'data\.labeled_only: .*data\.labels_per_class'),
    ],
)
def test_what_cannot_be_is_refused(call, options, message):
    with pytest.raises(InputError, match=message):
        call(**options)


@pytest.mark.parametrize('call', [images.load, images.describe])
def test_images_without_classes_are_refused(call, tmp_path):
    from PIL import Image

    for number in range(30):
        Image.new('L', (8, 8), number).save(tmp_path / f'{number}.png')
    with pytest.raises(InputError, match=r'data\.labels_per_class: this data has no classes'):
        call(source='folder', data_dir=str(tmp_path), image_size=8, labels_per_class=1)


def test_more_labels_than_a_class_has_are_refused():
    with pytest.raises(InputError, match=r'data\.labels_per_class: 149, and of class \d there are'):
        images.load(labels_per_class=149)


@pytest.mark.parametrize('name', ['ddpm_digits', 'feature_net_digits'])
def test_no_model_that_needs_labels_sees_an_unknown_one(name):
    config = importlib.import_module(f'configs.{name}').get_config('smoke')
    config.data.labels_per_class = 10
    with pytest.raises(InputError, match=r'data\.labels_per_class: .*data\.labeled_only to True'):
        assemble(config)
    config.data.labeled_only = True
    assemble(config)


def test_labels_of_samples_are_drawn_among_the_known():
    config = importlib.import_module('configs.ssvae_digits').get_config('smoke')
    found = _labels(assemble(config), load_data(config), 2000, (0, 5))
    np.testing.assert_allclose(np.bincount(found, minlength=10) / 2000, 0.1, atol=0.03)
