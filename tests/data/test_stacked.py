"""Stacked images: which three, their label, and that they go with everything else."""

import numpy as np
import pytest

from gen_jax.data import binary, images
from gen_jax.data.dataset import evaluation_batches
from gen_jax.data.pixels import ImageSet, in_memory
from gen_jax.data.stacked import stack
from gen_jax.errors import InputError
from gen_jax.types import DataSpec


def fetched(dataset, split='train'):
    part = getattr(dataset, split)
    return part.fetch(np.arange(part.num_examples))


@pytest.fixture(scope='module')
def numbered() -> ImageSet:
    """Images that say their number, 70 and 30 of 7 classes."""
    parts = [
        in_memory(
            np.arange(start, start + num, dtype=np.uint8).reshape(-1, 1, 1, 1),
            (np.arange(num) % 7).astype(np.int32),
        )
        for start, num in ((0, 70), (100, 30))
    ]
    return ImageSet(*parts, DataSpec((1, 1, 1), levels=256, num_classes=7), 'f')


@pytest.mark.parametrize(('split', 'start', 'num'), [('train', 0, 70), ('evaluation', 100, 30)])
def test_each_image_is_used_once_in_each_color_and_labels_are_its_digits(
    numbered, split, start, num
):
    part = getattr(stack(numbered), split)
    assert part.num_examples == num
    raw = part.fetch(np.arange(num))
    used = raw['image'][:, 0, 0].astype(int) - start  # [N, 3]
    for channel in range(3):
        np.testing.assert_array_equal(np.sort(used[:, channel]), np.arange(num))
    assert (used != np.arange(num)[:, None]).any(0).all()
    assert (used == np.roll(used, 1, axis=1)).sum(0).max() < 9  # colors in orders of their own
    red, green, blue = (used % 7).T
    np.testing.assert_array_equal(raw['label'], 49 * red + 7 * green + blue)
    assert raw['label'].dtype == part.labels().dtype == np.int32
    np.testing.assert_array_equal(part.labels(), raw['label'])
    some = part.fetch(np.array([5, 29, 2]))
    np.testing.assert_array_equal(some['image'], raw['image'][[5, 29, 2]])
    np.testing.assert_array_equal(some['label'], raw['label'][[5, 29, 2]])


def test_the_choice_is_the_same_each_time(numbered):
    """Pinned: a change means that runs on stacked images cannot be repeated."""
    found = fetched(stack(numbered))['image'][:3, 0, 0]
    np.testing.assert_array_equal(found, fetched(stack(numbered))['image'][:3, 0, 0])
    np.testing.assert_array_equal(found, [[63, 42, 28], [41, 35, 8], [35, 5, 41]])


def test_stacked_digits_are_what_their_spec_says():
    dataset, told = images.load(stacked=True), images.describe(stacked=True)
    assert dataset.spec == told.spec == DataSpec((8, 8, 3), levels=17, num_classes=1000)
    assert any('stacked' in line for line in told.lines)
    assert '1,500 training' in ' '.join(told.lines) and dataset.train.num_examples == 1500
    (batch,) = evaluation_batches(dataset.evaluation, batch_size=297)
    assert batch['x'].shape == (297, 8, 8, 3) and batch['label'].max() > 900
    assert images.decode(batch['x'], dataset.spec).shape == (297, 8, 8, 3)
    assert dataset.fingerprint != images.load().fingerprint


def test_it_goes_with_black_and_white():
    gray = fetched(images.load(stacked=True))
    threshold, static = (images.load(stacked=True, binarize=rule) for rule in binary.RULES[:2])
    assert threshold.spec.levels == 2 and threshold.spec.shape == (8, 8, 3)
    np.testing.assert_array_equal(fetched(threshold)['image'], gray['image'] >= 8.5)
    drawn = fetched(static)
    np.testing.assert_array_equal(
        drawn['image'], binary.draw(gray['image'], 17, 2 * np.arange(1500))
    )
    np.testing.assert_array_equal(drawn['label'], gray['label'])


def test_more_labels_than_a_stacked_class_has_are_refused():
    """Of 1,500 stacked digits few are of each of the 1,000 classes."""
    with pytest.raises(InputError, match=r'data\.labels_per_class: 9, and of class \d+ there are'):
        images.load(stacked=True, labels_per_class=9)


def test_few_labels_are_of_the_stacked_classes(tmp_path):
    from PIL import Image

    for name in ('cat', 'dog'):
        (tmp_path / name).mkdir()
        for number in range(60):
            Image.new('L', (4, 4), number).save(tmp_path / name / f'{number}.png')
    options = {'source': 'folder', 'data_dir': str(tmp_path), 'image_size': 4, 'channels': 1}
    dataset = images.load(**options, stacked=True, labels_per_class=2)
    assert dataset.spec.num_classes == 8
    label = fetched(dataset)['label']
    np.testing.assert_array_equal(np.bincount(label[label >= 0]), np.full(8, 2))
    whole = fetched(images.load(**options, stacked=True))['label']
    np.testing.assert_array_equal(label[label >= 0], whole[label >= 0])


@pytest.mark.parametrize('call', [images.load, images.describe])
def test_what_cannot_be_stacked_is_refused(call, tmp_path):
    from PIL import Image

    with pytest.raises(InputError, match=r'data\.stacked: these images have 3 channels'):
        call(source='synthetic', name='cifar10', stacked=True)
    with pytest.raises(InputError, match=r'data\.stacked: .*data\.channels to 1'):
        call(source='synthetic', name='mnist', channels=3, stacked=True)
    for number in range(30):
        Image.new('L', (4, 4), number).save(tmp_path / f'{number}.png')
    with pytest.raises(InputError, match=r'data\.stacked: this data has no classes'):
        call(source='folder', data_dir=str(tmp_path), image_size=4, channels=1, stacked=True)
