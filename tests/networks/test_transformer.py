"""The transformer: its size, what it sees, and its options against plainer forms of them."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gen_jax.errors import InputError
from gen_jax.networks.transformer import Transformer

SMALL = {'vocab_size': 11, 'context': 12, 'width': 16, 'num_layers': 2, 'num_heads': 4}
FORMS = {
    'gpt2': {},
    'modern': {
        'positions': 'rotary',
        'norm': 'rmsnorm',
        'activation': 'swiglu',
        'qk_norm': True,
        'num_kv_heads': 2,
        'bias': False,
        'tied': False,
        'soft_cap': 3.0,
    },
    'alibi': {'positions': 'alibi', 'activation': 'relu2', 'window': 4},
    'frames': {'positions': 'rotary', 'period': 3, 'activation': 'relu2'},
    'scanned': {'scan': True, 'remat': True, 'positions': 'none'},
}
TOKENS = jax.random.randint(jax.random.key(1), (2, 12), 0, 11)


def params_of(network, spread=0.3):
    """Parameters of which none are zero and that make answers differ."""
    shapes = nn.unbox(jax.eval_shape(network.init, jax.random.key(0), TOKENS))
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: (spread * rng.normal(size=leaf.shape)).astype(leaf.dtype), shapes
    )


def size_of(**fields):
    network = Transformer(**fields)
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32))
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(nn.unbox(shapes)))


def test_the_defaults_are_gpt2_124m():
    assert size_of(vocab_size=50257, context=1024) == 124_439_808


def test_the_published_size_of_a_llama():
    """TinyLlama 1.1B (Zhang et al. 2024)."""
    size = size_of(
        vocab_size=32_000,
        context=2048,
        width=2048,
        num_layers=22,
        num_heads=32,
        num_kv_heads=4,
        hidden=5632,
        positions='rotary',
        norm='rmsnorm',
        activation='swiglu',
        bias=False,
        tied=False,
        scan=True,
    )
    assert size == 1_100_048_384


@pytest.mark.parametrize('name', FORMS)
def test_no_token_sees_what_comes_after_it(name):
    """The gradient of the answer at every position with respect to every later input is 0, and
    with respect to those before it is not."""
    length = 11
    network = Transformer(**SMALL | {'vocab_size': length + 1}, **FORMS[name])
    params = params_of(network)['params']
    tokens = jnp.arange(length)[None]  # each row of the table is read at one position

    def answer(table, position):
        own = {**params, 'tokens': {'embedding': table}}
        # A tied head reads the table, too: of the last row, which is at no position.
        return network.apply({'params': own}, tokens)[0, position, length]

    gradient = jax.jit(jax.grad(answer))
    for position in range(length):
        sizes = np.abs(gradient(params['tokens']['embedding'], position)).max(1)[:length]
        assert (sizes[position + 1 :] == 0).all(), position
        # Each of the two layers sees `window` - 1 positions back.
        reach = 2 * (FORMS[name].get('window', length) - 1)
        sees = position - np.arange(position + 1) <= reach
        np.testing.assert_array_equal(sizes[: position + 1] > 0, sees)


@pytest.mark.parametrize('name', FORMS)
@pytest.mark.parametrize('backend', ['cpu', 'gpu'])  # which keep them in other shapes
def test_kept_keys_and_values_answer_as_the_whole_does(name, backend, monkeypatch):
    monkeypatch.setattr(jax, 'default_backend', lambda: backend)
    network = Transformer(**SMALL, **FORMS[name])
    params = params_of(network)
    whole = jax.jit(network.apply)(params, TOKENS)
    plain, own = network.for_decoding(params['params'])
    cache, parts, start = plain.init_cache(2, 12), [], 0
    read = jax.jit(
        lambda *given: plain.apply({'params': own}, given[0], cache=given[1], start=given[2])
    )
    for size in (5, 1, 1, 5):
        piece = TOKENS[:, start : start + size]
        logits, cache = read(piece, cache, start)
        parts.append(logits)
        start += size
    np.testing.assert_allclose(jnp.concatenate(parts, 1), whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('name', ['gpt2', 'modern'])
def test_scanned_blocks_answer_as_those_one_by_one(name):
    fields = SMALL | FORMS[name]
    one_by_one, scanned = Transformer(**fields), Transformer(**fields, scan=True, remat=True)
    params = params_of(scanned)
    plain, own = scanned.for_decoding(params['params'])
    assert plain == one_by_one
    gradients = [
        jax.jit(jax.grad(lambda p, net=net: (net.apply({'params': p}, TOKENS) ** 2).mean()))(tree)
        for net, tree in ((scanned, params['params']), (one_by_one, own))
    ]
    _, of_scanned = scanned.for_decoding(gradients[0])
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
        dict(of_scanned),
        dict(gradients[1]),
    )


def test_segments_are_read_as_if_each_stood_alone():
    network = Transformer(**SMALL, positions='rotary')
    params = params_of(network)
    segments = jnp.array([[0] * 5 + [1] * 7, [3] * 12])
    apply = jax.jit(network.apply)
    both = apply(params, TOKENS, segments=segments)
    alone = jnp.concatenate([apply(params, TOKENS[:1, :5]), apply(params, TOKENS[:1, 5:])], 1)
    np.testing.assert_allclose(both[:1], alone, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(both[1], apply(params, TOKENS)[1], rtol=1e-4, atol=1e-4)


def test_places_of_a_period_differ_and_frames_do_not():
    """One token again and again: without a period every position of a relative form answers alike,
    with one those at the same place of their frames, once the window sees no beginning."""
    fields = SMALL | {'num_layers': 1, 'positions': 'rotary', 'window': 6}
    tokens, answers = jnp.full((1, 12), 7), {}
    for period in (None, 3):
        network = Transformer(**fields, period=period)
        logits = jax.jit(network.apply)(params_of(network), tokens)[0, 6:]
        answers[period] = np.asarray(logits)
    np.testing.assert_allclose(answers[None][1:], answers[None][:-1], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(answers[3][3:], answers[3][:-3], rtol=1e-4, atol=1e-4)
    assert np.abs(answers[3][1:] - answers[3][:-1]).max(1).min() > 0.05


def test_a_soft_cap_bounds_the_logits():
    fields = SMALL
    params = params_of(Transformer(**fields), spread=2.0)
    free, capped = (
        jax.jit(Transformer(**fields, soft_cap=cap).apply)(params, TOKENS) for cap in (None, 5.0)
    )
    assert np.abs(free).max() > 6 and np.abs(capped).max() <= 5
    np.testing.assert_allclose(capped, 5 * np.tanh(free / 5), rtol=1e-5, atol=1e-5)


def test_shared_keys_equal_keys_that_are_repeated():
    few, many = Transformer(**SMALL, num_kv_heads=2), Transformer(**SMALL)
    params = params_of(few)['params']

    def repeat(leaf):  # [..., 2 heads x 4] to [..., 4 heads x 4], each twice
        heads = leaf.reshape(*leaf.shape[:-1], 2, 4)
        return heads.repeat(2, axis=-2).reshape(*leaf.shape[:-1], 16)

    wide = jax.tree.map(lambda leaf: leaf, params)
    for block in ('block_0', 'block_1'):
        for part in ('k', 'v'):
            wide[block]['attention'][part] = jax.tree.map(repeat, params[block]['attention'][part])
    np.testing.assert_allclose(
        jax.jit(few.apply)({'params': params}, TOKENS),
        jax.jit(many.apply)({'params': wide}, TOKENS),
        atol=1e-4,
    )


def test_branches_begin_smaller_the_deeper_the_network():
    network = Transformer(**SMALL | {'width': 64, 'num_layers': 8})
    params = nn.unbox(jax.jit(network.init)(jax.random.key(0), TOKENS))['params']
    assert np.std(params['block_0']['in']['kernel']) == pytest.approx(0.02, rel=0.04)
    assert np.std(params['block_0']['out']['kernel']) == pytest.approx(0.005, rel=0.04)
    assert np.std(params['block_3']['attention']['out']['kernel']) == pytest.approx(0.005, rel=0.04)


@pytest.mark.parametrize(
    ('fields', 'field'),
    [
        ({'positions': 'sine'}, 'positions'),
        ({'norm': 'batch'}, 'norm'),
        ({'activation': 'relu'}, 'activation'),
        ({'num_heads': 3}, 'num_heads'),
        ({'num_kv_heads': 3}, 'num_kv_heads'),
        ({'num_heads': 16, 'positions': 'rotary'}, 'num_heads'),
        ({'num_layers': 0}, 'num_layers'),
        ({'window': 0}, 'window'),
        ({'soft_cap': -1.0}, 'soft_cap'),
        ({'period': 0}, 'period: 0'),
        ({'dropout': 1.0}, 'dropout'),
    ],
)
def test_fields_that_make_no_network_are_refused(fields, field):
    with pytest.raises(InputError, match=field):
        Transformer(**SMALL | fields)
