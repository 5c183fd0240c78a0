"""Pictures of latents that are drawn: which latents each place of a grid shows.

The generator, of averaged weights, is linear, so that a picture says what it was made of: 64 pixels
are four layers of 16 numbers, plus a hundred times the class.
"""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import gen_jax.sample as sampling
from gen_jax.editing import make_editor
from gen_jax.errors import InputError
from gen_jax.exploring import components, followed, make_explorer, psnr, slerp
from gen_jax.given import Examples
from gen_jax.methods.method import LatentSpace
from gen_jax.run import assemble
from gen_jax.sample import sample
from gen_jax.state import TrainState
from gen_jax.trained import Trained

KEY = jax.random.key(3)
# The deviations along 16 directions, the principal ones of w.
DEVIATIONS = np.geomspace(1, 0.01, 16).astype(np.float32)
ROTATION = np.linalg.qr(np.random.default_rng(1).normal(size=(16, 16)))[0].astype(np.float32)
MEAN = np.linspace(-1, 1, 16, dtype=np.float32)
STATE = TrainState(
    step=jnp.int32(7),
    params={'generator': {'scale': jnp.float32(0.0)}},
    model_state={'generator': {'mean': jnp.asarray(MEAN)}},
    opt_state={},
    ema_params={'generator': {'scale': jnp.float32(0.1)}},
    power_ema=(),
    guard=None,
    key=KEY,
)


