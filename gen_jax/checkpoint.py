"""Checkpoints: a TrainState on disk for each saved step, and what it must be when it is read.

A folder `checkpoints/<step>/` appears under its name only when it is complete; whatever is killed
halfway is not a checkpoint. It holds a manifest with the digest of every leaf (`manifest.py`), and
a restored state is compared with it: a damaged checkpoint is reported, set aside, and the one
before it is used. Of several processes each writes its own part.

`averages/<step>/` holds snapshots of the averages that other lengths are made from, in the same
form.
"""

import os
import shutil
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

from gen_jax import hosts, manifest
from gen_jax.errors import Ended, InputError
from gen_jax.manifest import Manifest
from gen_jax.state import TrainState, Weights
from gen_jax.types import Tree

_TRASH = 'trash'
# Words in errors of reading that say nothing of what is read.
_NO_DAMAGE = ('RESOURCE_EXHAUSTED', 'PERMISSION_DENIED', 'Permission denied')


class _Keep:
    """Orbax's word for what stays: the newest `latest` (None: all), those of every `every`-th step,
    and the best one."""

    def __init__(self, latest: int | None, every: int | None):
        self.latest, self.every, self.best = latest, every, None

    def should_preserve(self, checkpoints: Sequence, *, context) -> list[bool]:
        old = 0 if self.latest is None else len(checkpoints) - self.latest
        return [i >= old or self._stays(c.step) for i, c in enumerate(checkpoints)]

    def _stays(self, step: int) -> bool:
        return step == self.best or (self.every is not None and step % self.every == 0)


class _Manager(ocp.CheckpointManager):
    """Orbax's, without its own look at whether the run was asked to end."""

    def reached_preemption(self, step: int) -> bool:
        # It would ask JAX with the number of the step, and `preemption.check` with another one.
        return False


