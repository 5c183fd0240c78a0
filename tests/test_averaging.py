"""Averages of any length, against sums, integrals, and averages that were really kept.

The profile of an average is a density over the steps n in [0, N]: p(n) = (g + 1) n^g / N^(g + 1).
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gen_jax import averaging
from gen_jax.averaging import LONGEST, Profile, exponent_of
from gen_jax.errors import InputError

LENGTHS = (0.01, 0.05, 0.07, 0.1, 0.15, 0.25, LONGEST)
PROFILES = (Profile(100, 0.0), Profile(100, 3.5), Profile(73, 16.97), Profile(40, 6.94))


def nodes(stop: float, num: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Places in [0, stop] and weights of Gauss-Legendre quadrature."""
    x, w = np.polynomial.legendre.leggauss(num)
    return stop * (x + 1) / 2, stop * w / 2


def density(profile: Profile, n: np.ndarray) -> np.ndarray:
    inside = (profile.exponent + 1) * (n / profile.step) ** profile.exponent / profile.step
    return np.where(n <= profile.step, inside, 0)


@pytest.mark.parametrize('length', LENGTHS)
def test_a_length_is_the_standard_deviation_of_its_profile(length):
    profile = Profile(1, exponent_of(length))
    n, w = nodes(1)
    mean = w @ (density(profile, n) * n)
    variance = w @ (density(profile, n) * (n - mean) ** 2)
    np.testing.assert_allclose(w @ density(profile, n), 1, rtol=1e-7)
    np.testing.assert_allclose(np.sqrt(variance), length, rtol=1e-6)


@pytest.mark.parametrize('length', LENGTHS)
def test_lengths_and_exponents_are_each_others_inverse(length):
    g = exponent_of(length)
    closed = ((g + 1) / ((g + 2) ** 2 * (g + 3))) ** 0.5
    np.testing.assert_allclose(closed, length, rtol=1e-9)
    np.testing.assert_allclose(exponent_of(closed), g, rtol=1e-6, atol=1e-9)


def test_exponents_of_the_paper():
    """Karras et al. 2024, section 3.1: lengths of 0.05 and 0.10 are exponents 16.97 and 6.94."""
    np.testing.assert_allclose([exponent_of(0.05), exponent_of(0.1)], [16.97, 6.94], atol=5e-3)
    assert exponent_of(LONGEST) == pytest.approx(0, abs=1e-9)


def weights_of(num_steps: int, length: float) -> np.ndarray:
    """Of each step in the average after `num_steps`: the product of equation (1), written out."""
    n = np.arange(1, num_steps + 1, dtype=np.float64)
    keep = (1 - 1 / n) ** (exponent_of(length) + 1)
    later = np.append(np.cumprod(keep[::-1])[::-1][1:], 1)  # product of the keeps of later steps
    return (1 - keep) * later


@pytest.mark.parametrize('length', [0.05, 0.1, LONGEST])
def test_the_running_average_is_the_weighted_sum(length):
    num_steps = 3000
    p = np.random.default_rng(0).normal(size=(num_steps, 2)).cumsum(0).astype(np.float32)
    run = jax.jit(functools.partial(averaging.power, length=length))
    start = {'w': jnp.full(2, 100.0)}  # the first step forgets it
    average = start
    for n in range(1, num_steps + 1):
        average = run(average, {'w': p[n - 1]}, jnp.int32(n))
        if n == 1:
            np.testing.assert_allclose(average['w'], p[0], rtol=0, atol=1e-5)
    expected = weights_of(num_steps, length) @ p
    np.testing.assert_allclose(average['w'], expected, rtol=0, atol=1e-5 * np.abs(p).max())


@pytest.mark.parametrize('step', [10, 10**4, 10**6, 10**7])
def test_a_step_among_millions_has_its_weight_in_float32(step):
    new = averaging.power({'w': jnp.zeros(1)}, {'w': jnp.ones(1)}, jnp.int32(step), 0.05)
    exact = 1 - (1 - 1 / step) ** (exponent_of(0.05) + 1)
    np.testing.assert_allclose(new['w'], exact, rtol=1e-6)


@pytest.mark.parametrize('length', [0.05, 0.1, LONGEST])
def test_the_weights_are_the_profile(length):
    """What (1 - 1/n)^(g + 1) multiplies to: n^(g + 1) - (n - 1)^(g + 1), the profile's integral
    over one step."""
    num_steps, g = 2000, exponent_of(length)
    weights = weights_of(num_steps, length)
    edges = (np.arange(num_steps + 1) / num_steps) ** (g + 1)
    np.testing.assert_allclose(weights, np.diff(edges), rtol=1e-7, atol=1e-15)
    middles = np.arange(num_steps) + 0.5
    late = middles > num_steps / 2
    profile = density(Profile(num_steps, g), middles)
    np.testing.assert_allclose(weights[late], profile[late], rtol=1e-3)


@pytest.mark.parametrize('a', PROFILES)
@pytest.mark.parametrize('b', PROFILES)
def test_inner_products_are_integrals(a, b):
    n, w = nodes(min(a.step, b.step))
    integral = w @ (density(a, n) * density(b, n))
    found = averaging._inner(a.step, a.exponent, b.step, b.exponent)
    np.testing.assert_allclose(found, integral, rtol=1e-7)


