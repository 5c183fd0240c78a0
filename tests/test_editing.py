"""Grids of a latent space: which latents each place is decoded from."""

import jax
import numpy as np
import pytest

from gen_jax.editing import make_editor
from gen_jax.errors import InputError
from gen_jax.given import HELD_OUT, Examples, examples_of
from gen_jax.run import assemble
from gen_jax.sample import sample
from gen_jax.state import sampling_params
from gen_jax.trained import trained


@pytest.fixture(scope='module')
def case(vae_config, vae_run):
    config, (folder, _) = vae_config(), vae_run
    run = assemble(config)
    state = trained(run, config, folder).state
    examples = examples_of(config, run, folder, HELD_OUT, 64)
    codec = run.method.codec
    weights = sampling_params(state), state.model_state

    def encode(x, label):
        return np.asarray(jax.jit(codec.encode)(*weights, x, cond=label))

    def decode(z, label):
        return np.asarray(jax.jit(codec.decode)(*weights, z, cond=label))

    def edit(kind, num):
        return make_editor(run, kind, num, batch_size=8)(state, examples)

    return run, examples, encode, decode, edit


def test_reconstructions_stand_below_what_they_are_of(case):
    _, (x, label), encode, decode, edit = case
    grid = edit('reconstruct', 27).reshape(
        2, 2, 5, 8, 8, 1
    )  # 5 x 5 has place for two pairs of rows
    np.testing.assert_array_equal(grid[:, 0].reshape(10, 8, 8, 1), x[:10])
    back = decode(encode(x[:10], label[:10]), label[:10])
    np.testing.assert_allclose(grid[:, 1].reshape(10, 8, 8, 1), back, atol=1e-4)


def test_each_row_goes_from_one_example_to_another(case):
    _, (x, label), encode, decode, edit = case
    grid = edit('interpolate', 16).reshape(4, 4, 8, 8, 1)
    # This model is told classes: each row stays in one.
    rows, waiting = [], {}
    for number, kind in enumerate(label):
        if kind in waiting:
            rows.append((waiting.pop(kind), number))
        else:
            waiting[kind] = number
    z = encode(x, label)
    for row, (i, j) in enumerate(rows[:4]):
        first, last = z[i], z[j]
        told = np.repeat(label[i], 4)
        path = np.stack([first + share * (last - first) for share in (0, 1 / 3, 2 / 3, 1)])
        np.testing.assert_allclose(grid[row], decode(path, told), atol=1e-4)


def test_each_row_changes_one_number_of_the_first_example(case):
    _, (x, label), encode, decode, edit = case
    grid = edit('traverse', 9).reshape(3, 3, 8, 8, 1)
    z = encode(x, label)
    for row, number in enumerate(np.argsort(-z.std(0))[:3]):
        path = np.repeat(z[:1], 3, 0)
        path[:, number] = z[:, number].mean() + np.array([-3, 0, 3]) * z[:, number].std()
        np.testing.assert_allclose(grid[row], decode(path, np.repeat(label[0], 3)), atol=1e-3)


@pytest.mark.parametrize('kind', ['interpolate', 'traverse'])
def test_one_example_has_nothing_beside_it(kind, case):
    run, (x, label), *_ = case
    editor = make_editor(run, kind, 9, batch_size=8)
    with pytest.raises(InputError, match=r'^--given: .* needs several examples'):
        editor(None, Examples(x[:1], label[:1]))


@pytest.mark.parametrize(
    ('kind', 'num', 'reason'),
    [('melt', 9, "^--edit: no 'melt'; choose from"), ('traverse', 3, r'^--num: 3; .* 2 x 2')],
)
def test_edits_that_there_are_not_are_refused(kind, num, reason, case):
    with pytest.raises(InputError, match=reason):
        make_editor(case[0], kind, num, 8)


def test_an_edit_is_a_picture_like_any_sample(vae_config, vae_run, tmp_path):
    out = tmp_path / 'between.png'
    sample(vae_config(), vae_run[0], edit='interpolate', num=9, out=str(out))
    assert out.stat().st_size > 100
    with pytest.raises(InputError, match='--keep: --edit changes whole examples'):
        sample(vae_config(), vae_run[0], edit='interpolate', given=HELD_OUT, keep='top')