class Checkpoints:
    """The checkpoints of one workdir, saved in the background; use it in a `with` block, which
    waits for the last one."""

    def __init__(
        self,
        workdir: Path,
        keep: int | None = None,
        keep_every: int | None = None,
        read_only: bool = False,
        name: str = 'checkpoints',
        after: 'Checkpoints | None' = None,
    ):
        """Those in the folder `name` of `workdir`.

        `keep` is how many of the newest to keep (None: all), and those of steps divisible by
        `keep_every` stay too; `read_only` changes no file. One of these is on disk only when all
        that was given to `after` before it is.

        Raises:
          InputError: `read_only`, and there are none.
        """
        self.folder = Path(workdir).absolute() / name
        self.read_only = read_only
        if read_only and not self.folder.is_dir():
            raise InputError(f'--workdir: {workdir} has no {name}; train first, or mend the path')
        self._keep, self._after = _Keep(keep, keep_every), after
        self._handlers = {
            'state': ocp.StandardCheckpointHandler(),
            'manifest': ocp.JsonCheckpointHandler(),
        }
        # One process writes a copy of the state in a thread of its own. Several have to begin
        # together, so there the loop waits until the state is copied.
        alone = jax.process_count() == 1
        self._thread = ThreadPoolExecutor(1, initializer=_give_way) if alone else None
        self._writing: Future | None = None
        self._manager = _Manager(
            self.folder,
            # Named here, so that a checkpoint can be described before it is restored.
            item_handlers=self._handlers,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=self._keep,
                create=not read_only,
                read_only=read_only,
                enable_async_checkpointing=not alone,
                cleanup_tmp_directories=not read_only,
                # Renamed first: a deletion cut short leaves no half-deleted step behind.
                todelete_subdir=None if read_only else _TRASH,
                multiprocessing_options=ocp.options.MultiprocessingOptions(
                    barrier_sync_key_prefix=name
                ),
            ),
        )

    def __enter__(self) -> 'Checkpoints':
        return self

    def __exit__(self, kind, *_) -> None:
        # Of several processes others may be gone, and closing would wait for them.
        if kind is None or issubclass(kind, Ended) or jax.process_count() == 1:
            if kind is None or issubclass(kind, Ended):
                self._wait()  # whoever says that a step is saved has to be right
            wait([] if self._writing is None else [self._writing])
            self._manager.close()
            self._empty_trash()

    def steps(self) -> list[int]:
        """The saved steps, oldest first."""
        self._wait_for_thread()
        return sorted(self._manager.all_steps())

    def keep_best(self, step: int | None) -> None:
        """Makes this step the one that stays, however old, until another is named."""
        self._keep.best = step

    def save(self, step: int, state: Tree) -> None:
        """Starts saving; the state may be donated as soon as this returns."""
        self._wait()  # the save before may still be moving things to the trash
        if self._thread is None:
            self._write(step, state)
        else:
            self._writing = self._thread.submit(self._write, step, _copy_on_host(state))

    def drop_after(self, step: int) -> None:
        """Removes those of later steps: they will be made again."""
        for later in (s for s in self.steps() if s > step):
            self._manager.delete(later)

    def _write(self, step: int, state: Tree) -> None:
        """In the thread nothing here may need a device: see `manifest.py`."""
        if self._after is not None:
            self._after._wait()
        self._empty_trash()
        sealed = manifest.seal(manifest.describe(state))
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(state), manifest=ocp.args.JsonSave(sealed)
        )
        self._manager.save(step, args=args)

    def _wait(self) -> None:
        """Returns when what is being saved is on disk."""
        self._wait_for_thread()
        self._manager.wait_until_finished()

    def _wait_for_thread(self) -> None:
        if self._writing is not None:
            self._writing.result()

    def restore(self, template: Tree, step: int | None = None) -> Tree | None:
        """The newest checkpoint that can be read, placed as `template` says; None if there is none.

        With `step`, that one and no other. `template` holds `ShapeDtypeStruct`s with shardings. A
        damaged checkpoint is named on stderr and, where this may change files, moved aside to
        `damaged-<step>`.

        Raises:
          InputError: there are checkpoints, and none can be read; one is of another network; or
            there is none of `step`.
        """
        if step is None:
            return self._newest_sound(template)[1]
        if step not in self.steps():
            raise InputError(f'--checkpoint: none of step {step}; there are {self.steps()}')
        state = self._restore_if_sound(step, template, None)
        if state is None:
            others = [other for other in self.steps() if other != step]
            raise InputError(
                f'--workdir: {self.folder / str(step)} is damaged; restore it from a copy, or '
                f'remove it and do with the others, {others}'
            )
        return state

    def restore_player(self, template: Weights, player: str) -> tuple[int | None, Weights | None]:
        """The newest step that can be read, and one player as it was then: its parameters,
        averaged where the checkpoint has an average, and its entry of `model_state`. None and None
        if there is no checkpoint.

        Raises:
          InputError: as in `restore`.
        """
        return self._newest_sound(template, player)

    def _newest_sound(
        self, template: Tree, player: str | None = None
    ) -> tuple[int | None, Tree | None]:
        """A step and what is read of it, the whole state or one player's `Weights`."""
        steps, damaged = self.steps(), []
        for known in reversed(steps):
            state = self._restore_if_sound(known, template, player)
            if state is None:
                damaged.append(known)
                continue
            for bad in damaged:
                if self.read_only:
                    print(f'warning: checkpoint {known} is used instead', file=sys.stderr)
                else:
                    self._set_aside(bad)
            return known, state
        if steps:
            raise InputError(
                f'--workdir: none of the checkpoints {steps} in {self.folder} can be read; '
                'restore them from a copy, or start in a new workdir'
            )
        return None, None

    def manifest_of(self, step: int) -> Manifest:
        """What the checkpoint of this step says that it holds.

        Raises:
          Exception: of any kind, where it cannot be read.
        """
        return manifest.unseal(self._read(step, 'manifest', ocp.args.JsonRestore()))

    def _read(self, step: int, item: str, args: ocp.args.CheckpointArgs):
        """A part of a checkpoint, by this process for itself: where it fails alone, no other one
        waits for it, as in what Orbax's manager does."""
        return self._handlers[item].restore(self._manager.directory / str(step) / item, args=args)

    def _read_some(self, step: int, template: Tree) -> Tree:
        """The leaves of a saved state that the template has, in the same way."""
        args = ocp.args.PyTreeRestore(
            template,
            restore_args=ocp.checkpoint_utils.construct_restore_args(template),
            partial_restore=True,
        )
        place = self._manager.directory / str(step) / 'state'
        return ocp.PyTreeCheckpointHandler().restore(place, args=args)

    def fault_of(self, step: int) -> str | None:
        """What is wrong with the checkpoint of this step; None where it is what was saved."""
        try:
            leaves = self.manifest_of(step)
            here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
            saved = self._manager.item_metadata(step)['state'].tree
            template = jax.tree.map(
                lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), saved
            )
            manifest.check_same_leaves(leaves, template, step)
            state = self._read(step, 'state', ocp.args.StandardRestore(template))
            manifest.check_content(leaves, state)
        except Exception as error:  # whatever broke inside: any unreadable file is damage
            return _damage(error, self._name(step))
        return None

    def _restore_if_sound(self, step: int, template: Tree, player: str | None) -> Tree | None:
        """None, with a word on stderr, where this or another process finds the checkpoint damaged.

        Raises:
          InputError: it is sound, and of another network.
        """
        state = damage = None
        try:
            leaves = self.manifest_of(step)
            if player is None:
                manifest.check_same_leaves(leaves, template, step)
                state = self._read(step, 'state', ocp.args.StandardRestore(template))
            else:
                parts = _parts_of_player(leaves, player, template)
                leaves = _leaves_of_player(leaves, player, parts)
                template = {parts[name]: {player: getattr(template, name)} for name in parts}
                manifest.check_same_leaves(leaves, template, step)
                state = self._read_some(step, template)
        except InputError:
            raise
        except Exception as error:  # whatever broke inside: any unreadable file is damage
            damage = _damage(error, self._name(step))
        # Digests are computed by all processes, so each must have its part.
        if not hosts.any_of(damage is not None):
            try:
                manifest.check_content(leaves, state)
            except ValueError as error:
                damage = _damage(error, self._name(step))
        if damage is not None:
            print(f'warning: {self._name(step)} is damaged ({damage})', file=sys.stderr)
            state = None
        if hosts.any_of(state is None):
            return None
        if player is None:
            return state
        return Weights(**{name: state[part][player] for name, part in parts.items()})

    def _name(self, step: int) -> str:
        name = self.folder.name
        return f'checkpoint {step}' if name == 'checkpoints' else f'{name}/{step}'

    def _set_aside(self, step: int) -> None:
        place = self.folder / f'damaged-{step}'
        if hosts.is_first():
            shutil.rmtree(place, ignore_errors=True)
            (self.folder / str(step)).rename(place)
            print(f'warning: moved it to {place}', file=sys.stderr)
        hosts.wait_for_all(f'set aside {step}')
        self._manager.reload()

    def _empty_trash(self) -> None:
        if not self.read_only and hosts.is_first():
            shutil.rmtree(self.folder / _TRASH, ignore_errors=True)


