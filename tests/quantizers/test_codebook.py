"""Codebooks against brute force, hand-computed averages, and clusters that are known."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gen_jax.quantizers.codebook import vq


def random_vectors(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def run(quantizer, state, z, seed: int = 0, train: bool = True):
    step = jax.jit(quantizer.quantize, static_argnames='train')
    return step(state, z, jax.random.key(seed), train=train)


def book_of(vectors: np.ndarray, count=None) -> dict:
    """A state whose codebook is `vectors`, up to the smoothing, used evenly or as `count` says."""
    count = np.ones(len(vectors), np.float32) if count is None else np.float32(count)
    return {'count': jnp.asarray(count), 'sum': jnp.asarray(count[:, None] * vectors)}


def codebook(quantizer, state) -> np.ndarray:
    return np.asarray(quantizer.lookup(state, jnp.arange(quantizer.num_codes)))


def distance_to(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Of each point to the nearest of the others."""
    return np.linalg.norm(points[:, None] - others[None], axis=-1).min(1)


def test_the_nearest_code_is_that_of_brute_force():
    vectors, z = random_vectors(40, 6), random_vectors(5, 30, 6, seed=1)
    done = run(vq(40, 6), book_of(vectors), z, train=False)
    distance = np.sum((z[:, :, None] - vectors) ** 2, -1)
    np.testing.assert_array_equal(done.codes, distance.argmin(-1))
    np.testing.assert_allclose(done.values, vectors[distance.argmin(-1)], rtol=1e-5)
    error = distance.min(-1).mean(-1) / 6
    np.testing.assert_allclose(done.loss, 0.25 * error, rtol=1e-5)
    np.testing.assert_allclose(done.metrics['distortion'], error.mean(), rtol=1e-5)


def test_gradients_pass_straight_through_beside_the_commitment():
    quantizer = vq(16, 3, commitment=0.4)
    state, z = book_of(random_vectors(16, 3)), random_vectors(4, 5, 3, seed=1)
    weight = random_vectors(4, 5, 3, seed=2)
    slope = jax.grad(lambda z: jnp.sum(weight * run(quantizer, state, z).values))(z)
    np.testing.assert_array_equal(slope, weight)
    slope = jax.grad(lambda z: jnp.sum(run(quantizer, state, z).loss))(z)
    values = run(quantizer, state, z, train=False).values
    np.testing.assert_allclose(slope, 0.4 * 2 * (z - values) / 15, rtol=1e-5, atol=1e-7)


def test_one_update_is_that_of_the_papers_appendix():
    vectors, z = random_vectors(5, 2), random_vectors(3, 7, 2, seed=1)
    count = np.array([0.5, 1.0, 1.5, 0.2, 1.8])
    state = book_of(vectors, count)
    quantizer = vq(5, 2, decay=0.9, epsilon=0.03)
    done = run(quantizer, state, z)

    smoothed = (count + 0.03) / (count.sum() + 5 * 0.03) * count.sum()
    before = count[:, None] * vectors / smoothed[:, None]
    np.testing.assert_allclose(codebook(quantizer, state), before, rtol=1e-5)
    flat = z.reshape(-1, 2)
    own = np.eye(5)[np.sum((flat[:, None] - before) ** 2, -1).argmin(1)]
    new_count = 0.9 * count + 0.1 * own.mean(0) * 5
    new_sum = 0.9 * count[:, None] * vectors + 0.1 * own.T @ flat / 21 * 5
    np.testing.assert_allclose(done.state['count'], new_count, rtol=1e-5)
    np.testing.assert_allclose(done.state['sum'], new_sum, rtol=1e-4, atol=1e-6)


def test_the_size_of_the_batch_does_not_matter():
    """A batch twice over is the batch."""
    state, z = book_of(random_vectors(8, 3)), random_vectors(16, 3, seed=1)
    once, twice = (run(vq(8, 3), state, x).state for x in (z, np.concatenate([z, z])))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), once, twice)


def test_halves_averaged_are_the_whole():
    """As under data parallelism, or where a batch is taken in parts; restarts differ by draw."""
    count = [1.0] * 7 + [0.001]
    state, z = book_of(random_vectors(8, 3), count), random_vectors(16, 4, 3, seed=1)
    whole = run(vq(8, 3), state, z).state
    halves = [run(vq(8, 3), state, z[half::2], seed=half).state for half in (0, 1)]
    mean = jax.tree.map(lambda a, b: (a + b) / 2, *halves)
    for name in ('count', 'sum'):
        np.testing.assert_allclose(mean[name][:7], whole[name][:7], rtol=1e-5, atol=1e-6)


def test_the_dead_take_vectors_of_the_batch_and_the_living_do_not():
    dead = np.array([False, True, False, True, True, False])
    vectors, z = random_vectors(6, 4), random_vectors(300, 4, seed=1)
    state = book_of(vectors, np.where(dead, 0.019, 1))
    quantizer = vq(6, 4, restart_below=0.02)
    done = run(quantizer, state, z)
    assert done.metrics['dead'] == 0.5
    after = codebook(quantizer, done.state)
    distance = distance_to(after, z)
    assert np.all(distance[dead] < 0.01) and np.all(distance[~dead] > 0.05)
    # The living move as if there were no restarts.
    others = codebook(vq(6, 4, restart_below=0), run(vq(6, 4, restart_below=0), state, z).state)
    np.testing.assert_allclose(after[~dead], others[~dead], rtol=1e-3)
    other_key = codebook(quantizer, run(quantizer, state, z, seed=2).state)
    assert np.all(np.abs(other_key - after)[dead].max(1) > 0.01)
    # They live, and what comes to them in the next batch moves them.
    then = run(quantizer, done.state, z, seed=2)
    assert then.metrics['dead'] == 0 and np.all(then.state['count'] > 0)


