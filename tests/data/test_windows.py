"""Windows: each token predicted once, frames aligned, and any place to begin."""

import numpy as np
import pytest

from gen_jax.data import windows
from gen_jax.data.dataset import evaluation_batches
from gen_jax.errors import InputError

START = 9
PER_TOKEN = np.zeros((10, 2), np.float32)
PER_TOKEN[:, 0] = 0.5  # each token is half of the first unit, and two of the second, but START
PER_TOKEN[:START, 1] = 2


def stream_of(lengths, frame: int) -> np.ndarray:
    rng = np.random.default_rng(sum(lengths))
    documents = [rng.integers(START, size=n * frame) for n in lengths]
    return windows.join(documents, np.full(frame, START, np.uint8))


def every(split, bits: int = 0) -> dict[str, np.ndarray]:
    indices = np.arange(split.num_examples)
    return split.transform(split.fetch(indices), np.full(len(indices), bits, np.uint64))


def test_documents_stand_between_separators():
    start = np.full(2, START, np.uint16)
    stream = windows.join([np.array([1, 2, 3, 4]), np.array([5, 6])], start)
    assert stream.tolist() == [9, 9, 1, 2, 3, 4, 9, 9, 5, 6, 9, 9]
    assert stream.dtype == np.uint16
    with pytest.raises(ValueError, match='3 tokens, in frames of 2'):
        windows.join([np.array([1, 2, 3])], start)


@pytest.mark.parametrize('frame', [1, 4])
@pytest.mark.parametrize('stride', [None, 4, 12])
@pytest.mark.parametrize('lengths', [(1,), (4,), (5,), (6,), (7, 3, 11), (40,)])
def test_evaluation_predicts_every_token_once_and_in_its_context(lengths, stride, frame):
    length, stream = 24, stream_of(lengths, frame)
    split = windows.evaluation(stream, length, stride, PER_TOKEN, frame=frame)
    batch = every(split)
    x, weight = batch['x'], batch['weight']
    assert x.shape == weight.shape == (split.num_examples, length)
    # In order, what is predicted is the stream after the first START.
    assert x[weight == 1].tolist() == stream[frame:].tolist()
    assert set(np.unique(weight)) <= {0, 1}
    # Each window is a run of the stream, with what stands before it; after the end there is START.
    padded = np.concatenate([stream, np.full(length, START)])
    begins = frame + np.arange(len(x)) * (stride or length)
    for row, begin in enumerate(begins):
        assert x[row].tolist() == padded[begin : begin + length].tolist()
        assert batch['before'][row] == padded[begin - 1]
    # All but the tokens of the first window have enough before them.
    row, place = np.nonzero(weight)
    assert np.all((row == 0) | (place >= length - (stride or length)))
    predicted = stream[frame:]
    assert batch['counts'].sum(0).tolist() == PER_TOKEN[predicted].sum(0).tolist()


def test_evaluation_batches_cover_the_stream_whatever_their_size():
    stream = stream_of((30, 9, 14), 1)
    split = windows.evaluation(stream, 8, 3, PER_TOKEN)
    for batch_size in (1, 4, 64):
        batches = list(evaluation_batches(split, batch_size=batch_size))
        found = [b['x'][(b['weight'] == 1) & (b['mask'] == 1)[:, None]] for b in batches]
        assert np.concatenate(found).tolist() == stream[1:].tolist()


@pytest.mark.parametrize('frame', [1, 4])
def test_training_windows_begin_anywhere_in_whole_frames(frame):
    length, stream = 8, stream_of((10, 5, 2), frame)
    ring = stream[frame:]
    split = windows.training(stream, length, PER_TOKEN, frame=frame)
    assert split.num_examples == -(-len(ring) // length)
    begun = set()
    for bits in range(length // frame + 1):
        batch = every(split, bits)
        begins = np.arange(split.num_examples) * length + bits % (length // frame) * frame
        places = (begins[:, None] + np.arange(length)) % len(ring)
        np.testing.assert_array_equal(batch['x'], ring[places])
        np.testing.assert_array_equal(batch['before'], ring[begins % len(ring) - 1])
        np.testing.assert_array_equal(batch['counts'], PER_TOKEN[batch['x']].sum(1))
        assert batch['weight'].min() == 1
        begun |= set((begins % len(ring)).tolist())
    assert begun == set(range(0, len(ring), frame))


def test_batches_are_of_the_types_that_methods_expect():
    stream = stream_of((10, 5), 1)
    for split in (
        windows.training(stream, 8, PER_TOKEN),
        windows.evaluation(stream, 8, 2, PER_TOKEN),
    ):
        types = {name: (a.dtype.name, a.ndim) for name, a in every(split).items()}
        assert types == {
            'x': ('int32', 2),
            'before': ('int32', 1),
            'weight': ('float32', 2),
            'counts': ('float32', 2),
        }


def test_augmentation_sees_what_stands_before_and_has_bits_of_its_own():
    seen = []

    def change(tokens, bits):
        seen.append(bits)
        return tokens[:, ::-1]

    stream = stream_of((20,), 1)
    plain, changed = (windows.training(stream, 5, PER_TOKEN, change=c) for c in (None, change))
    bits = (7 << 32) + 3  # the lower half shifts, the upper one is the augmentation's
    expected, found = every(plain, 3), every(changed, bits)
    assert seen[0].tolist() == [7] * plain.num_examples
    np.testing.assert_array_equal(found['before'], expected['x'][:, -1])
    np.testing.assert_array_equal(found['x'][:, -1], expected['before'])


def test_no_units_and_streams_on_disk(tmp_path):
    np.save(tmp_path / 's.npy', stream_of((20,), 1))
    stream = np.load(tmp_path / 's.npy', mmap_mode='r')
    batch = every(windows.training(stream, 5, np.zeros((10, 0), np.float32)))
    assert batch['counts'].shape == (len(batch['x']), 0)
    assert batch['x'].ravel()[:20].tolist() == stream[1:21].tolist()


def test_a_corpus_shorter_than_a_window_goes_round():
    stream = windows.join([np.array([1, 2])], np.array([START]))
    batch = every(windows.training(stream, 7, PER_TOKEN))
    assert batch['x'].tolist() == [[1, 2, START, 1, 2, START, 1]]
    assert batch['before'].tolist() == [START]


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ((0, None), r'data\.context: 0 tokens; use 1 or more'),
        ((6, None, 4), r'data\.context: 6 tokens; use a positive multiple of 4'),
        ((8, 9), r'data\.evaluation_stride: 9 tokens; use 1 to 8, or None for 8'),
        ((8, 0), r'data\.evaluation_stride: 0'),
        ((8, 2, 4), r'data\.evaluation_stride: 2 tokens; use 4 to 8, in steps of 4'),
    ],
)
def test_lengths_that_do_not_fit_name_the_field(arguments, message):
    with pytest.raises(InputError, match=message):
        windows.check(*arguments)
    windows.check(8, 4, 4)
    windows.check(8, None)