def latent_space(num_layers: int, is_normal: bool, num_classes: int | None) -> LatentSpace:
    def draw(params, model_state, key, num, *, cond=None):
        assert (cond is None) == (num_classes is None)
        w = 10 * params['generator']['scale'] * jax.random.normal(key, (num, 16))
        if not is_normal:
            w = model_state['generator']['mean'] + w * DEVIATIONS @ ROTATION
        return jnp.repeat(w[:, None], num_layers, 1)

    def decode(params, model_state, w, *, cond=None):
        assert (cond is None) == (num_classes is None)
        x = params['generator']['scale'] * jnp.repeat(w, 4 // num_layers, 1)
        if is_normal:
            x = x * DEVIATIONS @ ROTATION
        x = x if cond is None else x + 100 * cond[:, None, None]
        return x.reshape(-1, 8, 8, 1)

    def mean(params, model_state):
        of_one = jnp.zeros(16) if is_normal else model_state['generator']['mean']
        return jnp.tile(of_one, (num_layers, 1))

    return LatentSpace(draw, decode, mean, num_layers, is_normal, num_classes)


@pytest.fixture(scope='module')
def config():
    return importlib.import_module('configs.ddpm_digits').get_config('smoke')


@pytest.fixture(scope='module')
def base(config):
    return assemble(config)  # on eight devices


def run_of(base, num_layers=4, is_normal=False, num_classes=None):
    latents = latent_space(num_layers, is_normal, num_classes)
    return base._replace(method=base.method._replace(latents=latents, num_classes=num_classes))


def explored(run, kind, num, *, key=KEY, label=None, examples=None, steps=None, batch_size=5):
    return make_explorer(run, kind, num, batch_size, label, steps)(STATE, key, examples)


def latents_of(x):
    """w `[rows, columns, 4, 16]` and the classes `[rows, columns]` of a square grid."""
    side = int(np.sqrt(len(x)))
    w = x.reshape(side, side, 4, 16)
    classes = np.rint(w.mean((2, 3)) / 100)
    return (w - 100 * classes[..., None, None]) / 0.1, classes.astype(int)


def test_each_row_goes_from_one_drawn_latent_to_another(base):
    run = run_of(base)
    w, _ = latents_of(explored(run, 'interpolate', 17))  # 4 x 4 is what fits
    np.testing.assert_allclose(np.diff(w, 2, axis=1), 0, atol=1e-4)
    ends = w[:, [0, -1]].reshape(8, 4, 16)
    drawn = run.method.latents.draw(STATE.ema_params, STATE.model_state, KEY, 8)
    np.testing.assert_allclose(ends, drawn, atol=1e-4)


def test_between_normal_latents_the_path_keeps_their_length(base):
    run = run_of(base, num_layers=1, is_normal=True)
    w, _ = latents_of(explored(run, 'interpolate', 25))
    z = (w[:, :, 0] @ ROTATION.T) / DEVIATIONS
    lengths = np.linalg.norm(z, axis=-1)
    drawn = np.linalg.norm(run.method.latents.draw(STATE.ema_params, None, KEY, 10)[:, 0], axis=-1)
    expected = np.linspace(drawn[0::2], drawn[1::2], 5, axis=1)
    np.testing.assert_allclose(lengths, expected, rtol=0.01)
    assert (np.linalg.norm((z[:, 0] + z[:, -1]) / 2, axis=-1) < 0.9 * lengths[:, 2]).all()


def test_slerp_turns_evenly_and_keeps_lengths():
    angles = np.array([0.2, 2.9])
    start, end = (3 * np.array([np.cos(a), np.sin(a)]) for a in angles)
    for share in (0.0, 0.25, 0.7, 1.0):
        angle = angles[0] + share * (angles[1] - angles[0])
        expected = 3 * np.array([np.cos(angle), np.sin(angle)])
        np.testing.assert_allclose(slerp(start, end, share), expected, atol=1e-6)
    rng = np.random.default_rng(0)
    start, end = rng.normal(size=(2, 5, 12))
    share = np.linspace(0, 1, 9)[:, None, None]
    lengths = np.linalg.norm(slerp(start, end, share), axis=-1)
    np.testing.assert_allclose(np.diff(lengths, 2, axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(slerp(start, start, 0.4), start, rtol=1e-6)
    np.testing.assert_allclose(slerp(start, 2 * start, 0.4), 1.4 * start, rtol=1e-6)
    assert np.isfinite(slerp(start, -start, share)).all()


def test_components_are_the_eigenvectors_of_the_covariance():
    rng = np.random.default_rng(0)
    w = rng.normal(size=(300, 1, 6)) * np.geomspace(2, 0.1, 6)
    values, vectors = np.linalg.eigh(np.cov(w[:, 0].T))
    expected = (vectors * np.sqrt(values)).T[::-1]
    found = components(w, 4)[:, 0]
    signs = np.sign(np.sum(found * expected[:4], 1, keepdims=True))
    np.testing.assert_allclose(found, signs * expected[:4], atol=1e-4)
    alike = components(np.repeat(w, 3, 1), 4)
    np.testing.assert_allclose(alike, np.repeat(found[:, None], 3, 1), atol=1e-6)
    # Layers that differ are one long vector.
    apart = w.reshape(300, 2, 3)
    np.testing.assert_allclose(components(apart, 9).reshape(6, 6)[:4], found, atol=1e-5)


@pytest.mark.parametrize('is_normal', [False, True])
def test_each_row_moves_one_latent_along_one_principal_direction(is_normal, base):
    """Of a linear generator, whose directions are known: the largest first."""
    run = run_of(base, 1 if is_normal else 4, is_normal)
    w, _ = latents_of(explored(run, 'traverse', 25))
    np.testing.assert_allclose(w, np.repeat(w[:, :, :1], 4, 2), atol=1e-4)
    np.testing.assert_allclose(w[:, 2], np.repeat(w[:1, 2], 5, 0), atol=1e-4)  # the latent itself
    moved = np.diff(w[:, :, 0], axis=1)
    np.testing.assert_allclose(np.diff(moved, axis=1), 0, atol=1e-4)
    moved = moved.sum(1)  # from two deviations below to two above
    for row in range(5):
        along = moved[row] @ ROTATION[row]
        assert abs(along) / np.linalg.norm(moved[row]) > 0.99
        assert abs(along) / (4 * DEVIATIONS[row]) == pytest.approx(1, abs=0.05)


def test_what_examples_follow_most_are_the_singular_vectors_of_their_slopes():
    rng = np.random.default_rng(0)
    slopes, z = rng.normal(size=(5, 40)), rng.normal(size=(700, 1, 5)) + 2
    x = z[:, 0] @ slopes + 3
    expected, _, _ = np.linalg.svd(slopes)
    found = followed(z, lambda part: x[part])[:, 0]
    np.testing.assert_allclose(np.abs(found @ expected), np.eye(5), atol=1e-6)


def test_a_grid_has_no_more_rows_than_there_are_directions(base):
    x = explored(run_of(base), 'traverse', 400)
    assert x.shape == (16 * 20, 8, 8, 1)


def test_mixtures_have_coarse_layers_of_their_column_and_fine_ones_of_their_row(base):
    w, _ = latents_of(explored(run_of(base), 'mix', 16))
    np.testing.assert_allclose(w[0, 0], np.tile(MEAN, (4, 1)), atol=1e-4)
    columns, rows = w[0, 1:], w[1:, 0]
    assert len(np.unique(np.concatenate([columns, rows])[:, 0, 0].round(3))) == 6
    for r in range(3):
        for c in range(3):
            np.testing.assert_allclose(w[r + 1, c + 1, :2], columns[c, :2], atol=1e-4)
            np.testing.assert_allclose(w[r + 1, c + 1, 2:], rows[r, 2:], atol=1e-4)


def test_projections_stand_below_what_they_are_of(base, capsys):
    x = 0.2 * jax.random.normal(KEY, (6, 8, 8, 1))
    run = run_of(base)
    grid = explored(run, 'project', 16, examples=Examples(np.asarray(x), None), steps=400)
    rows = grid.reshape(2, 2, 4, 8, 8, 1)
    shown = np.asarray(x)[[0, 1, 2, 3, 4, 5, 0, 1]]  # six for eight places
    np.testing.assert_array_equal(rows[:, 0].reshape(8, 8, 8, 1), shown)
    back = rows[:, 1].reshape(8, 8, 8, 1)
    assert (psnr(back, shown) > 40).all()
    printed = f'mean PSNR of 6 projections: {psnr(back[:6], shown[:6]).mean():.2f} dB'
    assert capsys.readouterr().err.strip() == printed
    few = explored(run, 'project', 4, examples=Examples(np.asarray(x), None), steps=2)
    assert (psnr(few[2:], few[:2]) < psnr(back[:2], shown[:2]) - 10).all()


def test_decibels():
    black = -np.ones((2, 3, 3, 1))
    assert psnr(-black, black).tolist() == [0, 0]
    np.testing.assert_allclose(psnr(black + 0.2, black), 20)
    assert psnr(black - 5, black).tolist() == [100, 100]


def test_classes_are_in_turn_by_row_or_all_of_one(base):
    run = run_of(base, num_classes=3)
    by_row = np.repeat(np.arange(4) % 3, 4).reshape(4, 4)
    for kind in ('interpolate', 'traverse'):
        assert (latents_of(explored(run, kind, 16))[1] == by_row).all()
        assert (latents_of(explored(run, kind, 16, label=2))[1] == 2).all()
    w, classes = latents_of(explored(run, 'mix', 16))
    assert classes[0].tolist() == [0, 0, 1, 2]
    assert (classes[1:] == [[0] * 4, [1] * 4, [2] * 4]).all()
    assert (latents_of(explored(run, 'mix', 16, label=2))[1] == 2).all()
    label = np.array([2, 0, 1, 2])
    w = np.random.default_rng(0).normal(size=(4, 4, 16)).astype(np.float32)
    x = np.asarray(run.method.latents.decode(STATE.ema_params, None, w, cond=label))
    grid = explored(run, 'project', 9, examples=Examples(x, label), steps=400)
    np.testing.assert_allclose(grid.reshape(2, 3, 8, 8, 1)[1], x[:3], atol=0.01)


def test_a_picture_depends_on_its_key_alone(config, base):
    runs = run_of(base), run_of(assemble(config, jax.devices()[:1]))
    for kind in ('interpolate', 'traverse', 'mix'):
        first, again = (explored(run, kind, 9, batch_size=4) for run in runs)
        np.testing.assert_allclose(first, again, atol=1e-4)  # on eight devices and on one
        assert np.abs(first - explored(runs[1], kind, 9, key=jax.random.key(4))).max() > 0.01


@pytest.mark.parametrize(
    ('kind', 'options', 'reason'),
    [
        ('reconstruct', {}, "^--edit: no 'reconstruct'; choose from interpolate, traverse, mix, p"),
        ('reconstruct', {'num_layers': 1}, '; choose from interpolate, traverse, project$'),
        ('mix', {'num_layers': 1}, r"^--edit: 'mix' needs a generator with a style for each layer"),
        ('mix', {'num': 3}, r'^--num: 3; .* 2 x 2'),
        ('project', {'steps': 0}, r'^--steps: 0 must be at least 1'),
        ('traverse', {'label': 1}, r'^--label: this model was trained without labels'),
    ],
)
def test_pictures_that_there_are_not_are_refused(kind, options, reason, base):
    run = run_of(base, options.pop('num_layers', 4))
    with pytest.raises(InputError, match=reason):
        explored(run, kind, **{'num': 16} | options)


def test_a_method_with_neither_encoder_nor_latents_is_refused(base):
    with pytest.raises(InputError, match=r'^method\.name: this method has no encoder'):
        make_editor(base, 'interpolate', 16, 4)


@pytest.fixture
def drawn(monkeypatch, base, config, tmp_path):
    """`sample` of such a method: the file that it writes, as pixels."""

    def draw(name='x.npz', num_classes=None, **options):
        run = run_of(base, num_classes=num_classes)
        monkeypatch.setattr(sampling, 'assemble', lambda *_, **__: run)
        monkeypatch.setattr(sampling, 'trained', lambda *_: Trained(STATE, 'decay 0'))
        (path,) = sample(config, tmp_path / 'run', out=str(tmp_path / name), **options)
        return np.asarray(Image.open(path)) if path.suffix == '.png' else np.load(path)['x']

    return draw


def test_an_edit_is_a_picture_like_any_sample(drawn, tmp_path, capsys):
    first, again, other = (drawn(edit='mix', num=9, seed=seed) for seed in (1, 1, 2))
    assert first.shape == (9, 8, 8, 1) and first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert drawn('x.png', edit='interpolate', num=4).shape == (102, 102)
    picture = tmp_path / 'digit.png'
    Image.fromarray(np.full((8, 8), 100, np.uint8)).save(picture)
    pair = drawn(edit='project', num=4, given=str(picture), steps=40)
    np.testing.assert_array_equal(pair[0], pair[1])
    held_out = drawn(edit='project', num=4, num_classes=10, steps=1)
    assert held_out.shape == (4, 8, 8, 1)
    assert 'mean PSNR of 2 projections' in capsys.readouterr().err
    with pytest.raises(InputError, match=r'^--label: say of which class the file is'):
        drawn(edit='project', num=4, num_classes=10, given=str(picture))
    with pytest.raises(InputError, match=r"^--given: 'mix' is of latents that are drawn"):
        drawn(edit='mix', given='held_out')
