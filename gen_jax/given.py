"""Examples of which a part is given, for a model to draw the rest: `--given`, `--keep`."""

import inspect
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gen_jax.data.dataset import evaluation_batches
from gen_jax.errors import InputError
from gen_jax.run import Run, labels_for, load_data, modality

HELD_OUT = 'held_out'


class Given(NamedTuple):
    """Examples `[N, ...]`, which parts of them are known, bool of the same shape, and their classes
    int32 `[N]`, where a model is told classes."""

    x: np.ndarray
    known: np.ndarray
    label: np.ndarray | None


def given_of(
    config, run: Run, source: str, keep: str | None, num: int, label: int | None = None
) -> Given:
    """`num` examples, and what is kept of them.

    Args:
      config: the run's config.
      run: of the config.
      source: a file of the data's kind, or 'held_out' for the first examples of the evaluation
        split; fewer than `num` are taken in turn.
      keep: which part is kept, one of the `PARTS` of the data's modality.
      label: the class of all; None for those of the evaluation split.

    Raises:
      InputError: a method that cannot complete examples, data without parts, a part that it has
        not, or a file that cannot be read.
    """
    data = modality(config)
    takes = inspect.signature(run.method.sample or len).parameters
    if 'given' not in takes:
        raise InputError('--given: this method draws whole examples and completes none')
    if not hasattr(data, 'PARTS'):
        raise InputError(f'--given: {config.data.modality} has no parts to keep; see --prompt')
    if keep not in data.PARTS:
        raise InputError(f'--keep: {keep!r}; say what is kept, one of {", ".join(data.PARTS)}')
    if source == HELD_OUT:
        split = load_data(config, run.spec).evaluation
        size = min(num, split.num_examples)
        batches = evaluation_batches(split, batch_size=size, num_batches=1)
        batch = next(batches)
        batches.close()
    else:
        batch = {'x': data.read(Path(source).expanduser(), run.spec)}
    these = np.arange(num) % len(batch['x'])
    x = batch['x'][these]
    labels = None
    if run.method.num_classes is not None and label is None:
        if 'label' not in batch:
            raise InputError('--label: say of which class the file is')
        labels = batch['label'][these]
    elif label is not None:
        labels = labels_for(run, num, label)
    return Given(x, np.broadcast_to(data.known(keep, run.spec), x.shape), labels)
