"""Images in black and white: by which chance, and which draws are the same."""

import numpy as np
import pytest

from gen_jax.data import binary, images
from gen_jax.data.dataset import evaluation_batches, training_batches
from gen_jax.errors import InputError

GRAY = np.array([0, 1, 8, 15, 16], np.uint8)  # of 17 levels


def fetched(dataset, split='train'):
    part = getattr(dataset, split)
    return part.fetch(np.arange(part.num_examples))['image']


def held_out(dataset):
    (batch,) = evaluation_batches(dataset.evaluation, batch_size=dataset.evaluation.num_examples)
    return batch['x']


def drawn(dataset, step):
    stream = training_batches(dataset.train, batch_size=1500, seed=0, start_step=step)
    batch = next(stream)
    stream.close()
    return batch['x']


def test_a_pixel_is_white_as_often_as_it_is_bright():
    num = 4000
    found = binary.draw(np.tile(GRAY, (num, 1)), 17, np.arange(num))
    assert found.dtype == np.uint8 and set(np.unique(found)) == {0, 1}
    share, expected = found.mean(0), GRAY / 16
    assert share[0] == 0 and share[-1] == 1
    errors = np.sqrt(expected * (1 - expected) / num)
    assert (np.abs(share - expected) <= 4 * errors).all()


def test_a_draw_depends_on_its_key_alone():
    image = np.full((3, 8, 8, 1), 8, np.uint8)
    found = binary.draw(image, 17, np.array([5, 6, 5]))
    np.testing.assert_array_equal(found[0], found[2])
    assert (found[0] != found[1]).any()
    np.testing.assert_array_equal(binary.draw(image[:1], 17, np.array([6]))[0], found[1])


def test_a_threshold_is_the_middle():
    gray = fetched(images.load())
    np.testing.assert_array_equal(fetched(images.load(binarize='threshold')), gray >= 8.5)


def test_static_images_are_drawn_once_and_each_by_itself():
    dataset, gray = images.load(binarize='static'), fetched(images.load())
    whole = fetched(dataset)
    np.testing.assert_array_equal(whole, fetched(dataset))
    np.testing.assert_array_equal(dataset.train.fetch(np.array([7, 3]))['image'], whole[[7, 3]])
    assert abs(whole.mean() - gray.mean() / 16) < 0.01
    keys = 2 * np.arange(len(gray))
    np.testing.assert_array_equal(whole, binary.draw(gray, 17, keys))
    of_evaluation = fetched(images.load(), 'evaluation')
    keys = 2 * np.arange(len(of_evaluation)) + 1
    np.testing.assert_array_equal(
        fetched(dataset, 'evaluation'), binary.draw(of_evaluation, 17, keys)
    )


def test_dynamic_images_are_drawn_anew_and_measured_on_those_of_static():
    dynamic, static = (images.load(binarize=rule) for rule in ('dynamic', 'static'))
    batches = [drawn(dynamic, step) for step in (0, 1, 1)]  # an epoch each: 1,500 images
    np.testing.assert_array_equal(batches[1], batches[2])
    assert set(np.unique(batches[0])) == {-1.0, 1.0}
    orders = [
        np.argsort(drawn(images.load(), step).sum((1, 2, 3)), kind='stable') for step in (0, 1)
    ]
    first, second = (batch[order] for batch, order in zip(batches, orders, strict=False))
    assert 0.05 < (first != second).mean() < 0.4  # the same images, other draws of them
    np.testing.assert_array_equal(held_out(dynamic), held_out(static))
    assert dynamic.fingerprint == static.fingerprint
    others = {images.load().fingerprint, images.load(binarize='threshold').fingerprint}
    assert static.fingerprint not in others and len(others) == 2


@pytest.mark.parametrize('rule', binary.RULES)
def test_examples_have_two_levels(rule):
    dataset, told = images.load(binarize=rule), images.describe(binarize=rule)
    assert dataset.spec == told.spec and told.spec.levels == 2
    assert any(rule in line for line in told.lines)
    x = held_out(dataset)
    assert set(np.unique(x)) == {-1.0, 1.0}
    assert set(np.unique(images.decode(x, dataset.spec))) == {0, 255}


@pytest.mark.parametrize('call', [images.load, images.describe])
def test_what_cannot_be_is_refused(call):
    with pytest.raises(InputError, match=r"data\.binarize: 'random'; use one of threshold, static"):
        call(binarize='random')
    with pytest.raises(InputError, match=r'data\.dequantize: .*data\.binarize to None'):
        call(binarize='static', dequantize=True)