def snapshots_of(num: int, num_steps: int, lengths=(0.05, 0.1)) -> list[Profile]:
    """Profiles of `num` snapshots of each length, evenly spaced to the last step."""
    steps = num_steps * np.arange(1, num + 1) / num
    return [Profile(step, exponent_of(length)) for step in steps for length in lengths]


def test_a_tracked_profile_is_its_own_snapshot():
    profiles = snapshots_of(4, 4000)
    for index, profile in enumerate(profiles):
        weights, left = averaging.combination(profiles, profile)
        np.testing.assert_allclose(weights, np.eye(len(profiles))[index], atol=1e-6)
        assert left < 1e-6


def test_the_residual_is_the_distance_of_the_functions():
    profiles, target = snapshots_of(3, 300), Profile(300, exponent_of(0.15))
    weights, left = averaging.combination(profiles, target)
    places = [nodes(100), nodes(100), nodes(100)]  # smooth between two snapshots
    squares = norm = 0
    for part, (n, w) in enumerate(places):
        made = sum(x * density(p, n + 100 * part) for x, p in zip(weights, profiles, strict=True))
        wanted = density(target, n + 100 * part)
        squares, norm = squares + w @ (made - wanted) ** 2, norm + w @ wanted**2
    assert left > 1e-3
    np.testing.assert_allclose(left, np.sqrt(squares / norm), rtol=1e-5)


def test_no_other_weights_come_nearer():
    profiles, target = snapshots_of(3, 300), Profile(300, exponent_of(0.15))
    weights, left = averaging.combination(profiles, target)
    gram = [[averaging._inner(*a, *b) for b in profiles] for a in profiles]
    right = averaging._inner(*np.array(profiles).T, *target)
    norm = averaging._inner(*target, *target)
    rng = np.random.default_rng(0)
    for _ in range(50):
        noise = rng.normal(size=len(weights)) * 0.01
        other = weights + noise - noise.mean()  # they sum to 1, too
        distance = np.sqrt((norm - 2 * other @ right + other @ gram @ other) / norm)
        assert distance > left


@pytest.mark.parametrize('length', [0.03, 0.07, 0.15, 0.2])
def test_the_residual_falls_with_more_snapshots(length):
    target = Profile(4096, exponent_of(length))
    left = [averaging.combination(snapshots_of(n, 4096), target)[1] for n in (1, 2, 4, 8, 16)]
    # Each set of snapshots holds the one before, so it can only come nearer.
    assert all(more < less for less, more in itertools.pairwise(left)), left
    assert left[-1] < left[0] / 4


@pytest.fixture(scope='module')
def walk() -> dict[float, dict[int, np.ndarray]]:
    """`{length: {step: average}}` of a random walk: really averaged, step by step."""
    num_steps, every = 4096, 256
    p = np.random.default_rng(1).normal(size=(num_steps, 64)).cumsum(0).astype(np.float32)
    lengths = (0.05, 0.07, 0.1, 0.15)

    def advance(averages, now):
        step, params = now
        averages = tuple(
            averaging.power(a, params, step, length)
            for a, length in zip(averages, lengths, strict=True)
        )
        return averages, averages

    first = tuple(jnp.zeros(64) for _ in lengths)
    _, kept = jax.lax.scan(advance, first, (jnp.arange(1, num_steps + 1), jnp.asarray(p)))
    return {
        length: {n: np.asarray(row[n - 1]) for n in range(every, num_steps + 1, every)}
        for length, row in zip(lengths, kept, strict=True)
    }


@pytest.mark.parametrize('length', [0.07, 0.15])
def test_an_average_made_afterwards_is_the_one_that_was_kept(walk, length):
    tracked = [(step, known) for known in (0.05, 0.1) for step in walk[known]]
    profiles = [Profile(step, exponent_of(known)) for step, known in tracked]
    weights, _ = averaging.combination(profiles, Profile(4096, exponent_of(length)))
    made = averaging.weighted_sum(weights, ({'w': walk[known][step]} for step, known in tracked))
    kept = walk[length][4096]

    def distance(other) -> float:
        return np.linalg.norm(other - kept) / np.linalg.norm(kept)

    nearest = min(distance(walk[known][4096]) for known in (0.05, 0.1))
    assert distance(made['w']) < 0.01
    assert distance(made['w']) < nearest / 10


def test_a_weighted_sum_keeps_the_types_of_its_trees():
    trees = [{'a': jnp.full(2, i, jnp.bfloat16), 'b': jnp.float32(i)} for i in (1.0, 2.0)]
    total = averaging.weighted_sum(np.array([0.5, 2.0]), trees)
    assert total['a'].dtype == jnp.bfloat16 and total['b'].dtype == jnp.float32
    assert total['b'] == 4.5 and total['a'].tolist() == [4.5, 4.5]


@pytest.mark.parametrize('length', [0, -0.1, LONGEST + 1e-6, 1, float('nan')])
def test_a_length_that_no_profile_has_is_refused(length):
    with pytest.raises(InputError, match=r'^ema\.lengths: .* above 0 and at most 0\.289'):
        averaging.check_length(length, 'ema.lengths')


@pytest.mark.parametrize('length', [1e-3, 0.1, LONGEST])
def test_other_lengths_are_taken(length):
    averaging.check_length(length, 'ema.lengths')
