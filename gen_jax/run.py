"""A run: what a config becomes before any data is read, shared by every mode.

config ──► data description ──► spec ──► method, optimizers ──► the state's shapes and places
"""

import functools
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import NamedTuple

import flax.linen as nn
import jax
import numpy as np
import optax

from gen_jax import averaging, build, hosts, parallel, runtime
from gen_jax.data.dataset import Arrays, Dataset, training_batches
from gen_jax.errors import InputError
from gen_jax.methods.method import Method
from gen_jax.optim import optimizer
from gen_jax.parallel import Parallel
from gen_jax.state import TrainState, Weights, init_state
from gen_jax.step import train_step
from gen_jax.types import Batch, DataSpec

# Fields of the data section that say how it is used rather than what is loaded.
_NOT_LOADED = ('modality', 'batch_size')
# Numbers of a run that may be left out: never, all of them.
_MAY_BE_NONE = (
    'train.evaluate_every',
    'train.sample_every',
    'train.score_every',
    'train.score_seconds',
    'train.best_by',
    'train.keep_checkpoints',
    'train.keep_every',
    'train.checkpoint_minutes',
    'train.stop_after_symptoms',
    'ema.snapshot_every',
    'evaluate.num_batches',
    'evaluate.scores.num',
    'evaluate.scores.num_references',
)
# Those that are measured in seconds or minutes.
_DURATIONS = ('score_seconds', 'checkpoint_minutes')


class Run(NamedTuple):
    """Everything but the data and the weights."""

    parallel: Parallel
    spec: DataSpec
    method: Method
    optimizers: dict[str, optax.GradientTransformation]
    template: TrainState  # ShapeDtypeStructs with shardings


def assemble(
    config, devices: Sequence[jax.Device] | None = None, *, spec: DataSpec | None = None
) -> Run:
    """Builds and checks everything that the config names, without reading data or computing.

    `devices` are those to run on; None takes all. With a `spec`, of a run that has begun, the data
    is not looked at.

    Raises:
      InputError: naming the first field that is wrong.
    """
    check_values(config)
    layout = build.call(parallel.lay_out, config.parallel, 'parallel', devices=devices)
    partly_labeled = False
    if spec is None:
        described = modality(config).describe(**data_options(config))
        spec, partly_labeled = described.spec, described.partly_labeled
    method, optimizers = players(config, spec)
    _check_batch_parts(config, method, layout.apart)
    if partly_labeled and not method.learns_unlabeled:
        raise InputError(
            'data.labels_per_class: this method does not learn from images without a label; set '
            'data.labeled_only to True, or data.labels_per_class to None'
        )
    boxed = jax.eval_shape(  # with names of axes, which only the shardings need
        functools.partial(init_state, method, optimizers, num_profiles=len(_lengths(config))),
        config.seed,
        abstract_batch(spec, layout.batch_devices),
    )
    template = jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        nn.unbox(boxed),
        parallel.state_shardings(layout, boxed),
    )
    return Run(layout, spec, method, optimizers, template)


def players(config, spec: DataSpec) -> tuple[Method, dict[str, optax.GradientTransformation]]:
    """The method, and the optimizer of each player.

    Raises:
      InputError: a name or an argument of theirs that is wrong.
    """
    method = build.method(config, spec)
    return method, {
        player: build.call(
            optimizer,
            section.to_dict(),
            f'optim.{player}',
            field=f'optim.{player}',
            updates_per_step=method.updates_per_step(player),
        )
        for player, section in config.optim.items()
    }


def _check_batch_parts(config, method: Method, devices: int) -> None:
    """Raises InputError where a batch cannot be split into the parts that the method takes, on each
    of so many devices that take theirs apart."""
    parts = config.train.accumulate * method.batch_parts
    size, each = config.data.batch_size, parts * devices
    if method.batch_parts > 1 and size % each:
        on_each = f' on each of {devices} devices' if devices > 1 else ''
        raise InputError(
            f'data.batch_size: {size} examples do not divide into the {parts} parts that a step '
            'takes one after the other (method.discriminator_steps times train.accumulate)'
            f'{on_each}; use a multiple of {each}'
        )


def compile_step(run: Run, config) -> Callable[[TrainState, Batch], tuple[TrainState, dict]]:
    """The train step of this run on its devices; compiled at its first call, or by `.lower`."""
    step = step_of(config, run.method, run.optimizers)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, run.template)
    return parallel.compile_step(run.parallel, step, shardings)


def step_of(config, method: Method, optimizers: Mapping) -> Callable:
    """`train_step` of these players, with what the config says besides."""
    return functools.partial(
        train_step,
        method=method,
        optimizers=optimizers,
        ema_decay=config.ema.decay,
        ema_lengths=_lengths(config),
        num_parts=config.train.accumulate,
        scale_loss=config.precision == 'float16',
    )


def initialize(run: Run, seed: int, given: Mapping[str, Weights] | None = None) -> TrainState:
    """The state at step 0, made in place: never whole on one device.

    `given` has weights to begin with, by player, placed as in the template; see `restore.py`.
    """
    batch = abstract_batch(run.spec, run.parallel.batch_devices)
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), batch)
    num_profiles = len(run.template.power_ema)

    def make(seed, batch, given):
        return nn.unbox(init_state(run.method, run.optimizers, seed, batch, num_profiles, given))

    shardings = jax.tree.map(lambda leaf: leaf.sharding, run.template)
    options = runtime.quick_compile_options(run.parallel.platform)
    return jax.jit(make, out_shardings=shardings, compiler_options=options)(seed, zeros, given)


