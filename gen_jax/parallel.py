"""Devices: where the state and the batch live, and how one pure step runs on all of them.

Two strategies serve the same step (see `step.py`):

    jit    a mesh with axes data x fsdp x tensor. The batch is split over data and fsdp; parameters,
           optimizer state and averages are split over fsdp and tensor, leaf by leaf, or where a
           network has named their axes, by these names. The numbers are those of one device, up
           to the order of summation.
    pmap   every device holds the whole state and takes its part of the batch; the step averages
           over the axis 'data'. Noise is drawn for each device, so it depends on their number.

Samples and evaluations run under jit for both. This is the only file that says pmap.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from gen_jax import runtime
from gen_jax.errors import InputError
from gen_jax.types import Batch, Tree

AXES = ('data', 'fsdp', 'tensor')
BATCH_AXES = ('data', 'fsdp')
AXIS = 'data'  # the mapped axis under pmap

# Splitting a leaf smaller than this costs more in messages than it saves in memory.
MIN_SPLIT_ELEMENTS = 1024


class Parallel(NamedTuple):
    """A strategy ('jit' or 'pmap') and the mesh of devices that it runs on."""

    strategy: str
    mesh: Mesh

    @property
    def batch_devices(self) -> int:
        """How many parts a batch is split into."""
        return math.prod(self.mesh.shape[axis] for axis in BATCH_AXES)

    @property
    def apart(self) -> int:
        """How many devices see nothing of a batch but their own part of it."""
        return self.batch_devices if self.strategy == 'pmap' else 1

    @property
    def replicated(self) -> NamedSharding:
        """On every device, whole."""
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def batch_sharding(self) -> NamedSharding:
        """Split along the leading axis."""
        return NamedSharding(self.mesh, PartitionSpec(BATCH_AXES))

    @property
    def platform(self) -> str:
        """'cpu', 'gpu' or 'tpu'."""
        return self.mesh.devices.flat[0].platform

    @property
    def jit(self) -> Callable:
        """`jax.jit` with the compiler options of these devices."""
        return functools.partial(jax.jit, compiler_options=runtime.compiler_options(self.platform))


def lay_out(
    strategy: str = 'jit', *, data: int = -1, fsdp: int = 1, tensor: int = 1, devices=None
) -> Parallel:
    """Arranges the devices in a mesh; the one axis of size -1 takes the rest.

    Raises:
      InputError: an unknown strategy, or axes whose product is not the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    if strategy not in ('jit', 'pmap'):
        raise InputError(f"parallel.strategy: {strategy!r} is neither 'jit' nor 'pmap'")
    if strategy == 'pmap' and (fsdp, tensor) != (1, 1):
        raise InputError(
            f'parallel.fsdp, parallel.tensor: {fsdp}, {tensor}; pmap replicates, so both must be '
            "1; set parallel.strategy to 'jit' to split parameters"
        )
    sizes = axis_sizes(len(devices), data, fsdp, tensor)
    kinds = (jax.sharding.AxisType.Auto,) * len(AXES)
    return Parallel(strategy, jax.make_mesh(sizes, AXES, axis_types=kinds, devices=devices))


