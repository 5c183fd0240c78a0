"""Points of a mixture: each belongs to its nearest center, and clearly where it is near."""

import numpy as np
import pytest
from scipy import stats

from gen_jax import parallel
from gen_jax.data import toy
from gen_jax.errors import InputError
from gen_jax.features.extractor import make_embedder
from gen_jax.features.mixture import mixture
from gen_jax.metrics.modes import class_kl, mode_coverage
from gen_jax.types import DataSpec

POINTS = DataSpec((2,))


def embedded(law: str, points: np.ndarray):
    return make_embedder(mixture(POINTS, law=law), parallel.lay_out(), 1000)(points)


@pytest.mark.parametrize('law', toy.MIXTURES)
def test_the_mixture_itself_has_all_modes_and_known_shares(law):
    dataset = toy.load(name=law, num_train=20_000, num_evaluation=10_000)
    samples, real = (
        embedded(law, split.fetch(np.arange(split.num_examples))['x'])
        for split in (dataset.evaluation, dataset.train)
    )
    found = mode_coverage(samples.probabilities)
    value, error = found['confident']
    expected = stats.chi2.cdf(9, df=2)
    assert expected == pytest.approx(0.98889, abs=1e-5)
    assert abs(value - expected) < 4 * error and error == pytest.approx(0.00105, rel=0.2)
    num_modes = len(toy.MIXTURES[law].centers)
    assert found['modes'] == (num_modes, 0)
    assert 0.8 < found['smallest_class'][0] < 1 < found['largest_class'][0] < 1.2
    divergence, _ = class_kl(samples.probabilities, real.probabilities)
    assert divergence < 3 * (num_modes - 1) / 2 * (1 / 10_000 + 1 / 20_000)
    np.testing.assert_array_equal(samples.features, samples.examples)


def test_a_point_is_of_its_nearest_center_and_sure_within_three_deviations():
    centers, deviation = toy.MIXTURES['8gaussians']
    steps = np.array([[0, 2.99], [0, 3.01], [-4, 0]]) * deviation
    points = (centers[:, None] + steps).reshape(-1, 2)
    found = embedded('8gaussians', points).probabilities.reshape(8, 3, 8)
    assert (found.argmax(-1) == np.arange(8)[:, None]).all()
    np.testing.assert_array_equal(found[:, 0], np.eye(8))
    np.testing.assert_allclose(found[:, 1], (1 + np.eye(8)) / 9, rtol=1e-6)
    np.testing.assert_allclose(found[:, 2], (1 + np.eye(8)) / 9, rtol=1e-6)


def test_laws_are_told_apart():
    looks = [mixture(POINTS, law=law) for law in toy.MIXTURES]
    assert len({look.hash for look in looks}) == len(looks)
    assert looks[0].suffix == '-8gaussians' and looks[0].frechet == 'FD-8gaussians'


@pytest.mark.parametrize(
    ('spec', 'law', 'message'),
    [
        (POINTS, 'moons', "law: 'moons' is no mixture; choose from 8gaussians, 25gaussians"),
        (POINTS, None, 'law: None is no mixture'),
        (DataSpec((8, 8, 1)), '8gaussians', r'spec: examples of shape \(8, 8, 1\)'),
    ],
)
def test_what_does_not_fit_is_refused(spec, law, message):
    with pytest.raises(InputError, match=message):
        mixture(spec, law=law)
