"""TFDS sets: read from disk without TensorFlow, absent ones reported, real ones where present."""

import io
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gen_jax.data import images, pixels, tfds_images
from gen_jax.data.dataset import evaluation_batches, training_batches
from gen_jax.errors import InputError
from gen_jax.types import DataSpec

REAL = os.environ.get('GEN_JAX_DATA')


@pytest.fixture
def write_set(write_tfds):
    """The same for (image array, label) pairs."""

    def png(image: np.ndarray) -> bytes:
        file = io.BytesIO()
        Image.fromarray(image.squeeze()).save(file, 'PNG')
        return file.getvalue()

    def write(root: Path, name: str, version: str, splits: dict[str, list], file_format: str):
        encoded = {
            split: [{'image': png(image), 'label': label} for image, label in pairs]
            for split, pairs in splits.items()
        }
        write_tfds(root, name, version, encoded, file_format)

    return write


def examples(count: int, shape: tuple[int, ...], seed: int = 0) -> list:
    rng = np.random.default_rng(seed)
    return [(rng.integers(256, size=shape).astype(np.uint8), i % 10) for i in range(count)]


@pytest.fixture
def small(tmp_path, write_set):
    """A folder with an MNIST of 60 + 20 images."""
    splits = {'train': examples(60, (28, 28, 1)), 'test': examples(20, (28, 28, 1), 1)}
    write_set(tmp_path, 'mnist', '3.0.1', splits, 'array_record')
    return tmp_path, splits


@pytest.fixture
def offline(monkeypatch):
    """No network for this process and its children: a proxy that nobody answers."""
    for name in ('HTTP_PROXY', 'HTTPS_PROXY', 'http_proxy', 'https_proxy'):
        monkeypatch.setenv(name, 'http://127.0.0.1:9')


@pytest.mark.parametrize('fits', [True, False])
def test_every_pixel_and_label_arrives(small, monkeypatch, fits):
    root, splits = small
    monkeypatch.setattr(pixels, 'fits_in_memory', lambda num_bytes: fits)
    dataset = images.load(source='tfds', name='mnist', data_dir=str(root))
    assert dataset.spec == DataSpec((28, 28, 1), levels=256, num_classes=10)
    for split, expected in ((dataset.train, splits['train']), (dataset.evaluation, splits['test'])):
        assert split.num_examples == len(expected)
        batch = next(evaluation_batches(split, batch_size=split.num_examples))
        np.testing.assert_array_equal(
            images.decode(batch['x'], dataset.spec), [image for image, _ in expected]
        )
        np.testing.assert_array_equal(batch['label'], [label for _, label in expected])


@pytest.mark.parametrize('fits', [True, False])
def test_a_few_labels_are_kept_and_found_without_decoding(small, monkeypatch, fits):
    root, splits = small
    monkeypatch.setattr(pixels, 'fits_in_memory', lambda num_bytes: fits)
    options = {'source': 'tfds', 'name': 'mnist', 'data_dir': str(root)}
    train = images.load(**options, labels_per_class=2).train
    expected = np.array([label for _, label in splits['train']])
    found = train.fetch(np.arange(60))['label']
    np.testing.assert_array_equal(np.flatnonzero(found >= 0), train.labeled)
    np.testing.assert_array_equal(found[train.labeled], expected[train.labeled])
    np.testing.assert_array_equal(np.bincount(found + 1), [40, *[2] * 10])


def test_images_can_be_resized_and_colored(small):
    root, _ = small
    arguments = {'source': 'tfds', 'name': 'mnist', 'data_dir': str(root)}
    dataset = images.load(**arguments, image_size=16, channels=3)
    assert dataset.spec.shape == (16, 16, 3)
    assert next(training_batches(dataset.train, batch_size=4, seed=0))['x'].shape == (4, 16, 16, 3)


def test_images_of_different_sizes_need_a_size(tmp_path, write_set):
    splits = {
        'train': examples(12, (40, 30, 3)) + examples(12, (20, 50, 3)),
        'validation': examples(8, (33, 33, 3)),
    }
    write_set(tmp_path, 'oxford_flowers102', '2.1.1', splits, 'array_record')
    arguments = {'source': 'tfds', 'name': 'oxford_flowers102', 'data_dir': str(tmp_path)}
    for call in (images.load, images.describe):
        with pytest.raises(InputError, match=r'data\.image_size'):
            call(**arguments)
    dataset = images.load(**arguments, image_size=16)
    assert dataset.spec == DataSpec((16, 16, 3), levels=256, num_classes=102)
    assert (dataset.train.num_examples, dataset.evaluation.num_examples) == (24, 8)


