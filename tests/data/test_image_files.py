"""Folders of the user's own images."""

import warnings

import numpy as np
import pytest
from PIL import Image

from gen_jax.data import images, pixels
from gen_jax.data.dataset import evaluation_batches, training_batches
from gen_jax.errors import InputError
from gen_jax.types import DataSpec


def save(path, color, size=(20, 30), mode='RGB', **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, color).save(path, **options)


def gray_of(dataset) -> dict[str, set[int]]:
    """The gray value of each one-colored image, per split."""
    return {
        name: set(images.decode(batch['x'], dataset.spec)[:, 0, 0, 0].tolist())
        for name, split in (('train', dataset.train), ('evaluation', dataset.evaluation))
        for batch in [next(evaluation_batches(split, batch_size=split.num_examples))]
    }


def load(folder, **arguments):
    return images.load(source='folder', data_dir=str(folder), **{'image_size': 8} | arguments)


def test_all_kinds_of_files_become_squares(tmp_path):
    save(tmp_path / 'a.png', (10, 10, 10))
    save(tmp_path / 'deep' / 'down' / 'b.JPG', (20, 20, 20), quality=95)
    save(tmp_path / 'c.jpeg', 30, mode='L', quality=95)
    save(tmp_path / 'd.webp', (40, 40, 40), lossless=True)
    save(tmp_path / 'e.png', (50, 50, 50, 255), mode='RGBA')
    (tmp_path / 'notes.txt').write_text('not an image')
    (tmp_path / '.hidden.png').write_text('not an image')
    dataset = load(tmp_path)
    assert dataset.spec == DataSpec((8, 8, 3), levels=256)
    gray = gray_of(dataset)
    assert gray['train'] | gray['evaluation'] == {10, 20, 30, 40, 50}
    assert len(gray['evaluation']) == 1
    assert load(tmp_path, channels=1).spec.shape == (8, 8, 1)
    assert 'label' not in next(training_batches(dataset.train, batch_size=2, seed=0))


def test_a_rotation_in_the_exif_is_applied(tmp_path):
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:8] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # Stored lying on its left side: turn it clockwise.
    for name in ('a.jpg', 'b.jpg'):
        Image.fromarray(pixels).save(tmp_path / name, exif=exif, quality=95)
    dataset = load(tmp_path, image_size=16)
    image = images.decode(next(evaluation_batches(dataset.train, batch_size=1))['x'], dataset.spec)[
        0
    ]
    assert image[:, 12:].mean() > 250
    assert image[:, :4].mean() < 5


def test_subfolders_are_classes_in_sorted_order(tmp_path):
    for number, animal in enumerate(('dog', 'ant', 'cat')):
        for i in range(8):
            save(tmp_path / animal / 'more' / f'{i}.png', (number * 100,) * 3)
    dataset = load(tmp_path)
    assert dataset.spec.num_classes == 3
    batch = next(training_batches(dataset.train, batch_size=48, seed=0))
    assert batch['label'].dtype == np.int32
    value = images.decode(batch['x'], dataset.spec)[:, 0, 0, 0]
    expected = {100: 0, 200: 1, 0: 2}  # ant, cat, dog
    assert [expected[v] for v in value.tolist()] == batch['label'].tolist()
    assert 'ant, cat, dog' in ' '.join(
        images.describe(source='folder', data_dir=str(tmp_path), image_size=8).lines
    )


@pytest.mark.parametrize('fits', [True, False])
def test_damaged_files_are_named_and_left_out(tmp_path, monkeypatch, fits):
    monkeypatch.setattr(pixels, 'fits_in_memory', lambda num_bytes: fits)
    for i in range(10):
        save(tmp_path / f'{i}.png', (i * 10,) * 3)
    (tmp_path / 'broken.png').write_bytes(b'\x89PNG\r\n\x1a\n and then nothing')
    (tmp_path / 'empty.jpg').write_bytes(b'')
    with pytest.warns(UserWarning, match=r'2 file\(s\).*broken\.png, empty\.jpg'):
        dataset = load(tmp_path)
    gray = gray_of(dataset)
    assert gray['train'] | gray['evaluation'] == {i * 10 for i in range(10)}
    assert not gray['train'] & gray['evaluation']


@pytest.mark.parametrize('fits', [True, False])
def test_a_file_with_a_damaged_end_is_named_and_replaced(tmp_path, monkeypatch, fits):
    monkeypatch.setattr(pixels, 'fits_in_memory', lambda num_bytes: fits)
    noise = np.random.default_rng(0).integers(256, size=(64, 64, 3)).astype(np.uint8)
    for i in range(4):
        Image.fromarray(noise).save(tmp_path / f'{i}.png')
    data = (tmp_path / '2.png').read_bytes()
    (tmp_path / '2.png').write_bytes(data[: len(data) // 2])
    with pytest.warns(UserWarning, match=r'2\.png is damaged; the next one is read instead'):
        dataset = load(tmp_path)
    for split in (dataset.train, dataset.evaluation):
        if split.num_examples > 1:
            batch = next(evaluation_batches(split, batch_size=split.num_examples))
            assert np.ptp(batch['x'], axis=0).max() == 0


def test_memory_and_files_give_the_same_batches(tmp_path, monkeypatch):
    for i in range(20):
        save(tmp_path / f'{i % 2}' / f'{i}.png', (i * 10,) * 3)

    def read():
        dataset = load(tmp_path, flip=True)
        stream = training_batches(dataset.train, batch_size=6, seed=0)
        return dataset.fingerprint, [next(stream) for _ in range(5)]

    fingerprint, memory = read()
    monkeypatch.setattr(pixels, 'fits_in_memory', lambda num_bytes: False)
    same, files = read()
    assert same == fingerprint  # how much memory this machine has is no part of the data
    for a, b in zip(memory, files, strict=True):
        for name in ('x', 'label'):
            np.testing.assert_array_equal(a[name], b[name])


def test_the_held_out_images_stay_held_out_when_files_are_added(tmp_path):
    for i in range(100):
        save(tmp_path / f'{i}.png', (i,) * 3, size=(4, 4))
    before = gray_of(load(tmp_path, image_size=4))
    assert 2 <= len(before['evaluation']) <= 15
    for i in range(100, 200):
        save(tmp_path / f'{i}.png', (i,) * 3, size=(4, 4))
    after = gray_of(load(tmp_path, image_size=4))
    assert before['evaluation'] <= after['evaluation']
    assert before['train'] <= after['train']


def test_describe_reads_no_pixels_and_agrees_with_load(tmp_path, monkeypatch):
    for i in range(40):
        save(tmp_path / f'{i}.png', (i,) * 3)
    dataset = load(tmp_path)
    monkeypatch.setattr(Image, 'open', None)
    found = images.describe(source='folder', data_dir=str(tmp_path), image_size=8)
    assert found.spec == dataset.spec
    text = ' '.join(found.lines)
    assert f'{dataset.train.num_examples} training' in text
    assert str(tmp_path) in text


def test_what_cannot_be_used_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match=r'data\.data_dir: there is no folder'):
        load(tmp_path / 'absent')
    with pytest.raises(InputError, match=r'data\.data_dir.*holds 0 image'):
        load(tmp_path)
    for name in 'ab':
        (tmp_path / f'{name}.png').write_bytes(b'no')
    with pytest.raises(InputError, match=r'data\.image_size'):
        load(tmp_path, image_size=None)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        with pytest.raises(InputError, match=r'data\.data_dir: only 0 of 2'):
            load(tmp_path)
