"""The shape of every dataset, and the two streams of batches that are drawn from it.

A `Split` says how to fetch examples by their numbers and how to make a batch of them; the streams
say which numbers, in what order:

    step, seed ──> indices of this process's rows ──fetch──> raw examples ──transform──> batch

Nothing else is random. A training batch is a pure function of (seed, step), so a run that starts
again at step n reads exactly what it would have read; and it is cut from one global batch, row by
row, so any number of processes sees the same examples, with the same augmentation.

`transform(raw, bits)` gets its randomness as data: `bits` is uint64 `[B]`, 64 random bits for each
row, which depend on the seed, the step and the row of the global batch alone. One bit is a coin
(`bits & 1`), a remainder picks a crop, and `np.random.Philox(key=int(bits[i]))` starts a generator.
Bits of zero leave an example as it is, up to noise that `decode` takes off again.
"""

import functools
import hashlib
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from gen_jax.errors import InputError
from gen_jax.types import DataSpec

Arrays = dict[str, np.ndarray]


class Split(NamedTuple):
    """One part of a dataset, with random access.

    `fetch(indices)` takes int64 `[B]` in `[0, num_examples)` and returns raw examples, as arrays
    with a leading axis of B. `transform(raw, bits)` makes a batch of them (see above); it may not
    mix rows. `threads` is how many batches are prepared at once: one is best for arrays in memory,
    more where fetching reads and decodes files. `labeled` is, where some examples have the label
    -1, unknown, the numbers of the others, int64; None where there are none.
    """

    num_examples: int
    fetch: Callable[[np.ndarray], Arrays]
    transform: Callable[[Arrays, np.ndarray], Arrays]
    threads: int = 1
    labeled: np.ndarray | None = None


class Dataset(NamedTuple):
    """What `load(...)` of every modality returns.

    `fingerprint` is 16 hex digits of a SHA-256, to tell two runs' data apart: of the content, or,
    where that lies in files, of what names it and of examples spread over it.
    `log_density(x)`, where it is known, is the exact log p of examples x `[N, ...]`, in nats `[N]`.
    `text_fingerprint` is one of the text that evaluates, before it became tokens.

    A modality (`images.py`, ...) is a module with this `load`; `describe` of the same arguments,
    which returns a `Description` and reads no more of the data than the spec takes; `decode(x,
    spec)`, from samples of a model to native arrays; `SUFFIXES`, of the kinds of
    file to look at or listen to, the first being the usual one; and `write(native, stem, suffix)`,
    which makes one such file, whole or not at all, and returns its path. Where a part of an example
    can be given it has `PARTS`, `known(part, spec)`, which numbers of an example belong to one, and
    `read(path, spec)`, examples of a file.
    """

    train: Split
    evaluation: Split
    spec: DataSpec
    fingerprint: str
    log_density: Callable[[np.ndarray], np.ndarray] | None = None
    text_fingerprint: str | None = None


class Description(NamedTuple):
    """What `describe` of a modality says of a source.

    `present` says whether training could start without a download; `lines` are for people.
    `partly_labeled` says that of some training examples the label is -1, unknown.
    """

    spec: DataSpec
    present: bool
    lines: tuple[str, ...]
    partly_labeled: bool = False


def digest(*parts: np.ndarray | str) -> str:
    """The first 16 hex digits of the SHA-256 of arrays (their shapes too) and words."""
    sha = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            sha.update(part.encode())
        else:
            sha.update(f'{part.dtype}{part.shape}'.encode())
            sha.update(np.ascontiguousarray(part))
    return sha.hexdigest()[:16]