def test_a_set_of_one_split_gives_its_last_twentieth_to_evaluation(tmp_path, write_set):
    write_set(tmp_path, 'mnist', '3.0.1', {'train': examples(40, (28, 28, 1))}, 'array_record')
    arguments = {'source': 'tfds', 'name': 'mnist', 'data_dir': str(tmp_path)}
    dataset = images.load(**arguments)
    assert (dataset.train.num_examples, dataset.evaluation.num_examples) == (38, 2)
    assert '38 training and 2 evaluation' in ' '.join(images.describe(**arguments).lines)


def test_describe_reads_no_pixels(small, tmp_path, monkeypatch):
    root, _ = small
    monkeypatch.setattr(tfds_images, '_lazy', None)
    found = images.describe(source='tfds', name='mnist', data_dir=str(root))
    assert found.present
    text = ' '.join(found.lines)
    assert 'mnist/3.0.1' in text
    assert str(root) in text
    assert '60 training and 20 evaluation' in text
    absent = images.describe(source='tfds', name='cifar10', data_dir=str(tmp_path / 'none'))
    assert not absent.present
    assert absent.spec == DataSpec((32, 32, 3), levels=256, num_classes=10)
    assert not (tmp_path / 'none').exists()


def test_an_unknown_set_gets_the_nearest_names(tmp_path):
    with pytest.raises(InputError, match=r'data\.name.*cifar11.*did you mean .*cifar10'):
        images.load(source='tfds', name='cifar11', data_dir=str(tmp_path))
    with pytest.raises(InputError, match=r'data\.name.*ag_news_subset.*no 8-bit images'):
        images.load(source='tfds', name='ag_news_subset', data_dir=str(tmp_path))


def test_records_of_tensorflow_are_refused_with_the_way_out(tmp_path, write_set):
    write_set(tmp_path, 'mnist', '3.0.1', {'train': examples(2, (28, 28, 1))}, 'tfrecord')
    with pytest.raises(InputError, match=r'data\.data_dir.*tfrecord'):
        images.load(source='tfds', name='mnist', data_dir=str(tmp_path))


def test_an_absent_set_without_network_is_one_quick_line(tmp_path, offline):
    start = time.monotonic()
    with pytest.raises(InputError) as caught:
        images.load(source='tfds', name='cifar10', data_dir=str(tmp_path / 'sets'))
    assert time.monotonic() - start < 20
    message = str(caught.value)
    assert message.startswith('data.name: ')
    assert '\n' not in message
    for word in ('cifar10', str(tmp_path / 'sets'), 'data.data_dir'):
        assert word in message
    assert not list(tmp_path.rglob('*.array_record*'))


def test_tensorflow_is_never_imported(small, tmp_path):
    trap = tmp_path / 'trap' / 'tensorflow'
    trap.mkdir(parents=True)
    marker = tmp_path / 'imported'
    (trap / '__init__.py').write_text(
        f'open({str(marker)!r}, "w").close()\nraise ImportError("tensorflow was imported")\n'
    )
    program = (
        'from gen_jax.data import dataset, images\n'
        'images.describe(source="tfds", name="mnist")\n'
        'data = images.load(source="tfds", name="mnist", flip=True)\n'
        'next(dataset.training_batches(data.train, batch_size=8, seed=0))\n'
        'next(dataset.evaluation_batches(data.evaluation, batch_size=8))\n'
    )
    path = os.pathsep.join([str(trap.parent), os.environ.get('PYTHONPATH', '')])
    environment = os.environ | {'PYTHONPATH': path, 'TFDS_DATA_DIR': str(small[0])}
    subprocess.run([sys.executable, '-c', program], env=environment, check=True, timeout=60)
    assert not marker.exists()


@pytest.mark.skipif(not REAL, reason='GEN_JAX_DATA names no folder with tfds/mnist in it')
def test_the_real_mnist():
    dataset = images.load(source='tfds', name='mnist', data_dir=f'{REAL}/tfds')
    assert (dataset.train.num_examples, dataset.evaluation.num_examples) == (60_000, 10_000)
    labels = dataset.evaluation.fetch(np.arange(10_000))['label']
    counts = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert np.bincount(labels).tolist() == counts


@pytest.mark.skipif(not REAL, reason='GEN_JAX_DATA names no folder with tfds/cifar10 in it')
def test_the_real_cifar10_batch_by_batch(monkeypatch):
    monkeypatch.setattr(pixels, 'fits_in_memory', lambda num_bytes: False)
    dataset = images.load(source='tfds', name='cifar10', data_dir=f'{REAL}/tfds')
    assert (dataset.train.num_examples, dataset.evaluation.num_examples) == (50_000, 10_000)
    x = next(evaluation_batches(dataset.evaluation, batch_size=1000))['x']
    # The published means of the channels are 0.491, 0.482 and 0.447.
    np.testing.assert_allclose((x.mean(axis=(0, 1, 2)) + 1) / 2, [0.491, 0.482, 0.447], atol=0.02)
