"""Neighbors against all distances written out."""

import numpy as np
import pytest

from gen_jax.metrics import neighbors


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(neighbors, '_CHUNK', 7)


def test_the_nearest_are_those_of_all_distances():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 5)), rng.normal(size=(30, 5))
    everything = np.linalg.norm(x[:, None] - y, axis=-1)
    distances, positions = neighbors.nearest(x, y, 4)
    np.testing.assert_array_equal(positions, np.argsort(everything, 1)[:, :4])
    np.testing.assert_allclose(distances, np.sort(everything, 1)[:, :4], rtol=1e-12)
    np.testing.assert_allclose(
        neighbors.radii(y, 3),
        np.sort(np.linalg.norm(y[:, None] - y, axis=-1), 1)[:, 3],
        rtol=1e-12,
    )


def test_a_copy_is_at_distance_zero():
    y = 1e3 + np.random.default_rng(0).normal(size=(30, 50)).astype(np.float32)
    distances, positions = neighbors.nearest(y[[3, 17]], y)
    assert distances.tolist() == [[0], [0]] and positions.tolist() == [[3], [17]]


def test_more_neighbors_than_there_are_is_refused():
    with pytest.raises(ValueError, match='4 nearest neighbors among 3'):
        neighbors.nearest(np.ones((2, 1)), np.ones((3, 1)), 4)