def test_a_code_that_restarts_in_vain_is_dead_again():
    quantizer = vq(4, 1, decay=0.9, restart_below=0.1)
    vectors, z = np.float32([[0], [1], [2], [50]]), np.float32([[0], [1], [2]] * 4)
    state = book_of(vectors, [1, 1, 1, 0.01])
    state = run(quantizer, state, np.float32([[50]])).state  # it takes a vector that never recurs
    alive = 0
    while run(quantizer, state, z, train=False).metrics['dead'] == 0:
        state, alive = run(quantizer, state, z).state, alive + 1
    assert alive == np.ceil(np.log(1 + 0.1 / 0.1) / -np.log(0.9))


@pytest.mark.parametrize('num_codes', [16, 500])
def test_the_first_batch_fills_the_codebook(num_codes):
    """Also with more codes than vectors: they are told apart by the noise."""
    quantizer, z = vq(num_codes, 4), random_vectors(64, 4)
    done = run(quantizer, quantizer.init(jax.random.key(0)), z)
    assert done.metrics['dead'] == 1
    vectors = codebook(quantizer, done.state)
    assert distance_to(vectors, z).max() < 0.1
    assert len(np.unique(vectors, axis=0)) == num_codes
    assert run(quantizer, done.state, z, train=False).metrics['dead'] == 0


def test_parts_of_a_batch_agree_on_one_of_their_vectors():
    """Plain means of eight offers would lie about the middle of the data, near no vector."""
    quantizer, z = vq(64, 4), random_vectors(8, 64, 4)
    fresh = quantizer.init(jax.random.key(0))
    offers = [run(quantizer, fresh, z[part], seed=part).state for part in range(8)]
    vectors = codebook(quantizer, jax.tree.map(lambda *leaves: sum(leaves) / 8, *offers))
    each = np.stack([codebook(quantizer, offer) for offer in offers])
    distance = np.linalg.norm(each - vectors, axis=-1).min(0)
    assert np.mean(distance < 0.3) > 0.75
    assert np.mean(np.linalg.norm(each - each.mean(0), axis=-1).min(0) < 0.3) < 0.05


def blobs(seed: int) -> np.ndarray:
    """512 vectors of 16 narrow clusters."""
    centers = 10 * random_vectors(16, 4, seed=100)
    which = np.random.default_rng(seed).integers(0, 16, 512)
    return centers[which] + 0.1 * random_vectors(512, 4, seed=seed)


def after_a_move(restart_below: float, parts: int = 1) -> dict:
    """Metrics on clusters of a codebook that was filled far from them, as an encoder's vectors
    may all lie elsewhere before it is trained."""
    quantizer = vq(32, 4, decay=0.9, restart_below=restart_below)
    z = 100 + 0.01 * random_vectors(512, 4)
    state = run(quantizer, quantizer.init(jax.random.key(0)), z).state
    for seed in range(200):
        z = np.split(blobs(seed), parts)
        offers = [run(quantizer, state, z[i], parts * seed + i).state for i in range(parts)]
        state = jax.tree.map(lambda *leaves: sum(leaves) / parts, *offers)
    return run(quantizer, state, blobs(200), train=False).metrics


@pytest.mark.parametrize('parts', [1, 4])
def test_restarts_bring_every_code_into_use(parts):
    metrics = after_a_move(restart_below=0.2, parts=parts)
    assert metrics['usage'] == 1
    assert metrics['distortion'] < 0.01  # 0.1^2 with one code in each cluster


def test_without_restarts_most_codes_stay_unused():
    metrics = after_a_move(restart_below=0)
    assert metrics['usage'] < 0.5 and metrics['distortion'] > 1


BASE = vq(16, 3, commitment=0.4)
ROW = vq(16, 3, depth=3, commitment=0.4)
Z = random_vectors(200, 3)


@functools.cache
def filled() -> dict:
    """The state of `ROW` after some batches."""
    state = ROW.init(jax.random.key(0))
    for seed in range(20):
        state = run(ROW, state, Z, seed=seed).state
    return state


def stage(i: int) -> dict:
    return jax.tree.map(lambda leaf: leaf[i], filled())


def test_each_codebook_quantizes_what_is_left_and_the_error_falls():
    done = run(ROW, filled(), Z, train=False)
    left, loss, errors = Z, 0, [np.mean(Z**2)]
    for i in range(3):
        own = run(BASE, stage(i), left, train=False)
        np.testing.assert_array_equal(done.codes[:, i], own.codes)
        left, loss = left - own.values, loss + own.loss
        errors.append(np.mean(np.square(left)))
    np.testing.assert_allclose(done.values, Z - left, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(done.loss, loss, rtol=1e-4)
    np.testing.assert_allclose(done.metrics['distortion'], errors[-1], rtol=1e-4)
    assert all(late < 0.6 * early for early, late in itertools.pairwise(errors))


def test_the_gradient_of_codebooks_in_a_row():
    """Straight through once on the sum; each commitment pulls z to what is quantized so far."""
    weight = random_vectors(200, 3, seed=1)

    def weighted(z):
        done = run(ROW, filled(), z, train=False)
        return jnp.sum(weight * done.values) + jnp.sum(done.loss), done.codes

    slope, codes = jax.grad(weighted, has_aux=True)(Z)
    pull, so_far = 0, 0
    for i in range(3):
        so_far = so_far + BASE.lookup(stage(i), codes[:, i])
        pull = pull + 0.4 * 2 * (Z - so_far) / 3
    np.testing.assert_allclose(slope, weight + pull, rtol=1e-3, atol=1e-5)
