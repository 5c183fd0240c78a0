"""What every quantizer does, whatever its codes are."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gen_jax.errors import InputError
from gen_jax.quantizers.codebook import vq
from gen_jax.quantizers.scalar import fsq, lfq

QUANTIZERS = {
    'vq': vq(12, 3),
    'fsq': fsq((5, 4, 3)),
    'lfq': lfq(3),
    'residual': vq(12, 3, depth=3),
}
every_quantizer = pytest.mark.parametrize('quantizer', QUANTIZERS.values(), ids=QUANTIZERS)


def vectors(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def quantize(quantizer, state, z, seed: int = 0, train: bool = False):
    run = jax.jit(quantizer.quantize, static_argnames='train')
    return run(state, z, jax.random.key(seed), train=train)


@functools.cache
def trained(quantizer):
    """The state after a few batches of normal vectors."""
    state = quantizer.init(jax.random.key(0))
    for seed in range(3):
        z = vectors(4, 5, quantizer.channels, seed=seed)
        state = quantize(quantizer, state, z, seed, train=True).state
    return state


@every_quantizer
@pytest.mark.parametrize('axes', [(6,), (4, 5), (2, 3, 4, 5)])
def test_codes_and_values_agree_for_any_axes(quantizer, axes):
    state, z = trained(quantizer), vectors(*axes, quantizer.channels, seed=5)
    done = quantize(quantizer, state, z)
    depth = (quantizer.depth,) if quantizer.depth > 1 else ()
    assert done.codes.shape == (*axes, *depth) and done.codes.dtype == jnp.int32
    assert done.codes.min() >= 0 and done.codes.max() < quantizer.num_codes
    assert done.values.shape == z.shape and done.loss.shape == axes[:1]
    np.testing.assert_allclose(quantizer.lookup(state, done.codes), done.values, rtol=2e-6)
    first = quantize(quantizer, state, z.reshape(-1, quantizer.channels)[:6])
    np.testing.assert_array_equal(done.codes.reshape(-1, *depth)[:6], first.codes)


@every_quantizer
def test_the_state_keeps_its_structure_and_is_of_floats(quantizer):
    state, z = quantizer.init(jax.random.key(0)), vectors(4, 5, quantizer.channels)
    shapes = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(state))
    after = quantize(quantizer, state, z, train=True).state
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), after) == shapes
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after))
    same = quantize(quantizer, after, z).state
    jax.tree.map(np.testing.assert_array_equal, same, after)


@every_quantizer
def test_before_the_first_batch_everything_is_finite(quantizer):
    state, z = quantizer.init(jax.random.key(0)), vectors(4, 5, quantizer.channels)
    done = quantize(quantizer, state, z, train=True)
    slope = jax.grad(lambda z: quantize(quantizer, state, z).loss.sum())(z)
    for leaf in jax.tree.leaves((done, slope)):
        assert np.isfinite(leaf).all()


@every_quantizer
def test_bfloat16_is_computed_in_float32(quantizer):
    state = trained(quantizer)
    z = jnp.asarray(vectors(4, 5, quantizer.channels), jnp.bfloat16)
    half, full = (quantize(quantizer, state, x, train=True) for x in (z, z.astype(jnp.float32)))
    jax.tree.map(np.testing.assert_array_equal, half, full)
    assert half.values.dtype == half.loss.dtype == jnp.float32


@every_quantizer
def test_the_same_key_gives_the_same_and_training_the_values_of_before(quantizer):
    state, z = trained(quantizer), vectors(4, 5, quantizer.channels)
    first, again = (quantize(quantizer, state, z, seed=3, train=True) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    still = quantize(quantizer, state, z)
    np.testing.assert_array_equal(first.values, still.values)
    np.testing.assert_array_equal(first.codes, still.codes)


@every_quantizer
def test_each_example_has_its_own_loss(quantizer):
    """Its mean is what is trained on; only the entropy of the whole batch belongs to all."""
    state, z = trained(quantizer), vectors(4, 5, quantizer.channels)
    done = quantize(quantizer, state, z)
    shared = 0.1 * done.metrics.get('marginal_entropy', 0.0)
    for row in range(4):
        alone = quantize(quantizer, state, z[row : row + 1])
        own = alone.loss[0] + 0.1 * alone.metrics.get('marginal_entropy', 0.0)
        np.testing.assert_allclose(own, done.loss[row] + shared, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('quantizer', [vq(8, 2), fsq((3, 4))])
def test_usage_and_perplexity_are_those_of_the_codes(quantizer):
    state = trained(quantizer)
    done = quantize(quantizer, state, vectors(4, 5, 2, seed=2))
    _, counts = np.unique(done.codes, return_counts=True)
    share = counts / counts.sum()
    np.testing.assert_allclose(done.metrics['usage'], len(counts) / quantizer.num_codes, rtol=1e-6)
    perplexity = np.exp(-np.sum(share * np.log(share)))
    np.testing.assert_allclose(done.metrics['perplexity'], perplexity, rtol=1e-5)


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda: vq(1, 3), 'num_codes: 1 must be a whole number of at least 2'),
        (lambda: vq(2.5, 3), 'num_codes: 2.5 must be a whole'),
        (lambda: vq(True, 3), 'num_codes: True must be a whole'),
        (lambda: vq(2**25, 3), 'num_codes: 33554432 must be .* at most 16777216'),
        (lambda: vq(8, 0), 'channels: 0 must be'),
        (lambda: vq(8, 3, decay=1), 'decay: 1 must be at least 0 and below 1'),
        (lambda: vq(8, 3, decay=-0.1), 'decay: -0.1'),
        (lambda: vq(8, 3, commitment=-1), 'commitment: -1 must be at least 0'),
        (lambda: vq(8, 3, commitment=float('nan')), 'commitment: nan'),
        (lambda: vq(8, 3, restart_below=1.0), 'restart_below: 1.0 must be'),
        (lambda: vq(8, 3, epsilon=0.0), 'epsilon: 0.0 must be above 0'),
        (lambda: fsq(()), r'levels: \(\) must be one number for each channel'),
        (lambda: fsq((8, 2)), 'levels: 2 must be a whole number of at least 3'),
        (lambda: fsq((8, 501)), 'levels: 501 must be'),
        (lambda: fsq((8, 5.0)), 'levels: 5.0 must be'),
        (lambda: fsq((500,) * 3), r'levels: \(500.* product of at most 16777216'),
        (lambda: lfq(0), 'bits: 0 must be a whole number of at least 1 and at most 24'),
        (lambda: lfq(25), 'bits: 25'),
        (lambda: lfq(4, entropy=-0.1), 'entropy: -0.1'),
        (lambda: lfq(4, diversity=-0.1), 'diversity: -0.1'),
        (lambda: lfq(4, commitment=-0.1), 'commitment: -0.1'),
        (lambda: lfq(4, temperature=0), 'temperature: 0 must be above 0'),
        (lambda: vq(8, 3, depth=0), 'depth: 0 must be a whole number of at least 1'),
    ],
)
def test_what_is_out_of_range_is_named(make, message):
    with pytest.raises(InputError, match=f'^{message}'):
        make()


@every_quantizer
def test_vectors_of_another_size_are_refused(quantizer):
    state, z = quantizer.init(jax.random.key(0)), vectors(4, quantizer.channels + 1)
    field = '^(channels|levels|bits): .* channels of the encoder'
    with pytest.raises(InputError, match=field):
        quantizer.quantize(state, z, jax.random.key(0), train=True)
