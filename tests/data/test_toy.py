"""Toy laws: their densities are densities, and their samples are drawn from them."""

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from gen_jax.data import toy
from gen_jax.data.dataset import training_batches
from gen_jax.errors import InputError

CELLS = 440  # of the grid on which densities are summed: the board's edges fall between cells


@pytest.fixture(scope='module')
def grid():
    line = (np.arange(CELLS) + 0.5) / CELLS * 2.2 - 1.1
    return np.stack(np.meshgrid(line, line), -1).reshape(-1, 2), (2.2 / CELLS) ** 2


@pytest.mark.parametrize('name', toy.LAWS)
def test_density_sums_to_one_and_its_entropy_is_that_of_the_samples(name, grid):
    points, area = grid
    law = toy.LAWS[name]
    logs = np.concatenate([law.log_density(part) for part in np.array_split(points, 40)])
    density = np.exp(logs)
    assert density.sum() * area == pytest.approx(1, abs=2e-3)
    surprise = -law.log_density(law.sample(np.random.default_rng(0), 20_000))
    entropy = -(density * np.where(density > 0, logs, 0)).sum() * area
    assert np.all(np.isfinite(surprise))
    error = surprise.std() / np.sqrt(len(surprise))
    assert abs(surprise.mean() - entropy) < 4 * error + 3e-3


@pytest.mark.parametrize('name', toy.MIXTURES)
def test_a_mixture_is_that_of_its_centers(name, grid):
    points = grid[0][::997]
    centers, deviation = toy.MIXTURES[name]
    parts = [stats.multivariate_normal(c, deviation**2).pdf(points) for c in centers]
    density = np.exp(toy.LAWS[name].log_density(points))
    np.testing.assert_allclose(density, np.mean(parts, axis=0), rtol=1e-6, atol=1e-300)


@pytest.mark.parametrize('name', toy.LAWS)
def test_samples_fall_where_the_density_says(name, grid):
    """The share of samples in each of 8 x 8 squares, against the sum of the density there."""
    points, area = grid
    law = toy.LAWS[name]
    samples = law.sample(np.random.default_rng(1), 50_000)
    assert np.abs(samples).max() < 1.1
    edges = np.linspace(-1.1, 1.1, 9)
    mass = np.concatenate([np.exp(law.log_density(p)) for p in np.array_split(points, 40)]) * area
    expected, _, _ = np.histogram2d(*points.T, bins=(edges, edges), weights=mass)
    found, _, _ = np.histogram2d(*samples.T, bins=(edges, edges))
    expected = 50_000 * expected
    deviation = (found - expected) / np.sqrt(expected + 25)
    assert np.abs(deviation).max() < 5


def test_load_gives_the_same_points_each_time_and_other_points_to_each_split():
    first, again = (toy.load(name='moons', num_train=100, num_evaluation=50) for _ in range(2))
    assert first.spec.shape == (2,) and first.spec.levels is None
    assert first.fingerprint == again.fingerprint
    assert first.fingerprint != toy.load(name='rings', num_train=100).fingerprint
    train, held_out = (split.fetch(np.arange(50))['x'] for split in (first.train, first.evaluation))
    assert train.dtype == np.float32
    assert not np.isin(train, held_out).any()
    stream = training_batches(first.train, batch_size=8, seed=0)
    batch = next(stream)
    stream.close()
    assert batch['x'].shape == (8, 2)


def test_describe_agrees_with_load():
    arguments = {'name': 'pinwheel', 'num_train': 70, 'num_evaluation': 30}
    described, loaded = toy.describe(**arguments), toy.load(**arguments)
    assert described.spec == loaded.spec and described.present
    assert '70 training and 30 evaluation' in described.lines[-1]


def test_a_picture_shows_points_where_they_are(tmp_path):
    points = np.repeat([[-0.5, 0.5]], 10, axis=0)
    path = toy.write(toy.decode(points, None), tmp_path / 'x')
    with Image.open(path) as image:
        assert image.size == (512, 512)
        lit = np.argwhere(np.asarray(image) == 255)
    assert np.all(np.abs(lit - [128, 128]) < 4)  # a quarter from the left and from the top


@pytest.mark.parametrize(
    ('arguments', 'field'),
    [
        ({'name': 'spiral'}, r"data\.name: no law 'spiral'; choose from 8gaussians"),
        ({}, r'data\.name: no law None'),
        ({'name': 'moons', 'source': 'tfds'}, r"data\.source: 'tfds'"),
        ({'name': 'moons', 'num_train': 0}, r'data\.num_train'),
    ],
)
@pytest.mark.parametrize('call', [toy.load, toy.describe])
def test_bad_arguments_name_the_field(call, arguments, field):
    with pytest.raises(InputError, match=field):
        call(**arguments)