def _lengths(config) -> tuple[float, ...]:
    """Of the averages that are kept for others to be made from; none without snapshots."""
    return () if config.ema.snapshot_every is None else tuple(config.ema.lengths)


def abstract_batch(spec: DataSpec, size: int) -> Batch:
    """Shapes and types of a batch of `size` examples."""
    batch = {'x': jax.ShapeDtypeStruct((size, *spec.shape), np.dtype(spec.dtype))}
    if spec.num_classes is not None:
        batch['label'] = jax.ShapeDtypeStruct((size,), np.int32)
    if spec.start_token is not None:  # windows of documents
        batch['before'] = jax.ShapeDtypeStruct((size,), np.int32)
        batch['weight'] = jax.ShapeDtypeStruct((size, *spec.shape), np.float32)
        batch['counts'] = jax.ShapeDtypeStruct((size, len(spec.units)), np.float32)
    return batch


def modality(config) -> ModuleType:
    """The module of the config's kind of data; see `data/dataset.py` for what it has."""
    build.find('data', f'{config.data.modality}.load', 'data.modality')
    return importlib.import_module(f'gen_jax.data.{config.data.modality}')


def data_options(config) -> dict:
    """The keyword arguments for the modality's `load` and `describe`.

    Raises:
      InputError: a field of the data section that they do not take.
    """
    options = {k: v for k, v in config.data.items() if k not in _NOT_LOADED}
    build.check_keywords(modality(config).load, options, 'data')
    return options


def load_data(config, spec: DataSpec | None = None) -> Dataset:
    """Reads the config's data; downloads and prepares it where it is absent.

    Raises:
      InputError: the data is missing and cannot be had, or cannot be read, or is not like the
        examples of a run that has begun, which are of this `spec`.
    """
    load = functools.partial(modality(config).load, **data_options(config))
    dataset = hosts.together(load, 'data')  # the first process prepares what the others find
    if spec is not None and dataset.spec != spec:
        names = [n for n in spec._fields if getattr(spec, n) != getattr(dataset.spec, n)]
        raise InputError(
            f'data: not like what the run began with ({", ".join(names)} differs), so its numbers '
            'would not be of this model; bring the old data back'
        )
    return dataset


def labels_for(run: Run, num: int, label: int | None = None) -> np.ndarray | None:
    """The labels of `num` samples: all `label`, or the classes in turn; None without classes.

    Raises:
      InputError: a label that the model does not have.
    """
    classes = run.method.num_classes
    if classes is None:
        if label is not None:
            raise InputError('--label: this model was trained without labels')
        return None
    if label is None:
        return np.arange(num, dtype=np.int32) % classes
    if not 0 <= label < classes:
        raise InputError(f'--label: {label} must be from 0 to {classes - 1}')
    return np.full(num, label, np.int32)


def batches_after(step: int, dataset: Dataset, config) -> Iterator[Arrays]:
    """This process's rows of the batches of steps `step` + 1, `step` + 2, ...; close it."""
    return training_batches(
        dataset.train,
        batch_size=config.data.batch_size,
        seed=config.seed,
        start_step=step,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )


def check_values(config) -> None:
    """Raises InputError for a number that no run could use."""
    positive = {
        'data.batch_size': config.data.batch_size,
        **{
            f'train.{name}': value
            for name, value in config.train.items()
            if not isinstance(value, str | tuple) and name not in _DURATIONS
        },
        'ema.snapshot_every': config.ema.snapshot_every,
        'evaluate.scores.num': config.evaluate.scores.num,
        'evaluate.scores.num_references': config.evaluate.scores.num_references,
        'evaluate.batch_size': config.evaluate.batch_size,
        'evaluate.num_batches': config.evaluate.num_batches,
        'sample.num': config.sample.num,
        'sample.batch_size': config.sample.batch_size,
    }
    others = {
        'ema.decay': config.ema.decay,
        'ema.lengths': config.ema.lengths,
        'evaluate.scores.metrics': config.evaluate.scores.metrics,
        'evaluate.scores.features': config.evaluate.scores.features,
        'seed': config.seed,
    }
    for field, value in {**positive, **others}.items():
        if value is None and field not in _MAY_BE_NONE:
            raise InputError(f'{field}: None; it needs a value')
    for field, value in positive.items():
        if value is not None and value < 1:
            raise InputError(f'{field}: {value} must be at least 1')
    for name in _DURATIONS:
        value = config.train[name]
        if value is not None and not value > 0:
            raise InputError(f'train.{name}: {value} must be above 0, or None')
    if config.ema.snapshot_every is not None and not config.ema.lengths:
        raise InputError('ema.lengths: give at least one, or set ema.snapshot_every to None')
    for length in config.ema.lengths:
        averaging.check_length(length, 'ema.lengths')
    if not 0 <= config.ema.decay < 1:
        raise InputError(f'ema.decay: {config.ema.decay} must be from 0 (no average) to below 1')
    if not 0 <= config.seed < 2**31:
        raise InputError(f'seed: {config.seed} must be from 0 to 2147483647')
