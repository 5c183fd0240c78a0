"""Checkpoints: a TrainState on disk for each saved step, and nothing else.

A folder `checkpoints/<step>/` appears under its name only when it is complete; whatever is killed
halfway is not a checkpoint. A damaged one is reported, set aside, and the one before it is used.
"""

import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

from gen_jax.errors import InputError
from gen_jax.state import TrainState
from gen_jax.types import Tree

_TRASH = 'trash'


class _Keep:
    """Orbax's word for what stays: the newest `latest` ones (None: all), and the best one."""

    def __init__(self, latest: int | None):
        self.latest, self.best = latest, None

    def should_preserve(self, checkpoints: Sequence, *, context) -> list[bool]:
        old = 0 if self.latest is None else len(checkpoints) - self.latest
        return [i >= old or c.step == self.best for i, c in enumerate(checkpoints)]


class Checkpoints:
    """The checkpoints of one workdir, saved in the background; use it in a `with` block, which
    waits for the last one."""

    def __init__(
        self,
        workdir: Path,
        keep: int | None = None,
        read_only: bool = False,
    ):
        """`keep` is how many of the newest to keep (None: all); `read_only` changes no file.

        Raises:
          InputError: `read_only`, and there are no checkpoints.
        """
        self.folder = Path(workdir).absolute() / 'checkpoints'
        self.read_only = read_only
        if read_only and not self.folder.is_dir():
            raise InputError(
                f'--workdir: {workdir} has no checkpoints; train first, or mend the path'
            )
        self._keep = _Keep(keep)
        self._manager = ocp.CheckpointManager(
            self.folder,
            # Named here, so that a checkpoint can be described before it is restored.
            item_handlers={'state': ocp.StandardCheckpointHandler()},
            options=ocp.CheckpointManagerOptions(
                preservation_policy=self._keep,
                create=not read_only,
                read_only=read_only,
                cleanup_tmp_directories=not read_only,
                # Renamed first: a deletion cut short leaves no half-deleted step behind.
                todelete_subdir=None if read_only else _TRASH,
            ),
        )

    def __enter__(self) -> 'Checkpoints':
        return self

    def __exit__(self, *_) -> None:
        self._manager.close()
        self._empty_trash()

    def steps(self) -> list[int]:
        """The saved steps, oldest first."""
        return sorted(self._manager.all_steps())

    def keep_best(self, step: int | None) -> None:
        """Makes this step the one that stays, however old, until another is named."""
        self._keep.best = step

    def save(self, step: int, state: TrainState) -> None:
        """Starts saving; the state may be donated as soon as this returns."""
        self._manager.wait_until_finished()  # the save before may still be moving things there
        self._empty_trash()
        self._manager.save(step, args=ocp.args.Composite(state=ocp.args.StandardSave(state)))

    def restore(self, template: TrainState, step: int | None = None) -> TrainState | None:
        """The newest checkpoint that can be read, placed as `template` says; None if there is none.

        With `step`, that one and no other.

        `template` holds `ShapeDtypeStruct`s with shardings. A damaged checkpoint is named on
        stderr and, where this may change files, moved aside to `checkpoints/damaged-<step>`.

        Raises:
          InputError: there are checkpoints, and none can be read; one is of another network; or
            there is none of `step`.
        """
        steps, damaged = self.steps(), []
        if step is not None:
            if step not in steps:
                raise InputError(f'--checkpoint: none of step {step}; there are {steps}')
            steps = [step]
        for step in reversed(steps):
            try:
                state = self._restore_step(step, template)
            except InputError:
                raise
            except Exception as error:  # whatever broke inside: any unreadable file is damage
                reason = str(error).strip().split('\n')[0][:160] or type(error).__name__
                print(f'warning: checkpoint {step} is damaged ({reason})', file=sys.stderr)
                damaged.append(step)
                continue
            if not self.read_only:
                for step in damaged:
                    self._set_aside(step)
            return state
        if steps:
            raise InputError(
                f'--workdir: none of the checkpoints {steps} in {self.folder} can be read; '
                'restore them from a copy, or start in a new workdir'
            )
        return None

    def _restore_step(self, step: int, template: TrainState) -> TrainState:
        saved = self._manager.item_metadata(step)['state'].tree
        check_same_leaves(saved, template, step)
        args = ocp.args.Composite(state=ocp.args.StandardRestore(template))
        return self._manager.restore(step, args=args)['state']

    def _set_aside(self, step: int) -> None:
        place = self.folder / f'damaged-{step}'
        shutil.rmtree(place, ignore_errors=True)
        (self.folder / str(step)).rename(place)
        print(f'warning: moved it to {place}', file=sys.stderr)
        self._manager.reload()

    def _empty_trash(self) -> None:
        if not self.read_only and jax.process_index() == 0:
            shutil.rmtree(self.folder / _TRASH, ignore_errors=True)


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


def check_same_leaves(saved: Tree, template: TrainState, step: int) -> None:
    """Raises InputError naming the first leaf whose presence, shape or type differs.

    Restoring would otherwise cast a wrong type without a word.
    """
    wanted = jax.eval_shape(_without_keys, template)
    saved, wanted = _leaves_by_path(saved), _leaves_by_path(wanted)
    for path in sorted(saved.keys() | wanted.keys()):
        if saved.get(path) != wanted.get(path):
            raise InputError(
                f'--workdir: checkpoint {step} is of another model: {path} is '
                f'{saved.get(path, "absent")} there and {wanted.get(path, "absent")} by the config'
            )


def _without_keys(tree: Tree) -> Tree:
    """Random keys as the integers that are stored for them."""

    def plain(leaf):
        is_key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return jax.random.key_data(leaf) if is_key else leaf

    return jax.tree.map(plain, tree)


def _leaves_by_path(tree: Tree) -> dict[str, str]:
    """`{'params/model/conv/kernel': 'float32[3, 3, 8, 8]', ...}`"""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator='/'): (
            f'{np.dtype(leaf.dtype).name}{list(leaf.shape)}'
        )
        for path, leaf in flat
    }
