"""Checkpoints: exact, and honest about damage."""

import collections
import random
import shutil
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gen_jax.checkpoint import Checkpoints, restore_for_use
from gen_jax.errors import InputError, Preempted
from gen_jax.state import TrainState, first_guard


def state_at(step: int, width: int = 4) -> TrainState:
    """A state with every kind of leaf: float32, bfloat16, integers, a random key."""
    params = {
        'model': {
            'kernel': step + jnp.arange(3 * width, dtype=jnp.float32).reshape(3, width),
            'bias': jnp.full(width, step / 3, jnp.bfloat16),
        }
    }
    return TrainState(
        step=jnp.int32(step),
        params=params,
        model_state={'seen': jnp.float32(step)},
        opt_state={'model': optax.adam(1e-3).init(params['model'])},
        ema_params=jax.tree.map(jnp.copy, params),
        power_ema=(),
        guard=first_guard(),
        key=jax.random.key(7),
    )


def template_of(state: TrainState):
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state
    )


def save(workdir, *steps: int, width: int = 4, **options) -> None:
    with Checkpoints(workdir, **options) as checkpoints:
        for step in steps:
            checkpoints.save(step, state_at(step, width))


def assert_same(a: TrainState, b: TrainState) -> None:
    plain = [s.replace(key=jax.random.key_data(s.key)) for s in (a, b)]
    for x, y in zip(*map(jax.tree.leaves, plain), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


def destroy(workdir, step: int, name: str = 'checkpoints') -> None:
    """Cuts every data file of a checkpoint in half."""
    folder = workdir / name / str(step)
    files = [path for path in folder.rglob('*') if path.is_file() and '/d/' in str(path)]
    assert files
    for path in files:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_every_leaf_comes_back_bit_for_bit(tmp_path):
    save(tmp_path, 3)
    assert_same(restore_for_use(template_of(state_at(0)), tmp_path), state_at(3))


def test_the_newest_are_kept_and_nothing_else_stays_behind(tmp_path):
    save(tmp_path, 1, 2, 3, 4, keep=2)
    assert sorted(path.name for path in (tmp_path / 'checkpoints').iterdir()) == ['3', '4']


def test_a_damaged_newest_checkpoint_is_set_aside_and_the_one_before_is_used(tmp_path, capsys):
    save(tmp_path, 1, 2)
    destroy(tmp_path, 2)
    with Checkpoints(tmp_path) as checkpoints:
        assert_same(checkpoints.restore(template_of(state_at(0))), state_at(1))
        assert checkpoints.steps() == [1]
        checkpoints.save(2, state_at(2))  # its place is free again
    assert_same(restore_for_use(template_of(state_at(0)), tmp_path), state_at(2))
    assert 'checkpoint 2 is damaged' in capsys.readouterr().err
    assert (tmp_path / 'checkpoints' / 'damaged-2').is_dir()


def test_reading_only_skips_the_damaged_one_and_moves_nothing(tmp_path, capsys):
    save(tmp_path, 1, 2)
    destroy(tmp_path, 2)
    assert_same(restore_for_use(template_of(state_at(0)), tmp_path), state_at(1))
    assert 'checkpoint 2 is damaged' in capsys.readouterr().err
    assert (tmp_path / 'checkpoints' / '2').is_dir()


def test_nothing_readable_is_an_error_and_never_a_fresh_start(tmp_path):
    save(tmp_path, 1)
    destroy(tmp_path, 1)
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(InputError, match='can be read'):
        checkpoints.restore(template_of(state_at(0)))
    assert (tmp_path / 'checkpoints' / '1').is_dir()  # what cannot be judged stays where it was


@pytest.mark.parametrize(
    ('name', 'called'), [('checkpoints', 'checkpoint 1'), ('averages', 'averages/1')]
)
def test_a_damaged_one_that_is_asked_for_is_named(name, called, tmp_path, capsys):
    with Checkpoints(tmp_path, name=name) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, state_at(step))
    destroy(tmp_path, 1, name)
    message = rf'^--workdir: {tmp_path}/{name}/1 is damaged; .* the others, \[2, 3\]$'
    with (
        Checkpoints(tmp_path, read_only=True, name=name) as checkpoints,
        pytest.raises(InputError, match=message),
    ):
        checkpoints.restore(template_of(state_at(0)), 1)
    assert capsys.readouterr().err.startswith(f'warning: {called} is damaged (')


