"""The recurrent network against its equation, and against itself token by token."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gen_jax.errors import InputError
from gen_jax.networks.lstm import LSTM

TOKENS = jax.random.randint(jax.random.key(1), (2, 7), 0, 5)


@pytest.fixture(scope='module')
def case():
    network = LSTM(vocab_size=5, context=7, width=6, num_layers=2)
    return network, nn.unbox(jax.jit(network.init)(jax.random.key(0), TOKENS))['params']


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_it_is_its_equation(case):
    network, params = case
    x = np.asarray(params['tokens']['embedding'])[np.asarray(TOKENS)]
    for layer in range(2):
        cell = jax.tree.map(np.asarray, params[f'cell_{layer}'])
        c = h = np.zeros((2, 6))
        outputs = []
        for t in range(7):
            i, f, g, o = (
                x[:, t] @ cell[f'i{gate}']['kernel']
                + h @ cell[f'h{gate}']['kernel']
                + cell[f'h{gate}']['bias']
                for gate in 'ifgo'
            )
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
            outputs.append(h)
        x = np.stack(outputs, 1)
    expected = x @ np.asarray(params['head']['kernel']) + np.asarray(params['head']['bias'])
    logits = network.apply({'params': params}, TOKENS)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


def test_what_is_kept_answers_as_the_whole_does(case):
    network, params = case
    whole = network.apply({'params': params}, TOKENS)
    plain, own = network.for_decoding(params)
    first, cache = plain.apply(
        {'params': own}, TOKENS[:, :3], cache=plain.init_cache(2, 7), start=0
    )
    rest, _ = plain.apply({'params': own}, TOKENS[:, 3:], cache=cache, start=3)
    np.testing.assert_allclose(jnp.concatenate([first, rest], 1), whole, rtol=1e-5, atol=1e-6)


def test_in_half_precision_what_is_kept_is_the_same_too(case):
    _, params = case
    network = LSTM(vocab_size=5, context=7, width=6, num_layers=2, dtype='bfloat16')
    whole = network.apply({'params': params}, TOKENS)
    assert whole.dtype == jnp.float32
    assert (whole != whole.astype(jnp.bfloat16)).any()  # logits are not rounded
    cache, logits = network.init_cache(2, 7), []
    for t in range(7):
        now, after = network.apply({'params': params}, TOKENS[:, t : t + 1], cache=cache)
        shapes = (jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), c) for c in (cache, after))
        assert next(shapes) == next(shapes)
        cache, logits = after, [*logits, now]
    np.testing.assert_allclose(jnp.concatenate(logits, 1), whole, rtol=1e-5, atol=1e-6)


def test_what_it_cannot_do_is_refused(case):
    network, params = case
    with pytest.raises(InputError, match='separate_documents'):
        network.apply({'params': params}, TOKENS, segments=TOKENS)
    with pytest.raises(InputError, match='dropout'):
        LSTM(vocab_size=5, context=7, dropout=1.0)
    with pytest.raises(InputError, match='num_layers'):
        LSTM(vocab_size=5, context=7, num_layers=0)
