"""Windows of a stream: what is predicted, given what, how often."""

import itertools

import numpy as np
import pytest

from gen_jax.data import token_windows
from gen_jax.data.dataset import evaluation_batches, training_batches
from gen_jax.errors import InputError

END = 999
UNITS = np.stack([np.arange(1000) % 7, np.arange(1000) % 3], axis=1).astype(np.float32)
UNITS[END] = 0


def stream_of(length: int) -> np.ndarray:
    """Every token but END once, so that a token tells its place."""
    return np.array([END, *range(1, length - 1), END], np.uint16)


def windows(split, bits: int = 0) -> dict[str, np.ndarray]:
    indices = np.arange(split.num_examples)
    return split.transform(split.fetch(indices), np.full(len(indices), bits, np.uint64))


@pytest.mark.parametrize(('length', 'context'), [(50, 7), (50, 49), (17, 16), (18, 16), (100, 1)])
def test_training_windows_begin_at_multiples_and_shift(length, context):
    stream = stream_of(length)
    split = token_windows.training(stream, context, UNITS)
    around = length - 1
    assert split.num_examples == -(-around // context)
    ring = stream[1:]  # the last END is the first, too
    for bits in (0, 1, 5, context - 1, context, 2**64 - 1):
        batch = windows(split, bits)
        shift = bits % context
        for i in range(split.num_examples):
            places = (i * context + shift + np.arange(context)) % around
            np.testing.assert_array_equal(batch['x'][i], ring[places])
            assert batch['before'][i] == ring[places[0] - 1]
        assert (batch['weight'] == 1).all()
        np.testing.assert_array_equal(batch['counts'], UNITS[batch['x']].sum(1))
    assert batch['x'].dtype == batch['before'].dtype == np.int32
    assert batch['weight'].dtype == batch['counts'].dtype == np.float32


def test_without_shift_an_epoch_holds_every_token():
    batch = windows(token_windows.training(stream_of(50), 7, UNITS))
    assert set(batch['x'].ravel().tolist()) == {END, *range(1, 49)}
    np.testing.assert_array_equal(np.unique(batch['x'], return_counts=True)[1], 1)


def test_by_and_by_every_token_is_at_every_place():
    split = token_windows.training(stream_of(61), 12, UNITS)
    assert split.num_examples * 12 == 60
    seen = np.zeros((1000, 12), int)
    for bits in range(12):
        for row in windows(split, bits)['x']:
            seen[row, np.arange(12)] += 1
    assert (seen[[END, *range(1, 60)]] == 1).all()


def test_training_needs_a_whole_window():
    token_windows.training(stream_of(11), 10, UNITS)
    with pytest.raises(InputError, match=r'^data\.context: 11 is more than the 10 tokens'):
        token_windows.training(stream_of(11), 11, UNITS)


@pytest.mark.parametrize('length', [3, 9, 10, 11, 12, 20, 21, 22, 57, 100])
@pytest.mark.parametrize('stride', [1, 2, 3, 7, 9, 10])
def test_evaluation_predicts_every_token_once_after_what_precedes_it(length, stride):
    context, stream = 10, stream_of(length)
    split = token_windows.evaluation(stream, context, stride, UNITS, END)
    batch = windows(split, bits=12345)
    predicted = np.zeros(length, int)
    for i in range(split.num_examples):
        start = i * stride  # x[0] is the token of place start + 1
        assert batch['before'][i] == stream[start]
        for j in range(context):
            place = start + 1 + j
            if place < length:
                assert batch['x'][i, j] == stream[place]
            else:
                assert (batch['x'][i, j], batch['weight'][i, j]) == (END, 0)
            if batch['weight'][i, j]:
                predicted[place] += 1
                assert i == 0 or j >= context - stride  # the least context there is
        assert batch['weight'][i].any()
    assert predicted.tolist() == [0] + [1] * (length - 1)
    np.testing.assert_array_equal(batch['counts'].sum(0), UNITS[stream].sum(0))
    assert set(np.unique(batch['weight'])) <= {0, 1}
    assert batch['weight'].shape == batch['x'].shape == (split.num_examples, context)


def test_evaluation_batches_sum_to_the_whole_stream():
    stream = stream_of(500)
    split = token_windows.evaluation(stream, 16, 5, UNITS, END)
    counts, tokens = np.zeros(2), 0
    for batch in evaluation_batches(split, batch_size=7):
        counts += (batch['counts'] * batch['mask'][:, None]).sum(0)
        tokens += (batch['weight'] * batch['mask'][:, None]).sum()
    assert tokens == 499
    np.testing.assert_array_equal(counts, UNITS[stream].sum(0))


def test_training_batches_are_shuffled_and_go_on_where_they_were():
    split = token_windows.training(stream_of(500), 8, UNITS)

    def batches(start, count, **processes):
        stream = training_batches(split, batch_size=6, seed=3, start_step=start, **processes)
        found = list(itertools.islice(stream, count))
        stream.close()
        return found

    whole = batches(0, 20)
    for one, other in zip(whole[13:], batches(13, 7), strict=True):
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])
    shares = [batches(13, 7, process_index=i, process_count=3) for i in range(3)]
    for step in range(7):
        joined = np.concatenate([share[step]['x'] for share in shares])
        np.testing.assert_array_equal(joined, whole[13 + step]['x'])
    starts = np.concatenate([batch['x'][:, 0] for batch in whole])
    assert len(np.unique(starts % 8)) == 8  # all shifts
    assert (np.diff(starts) < 0).sum() > 30  # in no order
