"""Examples that are given, whole or in part, for a model to do something with: `--given`."""

import functools
import inspect
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gen_jax import workdir as workdirs
from gen_jax.data.dataset import Arrays, Dataset, Split, evaluation_batches
from gen_jax.errors import InputError
from gen_jax.run import Run, labels_for, load_data, modality
from gen_jax.types import DataSpec

HELD_OUT, TRAIN = 'held_out', 'train'


class Examples(NamedTuple):
    """Examples `[N, ...]`, and their classes int32 `[N]`, where they have any."""

    x: np.ndarray
    label: np.ndarray | None


class Given(NamedTuple):
    """Examples `[N, ...]`, which parts of them are known, bool of the same shape, and their classes
    int32 `[N]`, where a model is told classes."""

    x: np.ndarray
    known: np.ndarray
    label: np.ndarray | None


def given_of(
    config,
    run: Run,
    workdir: Path,
    source: str,
    keep: str | None,
    num: int,
    label: int | None = None,
) -> Given:
    """`num` examples, and what is kept of them.

    Args:
      config: the run's config.
      run: of the config.
      workdir: the run's folder.
      source: a file of the data's kind, or 'held_out' for the first examples of the evaluation
        split, each from its beginning; fewer than `num` are taken in turn.
      keep: which part is kept, one of the `PARTS` of the data's modality, or several with commas.
      label: the class of all; None for those of the evaluation split.

    Raises:
      InputError: a method that cannot complete examples, data without parts, a part that it has
        not, a file that cannot be read, or other data than the run began with.
    """
    data = modality(config)
    takes = inspect.signature(run.method.sample or len).parameters
    if 'given' not in takes:
        raise InputError('--given: this method draws whole examples and completes none')
    if not hasattr(data, 'PARTS'):
        raise InputError(f'--given: {config.data.modality} has no parts to keep; see --prompt')
    kept = (keep or '').split(',')
    if not set(kept) <= set(data.PARTS):
        raise InputError(f'--keep: {keep!r}; say what is kept, of {", ".join(data.PARTS)}')
    if source == HELD_OUT:
        split = _data_of(config, run, workdir).evaluation
        batch = _first(split, num) if run.spec.start_token is None else _documents(split, run.spec)
    else:
        batch = _of_file(config, run, source)
    these = np.arange(num) % len(batch['x'])
    x = batch['x'][these]
    labels = None
    if run.method.num_classes is not None and label is None:
        if 'label' not in batch:
            raise InputError('--label: say of which class the file is')
        labels = batch['label'][these]
    elif label is not None:
        labels = labels_for(run, num, label)
    known = functools.reduce(np.logical_or, (data.known(part, run.spec) for part in kept))
    return Given(x, np.broadcast_to(known, x.shape), labels)


def examples_of(
    config, run: Run, workdir: Path, source: str, num: int | None, label: int | None = None
) -> Examples:
    """The first `num` examples of a source, or all that it has.

    Args:
      config: the run's config.
      run: of the config.
      workdir: the run's folder.
      source: a file of the data's kind, or 'held_out' or 'train' for one of the data's splits.
      num: None for all.
      label: the class of all; None for their own.

    Raises:
      InputError: a file that cannot be read, other data than the run began with, or no class where
        the method is told classes.
    """
    if source in (HELD_OUT, TRAIN):
        dataset = _data_of(config, run, workdir)
        split = dataset.evaluation if source == HELD_OUT else dataset.train
        num = split.num_examples if num is None else min(num, split.num_examples)
        batch = _first(split, num) if source == HELD_OUT else _as_they_are(split, num)
    else:
        batch = _of_file(config, run, source)
    x = batch['x'][:num]
    if label is not None:
        return Examples(x, labels_for(run, len(x), label))
    latent = run.method.codec or run.method.latents
    is_told = latent is not None and latent.num_classes is not None
    if 'label' not in batch and is_told:
        raise InputError('--label: say of which class the file is')
    labels = batch['label'][:num] if 'label' in batch else None
    if is_told and np.any(labels < 0):
        raise InputError(f'--given: {source!r} has examples without a label; say one by --label')
    return Examples(x, labels)


def _data_of(config, run: Run, workdir: Path) -> Dataset:
    dataset = load_data(config, run.spec)
    workdirs.check_data(workdir, dataset.fingerprint)
    return dataset


def _of_file(config, run: Run, source: str) -> Arrays:
    path = Path(source).expanduser()
    if not path.is_file():
        raise InputError(f'--given: there is no file {path}')
    data = modality(config)
    if not hasattr(data, 'read'):
        raise InputError(f'--given: files of {config.data.modality} cannot be given here')
    return {'x': data.read(path, run.spec)}


def _first(split: Split, num: int) -> Arrays:
    """The first `num` examples, or all there are."""
    batches = evaluation_batches(split, batch_size=min(num, split.num_examples), num_batches=1)
    batch = next(batches)
    batches.close()
    return batch


def _as_they_are(split: Split, num: int) -> Arrays:
    """The first `num` training examples, with noise where the data has some, and not mirrored."""
    bits = np.random.SeedSequence(0).generate_state(num, np.uint64) & ~np.uint64(1)
    return split.transform(split.fetch(np.arange(num)), bits)


def _documents(split: Split, spec: DataSpec) -> Arrays:
    """The beginnings of all documents that were cut into the windows of a split, as examples: what
    follows the end of one is filled with ends."""
    parts = [
        batch['x'][batch['weight'] * batch['mask'][:, None] > 0]
        for batch in evaluation_batches(split, batch_size=64)
    ]
    stream = np.concatenate(parts)  # every token of the documents, once
    ends = np.flatnonzero(stream == spec.start_token)
    documents = [part[part != spec.start_token] for part in np.split(stream, ends)]
    documents = [document[: spec.shape[0]] for document in documents if len(document)]
    x = np.full((len(documents), *spec.shape), spec.start_token, np.int32)
    for row, document in zip(x, documents, strict=True):
        row[: len(document)] = document
    return {'x': x}