def test_no_checkpoints(tmp_path):
    with Checkpoints(tmp_path / 'new') as checkpoints:
        assert checkpoints.restore(template_of(state_at(0))) is None
    with pytest.raises(InputError, match='no checkpoints'):
        restore_for_use(template_of(state_at(0)), tmp_path)
    with pytest.raises(InputError, match='no finished checkpoint'):
        restore_for_use(template_of(state_at(0)), tmp_path / 'new')


def test_another_shape_is_named(tmp_path):
    save(tmp_path, 1)
    with pytest.raises(InputError, match=r'ema_params/model/bias is bfloat16\[4\] there and'):
        restore_for_use(template_of(state_at(0, width=5)), tmp_path)


def test_another_type_is_an_error_and_not_a_cast(tmp_path):
    save(tmp_path, 1)
    state = state_at(0)
    state = state.replace(model_state={'seen': jnp.bfloat16(0)})
    with pytest.raises(InputError, match=r'model_state/seen is float32\[\] there and bfloat16'):
        restore_for_use(template_of(state), tmp_path)


def names_in(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_steps_divisible_by_keep_every_stay(tmp_path):
    save(tmp_path, *range(1, 9), keep=2, keep_every=3)
    assert names_in(tmp_path / 'checkpoints') == ['3', '6', '7', '8']
    with Checkpoints(tmp_path, keep=1, keep_every=3) as checkpoints:  # also those of a run before
        checkpoints.save(10, state_at(10))
    assert names_in(tmp_path / 'checkpoints') == ['10', '3', '6']
    for step in (3, 6):
        state = restore_for_use(template_of(state_at(0)), tmp_path, lambda steps, step=step: step)
        assert_same(state, state_at(step))


def test_later_steps_are_dropped_and_can_be_made_again(tmp_path):
    save(tmp_path, 2, 4, 6, 8)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.drop_after(5)
        assert checkpoints.steps() == [2, 4]
        checkpoints.drop_after(4)  # nothing is left to drop
        assert checkpoints.steps() == [2, 4]
        checkpoints.save(6, state_at(6, width=3))
    assert names_in(tmp_path / 'checkpoints') == ['2', '4', '6']
    assert_same(restore_for_use(template_of(state_at(0, 3)), tmp_path), state_at(6, 3))


def test_a_checkpoint_is_on_disk_only_after_what_it_comes_after(tmp_path, monkeypatch):
    """Otherwise a kill between the two could lose the snapshot that the checkpoint vouches for."""
    write, order = Checkpoints._write, []

    def slow(self, step, state):
        if self.folder.name == 'averages':
            time.sleep(0.5)
        write(self, step, state)
        order.append(self.folder.name)

    monkeypatch.setattr(Checkpoints, '_write', slow)
    with (
        Checkpoints(tmp_path, name='averages') as averages,
        Checkpoints(tmp_path, after=averages) as own,
    ):
        averages.save(4, state_at(4))
        own.save(5, state_at(5))
        own.steps()
        assert names_in(tmp_path / 'averages') == ['4'] and names_in(own.folder) == ['5']


@pytest.mark.parametrize('end', [None, Preempted, KeyboardInterrupt])
def test_a_save_that_fails_is_not_hidden(end, tmp_path, monkeypatch):
    """A run that was asked to end says that its last step is saved."""

    def fail(self, step, state):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(Checkpoints, '_write', fail)
    seen = end if end is KeyboardInterrupt else OSError  # one that breaks off says so itself
    with pytest.raises(seen), Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state_at(1))
        if end is not None:
            raise end


def test_lack_of_memory_or_permission_is_no_damage(tmp_path, monkeypatch):
    save(tmp_path, 1, 2)
    for error in (MemoryError(), PermissionError(13, 'Permission denied'), OSError('DATA_LOSS')):

        def fail(*_, error=error, **__):
            raise error

        with Checkpoints(tmp_path) as checkpoints, monkeypatch.context() as patch:
            patch.setattr(checkpoints._handlers['state'], 'restore', fail)
            with pytest.raises(InputError, match=r'checkpoint 2 cannot be read here|none of the'):
                checkpoints.restore(template_of(state_at(0)))
        assert names_in(tmp_path / 'checkpoints') == ['1', '2']


