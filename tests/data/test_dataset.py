"""Both streams: order, resumption, processes, padding, and threads that end."""

import itertools
import subprocess
import sys
import threading

import numpy as np
import pytest

from gen_jax.data.dataset import Split, digest, evaluation_batches, training_batches
from gen_jax.errors import InputError


def numbered(num_examples: int, threads: int = 1) -> Split:
    """A split whose examples are their own numbers, with their random bits beside them."""

    def transform(raw, bits):
        return {'x': raw['x'], 'bits': bits}

    return Split(num_examples, lambda indices: {'x': indices.copy()}, transform, threads)


def take(batches, count: int) -> list[dict]:
    return list(itertools.islice(batches, count))


def assert_same(left: list[dict], right: list[dict]) -> None:
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


@pytest.mark.parametrize('threads', [1, 4])
def test_training_from_a_later_step_is_the_same_stream(threads):
    whole = take(training_batches(numbered(23, threads), batch_size=8, seed=3), 12)
    for start in (0, 1, 7, 11):
        stream = training_batches(numbered(23, threads), batch_size=8, seed=3, start_step=start)
        assert_same(take(stream, 12 - start), whole[start:])


def test_every_epoch_is_another_permutation():
    batches = take(training_batches(numbered(20), batch_size=5, seed=0), 16)
    epochs = np.concatenate([batch['x'] for batch in batches]).reshape(4, 20)
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(20))
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_batches_cross_epochs_and_may_exceed_the_set():
    batches = take(training_batches(numbered(6), batch_size=15, seed=0), 2)
    epochs = np.concatenate([batch['x'] for batch in batches]).reshape(5, 6)
    np.testing.assert_array_equal(np.sort(epochs), np.tile(np.arange(6), (5, 1)))


def test_seeds_and_steps_draw_different_orders_and_bits():
    zero, one = (take(training_batches(numbered(64), batch_size=64, seed=s), 2) for s in (0, 1))
    assert (zero[0]['x'] != one[0]['x']).any()
    bits = np.concatenate([batch['bits'] for batch in zero + one])
    assert bits.dtype == np.uint64
    assert len(np.unique(bits)) == 256


@pytest.mark.parametrize('count', [2, 4])
def test_processes_together_read_the_batches_of_one(count):
    def train(index, count):
        arguments = {'batch_size': 8, 'seed': 5, 'start_step': 2}
        split = numbered(30)
        return take(
            training_batches(split, process_index=index, process_count=count, **arguments), 9
        )

    def evaluate(index, count):
        return list(
            evaluation_batches(numbered(30), batch_size=8, process_index=index, process_count=count)
        )

    for stream in (train, evaluate):
        shares = [stream(index, count) for index in range(count)]
        joined = [
            {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
            for parts in zip(*shares, strict=True)
        ]
        assert_same(joined, stream(0, 1))


@pytest.mark.parametrize('batch_size', [1, 7, 10, 30, 64])
def test_evaluation_reads_all_once_in_order_and_pads_with_copies(batch_size):
    batches = list(evaluation_batches(numbered(30), batch_size=batch_size))
    assert {batch['x'].shape for batch in batches} == {(batch_size,)}
    mask = np.concatenate([batch['mask'] for batch in batches])
    x = np.concatenate([batch['x'] for batch in batches])
    assert mask.dtype == np.float32
    assert mask.sum() == 30
    np.testing.assert_array_equal(x[mask == 1], np.arange(30))
    assert (x[mask == 0] == 29).all()


def test_evaluation_bits_belong_to_the_example():
    def bits(batch_size):
        batches = list(evaluation_batches(numbered(30), batch_size=batch_size))
        return np.concatenate([batch['bits'] for batch in batches])[:30]

    np.testing.assert_array_equal(bits(4), bits(30))
    assert len(np.unique(bits(4))) == 30


def test_evaluation_can_stop_early():
    assert len(list(evaluation_batches(numbered(30), batch_size=8, num_batches=2))) == 2
    assert len(list(evaluation_batches(numbered(30), batch_size=8, num_batches=99))) == 4


@pytest.mark.parametrize(
    ('call', 'field'),
    [
        (lambda: training_batches(numbered(9), batch_size=0, seed=0), 'data.batch_size'),
        (
            lambda: training_batches(numbered(9), batch_size=9, seed=0, process_count=2),
            'data.batch_size',
        ),
        (lambda: training_batches(numbered(9), batch_size=3, seed=-1), 'seed'),
        (lambda: training_batches(numbered(0), batch_size=3, seed=0), 'training split'),
        (
            lambda: evaluation_batches(numbered(9), batch_size=3, process_count=2),
            'evaluate.batch_size',
        ),
        (
            lambda: evaluation_batches(numbered(9), batch_size=3, num_batches=0),
            'evaluate.num_batches',
        ),
    ],
)
def test_bad_arguments_fail_at_the_call(call, field):
    with pytest.raises(InputError, match=field):
        call()


def test_an_error_in_fetch_reaches_the_reader():
    def fetch(indices):
        raise InputError('data.data_dir: gone')

    split = numbered(9)._replace(fetch=fetch)
    with pytest.raises(InputError, match=r'data\.data_dir: gone'):
        next(training_batches(split, batch_size=3, seed=0))


def test_close_ends_the_threads():
    before = set(threading.enumerate())
    stream = training_batches(numbered(9, threads=2), batch_size=3, seed=0)
    next(stream)
    started = set(threading.enumerate()) - before
    assert started
    stream.close()
    for thread in started:
        thread.join(timeout=5)
        assert not thread.is_alive()


def test_the_interpreter_exits_with_a_stream_open():
    program = (
        'import numpy as np\n'
        'from gen_jax.data.dataset import Split, training_batches\n'
        'split = Split(9, lambda i: {"x": i}, lambda raw, bits: raw)\n'
        'stream = training_batches(split, batch_size=3, seed=0)\n'
        'next(stream)\n'
    )
    subprocess.run([sys.executable, '-c', program], check=True, timeout=60)


def test_the_digest_tells_contents_shapes_and_types_apart():
    a = np.arange(12, dtype=np.uint8)
    digests = {
        digest(*parts)
        for parts in [(a,), (a.reshape(3, 4),), (a + 1,), (a.astype(np.int8),), (a, 'x')]
    }
    assert len(digests) == 5
    assert all(len(d) == 16 and int(d, 16) >= 0 for d in digests)