def axis_sizes(num_devices: int, data: int, fsdp: int, tensor: int) -> list[int]:
    """The sizes of the axes on so many devices.

    Raises:
      InputError: their product is not the number of devices.
    """
    sizes = [data, fsdp, tensor]
    known = math.prod(size for size in sizes if size != -1)
    if sizes.count(-1) == 1 and known > 0:
        sizes = [num_devices // known if size == -1 else size for size in sizes]
    if min(sizes) < 1 or math.prod(sizes) != num_devices:
        raise InputError(
            f'parallel.data, parallel.fsdp, parallel.tensor: {data} x {fsdp} x {tensor} must make '
            f'{num_devices}, the number of devices; one of them may be -1, for the rest'
        )
    return sizes


def check_batch_size(parallel: Parallel, batch_size: int, field: str, num_parts: int = 1) -> None:
    """Raises InputError where a global batch cannot be split evenly over the devices, in each of
    the `num_parts` parts that it is taken in."""
    devices = parallel.batch_devices
    if batch_size < 1 or batch_size % (devices * num_parts):
        times = f', {num_parts} times one after the other (train.accumulate)'
        raise InputError(
            f'{field}: {batch_size} examples cannot be split over {devices} device(s)'
            f'{times if num_parts > 1 else ""}; use a multiple of {devices * num_parts}'
        )


def state_shardings(parallel: Parallel, abstract_state: Tree) -> Tree:
    """Where each leaf lives. Small leaves are replicated. Of others the largest axis that divides
    evenly is split over fsdp, and the last other axis that does is split over tensor.

    Where a network has named the axes of a kernel, it comes in a box with the names, and so do its
    average and its moments. Then 'hidden' alone is split over tensor, and the largest axis left
    over fsdp. Of two chained matrices the first is thus split by its outputs and the second by its
    inputs (Shoeybi et al. 2019): each device computes with its own part of both, and one sum over
    devices ends the pair.

    The shardings are those of the tree without boxes.
    """

    def unboxed(node):
        names, tree = (node.names, node.value) if _is_box(node) else (None, node)
        # A tree, since some optimizers leave a box empty, for a parameter that is not theirs.
        return jax.tree.map(lambda leaf: _sharding(parallel, leaf, names), tree)

    return jax.tree.map(unboxed, abstract_state, is_leaf=_is_box)


def _is_box(node: object) -> bool:
    return isinstance(node, nn.LogicallyPartitioned)


def _sharding(parallel: Parallel, leaf, names: tuple[str | None, ...] | None) -> NamedSharding:
    spec = [None] * len(leaf.shape)
    is_key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    by_size = sorted(range(len(spec)), key=lambda axis: leaf.shape[axis], reverse=True)
    turns = [('fsdp', by_size), ('tensor', range(len(spec) - 1, -1, -1))]
    # Sums over a row or a column, which some optimizers keep, have fewer axes than names.
    if names is not None and len(names) == len(spec):
        turns = [('tensor', [a for a in by_size if names[a] == 'hidden']), ('fsdp', by_size)]
    for mesh_axis, order in turns:
        parts = parallel.mesh.shape[mesh_axis]
        free = [a for a in order if spec[a] is None and leaf.shape[a] % parts == 0]
        if parts > 1 and free and leaf.size >= MIN_SPLIT_ELEMENTS and not is_key:
            spec[free[0]] = mesh_axis
    return NamedSharding(parallel.mesh, PartitionSpec(*spec))


def place(parallel: Parallel, batch: Mapping[str, np.ndarray]) -> Batch:
    """This process's rows of a batch, as global arrays split over the mesh."""
    make = functools.partial(jax.make_array_from_process_local_data, parallel.batch_sharding)
    return {name: make(rows) for name, rows in batch.items()}


def place_for_step(parallel: Parallel, batch: Mapping[str, np.ndarray]) -> Batch:
    """The same, in the form that the compiled step of this strategy takes."""
    if parallel.strategy == 'jit':
        return place(parallel, batch)
    local = len(parallel.mesh.local_devices)
    return {name: rows.reshape(local, -1, *rows.shape[1:]) for name, rows in batch.items()}


def abstract_for_step(parallel: Parallel, batch: Tree) -> Tree:
    """Shapes of a global batch, in the form that the compiled step of this strategy takes."""
    if parallel.strategy == 'jit':
        return batch
    n = parallel.batch_devices

    def split(rows):
        return jax.ShapeDtypeStruct((n, rows.shape[0] // n, *rows.shape[1:]), rows.dtype)

    return jax.tree.map(split, batch)


def as_global(parallel: Parallel, state: Tree) -> Tree:
    """A state as the step returned it, in arrays that all processes share.

    The pmap of several processes returns one copy for each of them, which no other program of all
    devices takes. No data moves.
    """
    if parallel.strategy == 'jit' or jax.process_count() == 1:
        return state

    def share(leaf):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(share(jax.random.key_data(leaf)))
        if not leaf.is_fully_addressable:
            return leaf  # as it was initialized or restored
        copies = [shard.data for shard in leaf.addressable_shards]
        return jax.make_array_from_single_device_arrays(leaf.shape, parallel.replicated, copies)

    return jax.tree.map(share, state)


def compile_step(parallel: Parallel, step: Callable, shardings: Tree) -> Callable:
    """`step(state, batch, axis_name=...) -> (state, metrics)`, on all devices.

    The state is donated: its memory is reused for the one returned.
    """
    if parallel.strategy == 'pmap':
        # The state has no device axis: it goes in whole, and comes out averaged and whole.
        return jax.pmap(
            functools.partial(step, axis_name=AXIS),
            axis_name=AXIS,
            in_axes=(None, 0),
            out_axes=(None, None),
            devices=list(parallel.mesh.devices.flat),
            donate_argnums=(0,),
        )
    return parallel.jit(
        step,
        in_shardings=(shardings, parallel.batch_sharding),
        out_shardings=(shardings, parallel.replicated),
        donate_argnums=(0,),
    )