def test_a_second_folder_is_apart_from_the_first(tmp_path):
    save(tmp_path, 1, 3)
    with pytest.raises(InputError, match='has no averages'):
        Checkpoints(tmp_path, read_only=True, name='averages')
    with Checkpoints(tmp_path) as own, Checkpoints(tmp_path, 1, name='averages') as averages:
        for step in (2, 3):
            averages.save(step, ({'w': jnp.full(3, step, jnp.float32)},))
        own.save(4, state_at(4))
        assert own.steps() == [1, 3, 4]
    assert names_in(tmp_path) == ['averages', 'checkpoints']
    assert names_in(tmp_path / 'averages') == ['3']
    with Checkpoints(tmp_path, read_only=True, name='averages') as averages:
        assert averages.manifest_of(3)['0/w']['shape'] == [3]
        (tree,) = averages.restore(({'w': jax.ShapeDtypeStruct((3,), jnp.float32)},))
    assert tree['w'].tolist() == [3, 3, 3]


def test_a_checkpoint_without_a_manifest_is_damaged(tmp_path, capsys):
    save(tmp_path, 1, 2)
    shutil.rmtree(tmp_path / 'checkpoints' / '2' / 'manifest')
    assert_same(restore_for_use(template_of(state_at(0)), tmp_path), state_at(1))
    assert 'checkpoint 2 is damaged' in capsys.readouterr().err


def test_a_sound_file_of_another_state_is_damage(tmp_path, capsys):
    """Bits that decode without a complaint, and are not those that were saved."""
    save(tmp_path, 1, 2)
    folder = tmp_path / 'checkpoints'
    shutil.rmtree(folder / '2' / 'state')
    shutil.copytree(folder / '1' / 'state', folder / '2' / 'state')
    assert_same(restore_for_use(template_of(state_at(0)), tmp_path), state_at(1))
    said = capsys.readouterr().err
    assert 'checkpoint 2 is damaged (' in said and 'does not match its checksum' in said


def flip(path, rng: random.Random) -> str:
    """Turns one bit of a file over; returns which."""
    content = bytearray(path.read_bytes())
    byte, bit = rng.randrange(len(content)), rng.randrange(8)
    content[byte] ^= 1 << bit
    path.write_bytes(content)
    return f'bit {bit} of byte {byte} of {path}'


# Orbax leaves coroutines behind where a file does not decode.
@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')
# As wide as this, arrays have files of their own; narrower, all lie in one.
@pytest.mark.parametrize('width', [4, 300])
def test_a_flipped_bit_in_any_file_is_found_or_does_not_matter(width, tmp_path, capsys):
    whole, broken, rng = tmp_path / 'whole', tmp_path / 'broken', random.Random(width)
    save(whole, 1, 2, width=width)
    folder = whole / 'checkpoints' / '2'
    files = [path for path in sorted(folder.rglob('*')) if path.is_file() and path.stat().st_size]
    template, found = template_of(state_at(0, width)), collections.Counter()
    for path in files:
        kind = 'values' if path.parent.name == 'd' else path.name
        for _ in range(5):
            shutil.copytree(whole, broken)
            which = flip(broken / path.relative_to(whole), rng)
            with Checkpoints(broken) as checkpoints:
                state = checkpoints.restore(template)
            is_found = int(state.step) == 1
            assert_same(state, state_at(1 if is_found else 2, width))
            said = capsys.readouterr().err
            assert ('warning: checkpoint 2 is damaged' in said) == is_found, which
            assert (broken / 'checkpoints' / 'damaged-2').is_dir() == is_found, which
            found[kind] += is_found
            shutil.rmtree(broken)
    # Some files are copies that nobody reads, or say what does not matter. The index of
    # all arrays, which holds narrow ones too, is always found: 5; wide ones lie beside it.
    assert found['values'] >= (5 if width == 4 else 6), found
    assert found['metadata'] == 5, found  # the manifest