def training_batches(
    split: Split,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Arrays]:
    """Yields this process's rows of the global batches of steps start_step, start_step + 1, …

    The stream never ends: it runs through a new permutation of the examples in every epoch, and
    batches go on across the border between epochs (so a batch may be larger than the set).
    `batch_size` counts the rows of the global batch; process i takes the i-th of `process_count`
    equal runs of rows. Batches are prepared ahead in a thread; `close()` on the iterator ends it.

    Raises:
      InputError: if `batch_size` cannot be divided among the processes, the seed is negative, or
        the split is empty.
    """
    if seed < 0:
        raise InputError(f'seed: {seed}; use 0 or more')
    mine = _rows_of_process('data.batch_size', batch_size, process_index, process_count)
    if split.num_examples < 1:
        raise InputError('data: the training split has no examples; point it at a set that has')

    def batch_of(step: int) -> Arrays:
        bits = np.random.SeedSequence((seed, 1, step)).generate_state(batch_size, np.uint64)[mine]
        indices = batch_indices(split, batch_size, seed, step)[mine]
        return split.transform(split.fetch(indices), bits)

    return _prepare_ahead(batch_of, start_step, sys.maxsize, split.threads)


def batch_indices(split: Split, batch_size: int, seed: int, step: int) -> np.ndarray:
    """The numbers of the examples in the global batch that is drawn after `step` others, int64
    `[B]`: a new permutation in each epoch."""
    positions = np.arange(step * batch_size, (step + 1) * batch_size)
    epochs, places = np.divmod(positions, split.num_examples)
    indices = np.empty_like(places)
    for epoch in np.unique(epochs):
        now = epochs == epoch
        indices[now] = _permutation(split.num_examples, seed, int(epoch))[places[now]]
    return indices


def evaluation_batches(
    split: Split,
    *,
    batch_size: int,
    num_batches: int | None = None,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Arrays]:
    """Yields this process's rows of every batch of the split, in order, once.

    Each batch carries `mask`, float32 `[B]`: 1 on real rows, 0 on the padding (copies of the last
    example) that fills the last batch, so that shapes never change and means can be exact.
    Random bits belong to the example: neither the batch size nor the processes change them.
    `num_batches` stops earlier; None, or more than there are, reads the whole split.

    Raises:
      InputError: if `batch_size` cannot be divided among the processes, or `num_batches` is < 1.
    """
    mine = _rows_of_process('evaluate.batch_size', batch_size, process_index, process_count)
    if num_batches is not None and num_batches < 1:
        raise InputError(f'evaluate.num_batches: {num_batches}; use 1 or more, or None for all')
    available = -(-split.num_examples // batch_size)
    bits = np.random.SeedSequence(0).generate_state(split.num_examples, np.uint64)

    def batch_of(number: int) -> Arrays:
        positions = np.arange(number * batch_size, (number + 1) * batch_size)[mine]
        indices = np.minimum(positions, split.num_examples - 1)
        batch = split.transform(split.fetch(indices), bits[indices])
        return batch | {'mask': (positions < split.num_examples).astype(np.float32)}

    return _prepare_ahead(batch_of, 0, min(num_batches or available, available), split.threads)


def _rows_of_process(field: str, batch_size: int, process_index: int, process_count: int) -> slice:
    """The rows of a global batch that belong to one process."""
    if batch_size < 1 or batch_size % process_count:
        raise InputError(
            f'{field}: {batch_size} rows cannot be shared evenly by {process_count} process(es); '
            f'use a positive multiple of {process_count}'
        )
    share = batch_size // process_count
    return slice(process_index * share, (process_index + 1) * share)


# A batch touches one epoch, or two at a border, so two permutations are worth keeping.
@functools.lru_cache(maxsize=2)
def _permutation(num_examples: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng((seed, 0, epoch)).permutation(num_examples)


def _prepare_ahead(
    batch_of: Callable[[int], Arrays], start: int, stop: int, threads: int
) -> Iterator[Arrays]:
    """Yields batch_of(start), …, batch_of(stop - 1), computing the next ones in threads."""
    import grain  # Takes a second, which commands that read no data should not pay.

    # The dataset of all batches: its index is the step, so the step is the whole position.
    batches = grain.MapDataset.range(stop).map(batch_of)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads + 1)
    iterator = iter(batches.to_iter_dataset(options))
    iterator.set_state({'next_index': min(start, stop)})
    try:
        yield from iterator
    finally:
        iterator.close()