def _give_way() -> None:
    """Lets this thread, and those it starts, have what the training leaves of the processors."""
    if sys.platform == 'linux':  # where priorities are those of threads
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)


def _copy_on_host(state: Tree) -> Tree:
    """The state as numpy arrays of its own; random keys stay what they are."""

    def copied(leaf):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            data = np.array(jax.random.key_data(leaf))
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
        return np.array(leaf)

    return jax.tree.map(copied, state)


def _parts_of_player(leaves: Manifest, player: str, template: Weights) -> dict[str, str]:
    """Which part of a state has each of a player's `Weights` that the template asks for."""
    averaged = any(path.startswith(f'ema_params/{player}/') for path in leaves)
    parts = {'params': 'ema_params' if averaged else 'params'}
    return parts if template.model_state is None else {**parts, 'model_state': 'model_state'}


def _leaves_of_player(leaves: Manifest, player: str, parts: Mapping[str, str]) -> Manifest:
    """What a manifest says of these parts of the player."""
    mine = tuple(f'{part}/{player}/' for part in parts.values())
    return {path: leaf for path, leaf in leaves.items() if path.startswith(mine)}


def _damage(error: Exception, name: str) -> str:
    """What is wrong with a checkpoint of this name that an error came from.

    Raises:
      InputError: nothing is; this process may not read it, or lacks the memory.
    """
    reason = str(error).strip().split('\n')[0][:160] or type(error).__name__
    if isinstance(error, MemoryError | PermissionError) or any(s in str(error) for s in _NO_DAMAGE):
        raise InputError(f'--workdir: {name} cannot be read here ({reason}); it stays as it is')
    return reason


def exist(workdir: Path) -> bool:
    """Whether there is a checkpoint in this workdir."""
    return any(path.name.isdecimal() for path in (workdir / 'checkpoints').glob('*'))


def restore_for_use(
    template: TrainState, workdir: Path, choose: Callable[[list[int]], int | None] | None = None
) -> TrainState:
    """A checkpoint of a workdir, whose files stay as they are.

    `choose` is given the saved steps and returns one; without it, or where it returns None, the
    newest that can be read is taken.

    Raises:
      InputError: there is none.
    """
    with Checkpoints(workdir, read_only=True) as checkpoints:
        step = None if choose is None else choose(checkpoints.steps())
        state = checkpoints.restore(template, step)
    if state is None:
        raise InputError(f'--workdir: {workdir} has no finished checkpoint yet; train first')
    return state
