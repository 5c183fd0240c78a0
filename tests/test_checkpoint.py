"""Checkpoints: exact, and honest about damage."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gen_jax.checkpoint import Checkpoints, restore_for_use
from gen_jax.errors import InputError
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


def save(workdir, *steps: int, keep: int | None = None) -> None:
    with Checkpoints(workdir, keep) as checkpoints:
        for step in steps:
            checkpoints.save(step, state_at(step))


def assert_same(a: TrainState, b: TrainState) -> None:
    plain = [s.replace(key=jax.random.key_data(s.key)) for s in (a, b)]
    for x, y in zip(*map(jax.tree.leaves, plain), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


def destroy(workdir, step: int) -> None:
    """Cuts every data file of a checkpoint in half."""
    folder = workdir / 'checkpoints' / str(step)
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
