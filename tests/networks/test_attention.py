"""Attention against its definition, head by head and query by query."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gen_jax.networks import attention


def plainly(q, k, v, bias):
    """Equation (1) in NumPy: q [Q, d], k and v [K, d], bias [Q, K]."""
    scores = q @ k.T / np.sqrt(q.shape[-1]) + bias
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ v


@pytest.mark.parametrize('groups', [1, 2, 6])
def test_attend_is_softmax_attention_with_shared_keys(groups):
    rng = np.random.default_rng(0)
    q = rng.normal(size=(2, 5, 6, 4)).astype(np.float32)
    k, v = rng.normal(size=(2, 2, groups, 5, 4)).astype(np.float32)
    places = jnp.arange(5)
    bias = attention.bias_of(places, places, alibi_heads=6)
    out = np.asarray(attention.attend(q, k, v, bias))
    for row in range(2):
        for head in range(6):
            group = head // (6 // groups)
            one = plainly(q[row, :, head], k[row, group], v[row, group], np.asarray(bias[0, head]))
            np.testing.assert_allclose(out[row, :, head], one, rtol=1e-5, atol=1e-6)


def test_bias_says_who_sees_whom():
    places = jnp.arange(6)
    seen = {
        'causal': attention.bias_of(places, places) == 0,
        'window': attention.bias_of(places, places, window=2) == 0,
        'segments': attention.bias_of(
            places, places, segments=jnp.array([[0, 0, 1, 1, 1, 2], [0, 0, 0, 0, 0, 0]])
        )
        == 0,
    }
    i, j = np.meshgrid(range(6), range(6), indexing='ij')
    np.testing.assert_array_equal(seen['causal'][0, 0], j <= i)
    np.testing.assert_array_equal(seen['window'][0, 0], (j <= i) & (i - j < 2))
    of = np.array([0, 0, 1, 1, 1, 2])
    np.testing.assert_array_equal(seen['segments'][0, 0], (j <= i) & (of[i] == of[j]))
    np.testing.assert_array_equal(seen['segments'][1, 0], j <= i)


def test_queries_may_stand_after_keys_that_are_kept():
    whole = attention.bias_of(jnp.arange(6), jnp.arange(6), window=3, alibi_heads=2)
    last = attention.bias_of(jnp.array([4]), jnp.arange(6), window=3, alibi_heads=2)
    np.testing.assert_array_equal(last, whole[:, :, 4:5])


def test_slopes_are_those_of_the_paper():
    """Press et al. 2022: 1/2, 1/4, ... for 8 heads; for 12, those of 8 and every other of 16."""
    np.testing.assert_allclose(attention.slopes(8), [2.0**-n for n in range(1, 9)])
    between = [2 ** (-(n + 0.5)) for n in range(4)]
    np.testing.assert_allclose(attention.slopes(12)[8:], between, rtol=1e-6)
    assert len(attention.slopes(1)) == 1


def test_a_rotation_makes_products_depend_on_distance_alone():
    q, k = jax.random.normal(jax.random.key(0), (2, 1, 1, 3, 8))

    def product(at_q, at_k):
        turned = [
            attention.rotate(x, jnp.array([place]), 100.0) for x, place in ((q, at_q), (k, at_k))
        ]
        return jnp.einsum('bshd,bshd->h', *turned)

    np.testing.assert_allclose(product(9, 4), product(105, 100), rtol=1e-4, atol=1e-5)
    assert not np.allclose(product(9, 4), product(9, 5), atol=1e-3)
    np.testing.assert_allclose(product(7, 7), jnp.einsum('bshd,bshd->h', q, k), rtol=1e-5)


def test_a_rotation_turns_pairs_half_a_head_apart():
    x = np.array([1.0, 2.0, 3.0, 4.0], np.float32)
    turned = attention.rotate(jnp.asarray(x).reshape(1, 1, 1, 4), jnp.array([3]), 100.0)
    turned = np.asarray(turned).ravel()
    for pair, angle in ((0, 3.0), (1, 3.0 / 10)):
        u, w = x[pair], x[pair + 2]
        assert turned[pair] == pytest.approx(u * np.cos(angle) - w * np.sin(angle), abs=1e-6)
        assert turned[pair + 2] == pytest.approx(w * np.cos(angle) + u * np.sin(angle), abs=1e-6)
