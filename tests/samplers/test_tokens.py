"""Decoding against the plain way: the whole sequence through the network, for every token."""

import functools
from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gen_jax.errors import InputError
from gen_jax.networks.transformer import Transformer
from gen_jax.samplers import tokens as samplers

VOCAB, CONTEXT = 7, 16
FORMS = {
    'gpt2': {},
    'rotary': {'positions': 'rotary', 'norm': 'rmsnorm', 'qk_norm': True, 'num_kv_heads': 2},
    'alibi': {'positions': 'alibi', 'window': 5, 'activation': 'swiglu', 'tied': False},
    'scanned': {'scan': True, 'soft_cap': 5.0, 'activation': 'relu2', 'positions': 'none'},
}


def make(vocab_size=VOCAB, context=CONTEXT, spread=0.3, **fields):
    """A small network with weights large enough that its answers differ."""
    network = Transformer(
        vocab_size=vocab_size,
        context=context,
        width=16,
        num_layers=2,
        num_heads=4,
        init_std=spread,
        **fields,
    )
    params = nn.unbox(network.init(jax.random.key(3), jnp.zeros((1, 1), jnp.int32)))['params']
    plain, own = network.for_decoding(params)

    def read(tokens, cache, start):
        return plain.apply({'params': own}, tokens, cache=cache, start=start)

    predictor = samplers.Predictor(read, plain.init_cache, plain.grow_cache, vocab_size, context)
    whole = jax.jit(lambda tokens: network.apply({'params': params}, tokens))
    return SimpleNamespace(predictor=predictor, whole=whole)


@pytest.fixture(scope='module', params=FORMS)
def form(request):
    return make(**FORMS[request.param])


def plainly(whole, tokens, known, key, rules, context=CONTEXT):
    """What `generate` should give, without a cache: rule by rule."""
    tokens, known = np.array(tokens), np.array(known)
    done, start = np.zeros(len(tokens), bool), 0
    for t in range(tokens.shape[1] - 1):
        if t - start >= context:
            start = t - context // 2
        padded = np.zeros((len(tokens), context), np.int32)
        padded[:, : t + 1 - start] = tokens[:, start : t + 1]
        logits = whole(padded)[:, t - start]
        seen = np.array([np.isin(np.arange(VOCAB), row[: t + 1]) for row in tokens])
        drawn = np.asarray(samplers.choose(rules, logits, seen, jax.random.fold_in(key, t)))
        free = ~known[:, t + 1] & ~done
        tokens[free, t + 1] = drawn[free]
        for end in rules.stop:
            done |= (tokens[:, t + 1] == end) & ~known[:, t + 1]
        if done.all():
            break
    return tokens


def prompts(length, lengths=(1, 4, 7)):
    """Prompts of unequal length, and which tokens they are."""
    tokens = jax.random.randint(jax.random.key(5), (len(lengths), length), 0, VOCAB)
    known = np.arange(length) < np.array(lengths)[:, None]
    return jnp.where(known, tokens, 0), jnp.asarray(known)


RULES = {
    'plain': {},
    'greedy': {'temperature': 0.0},
    'sharper': {'temperature': 0.7},
    'top_k': {'top_k': 3},
    'top_p': {'top_p': 0.8},
    'min_p': {'min_p': 0.2},
    'penalty': {'temperature': 0.0, 'repetition_penalty': 1.5},
    'stop': {'stop': (2, 5)},
}


def drawn_by(model, tokens, known, key, rules, **options):
    run = functools.partial(samplers.generate, model.predictor, rules=rules, **options)
    return np.asarray(jax.jit(run)(tokens, known, key))


def test_a_cache_changes_no_token_in_any_network(form, monkeypatch):
    """Nor does it when it grows on the way."""
    monkeypatch.setattr(samplers, '_SMALLEST_ROOM', 4)
    assert samplers.rooms(1, 16) == [4, 8, 12, 16]
    given, rules = (*prompts(CONTEXT), jax.random.key(1)), samplers.Rules()
    np.testing.assert_array_equal(drawn_by(form, *given, rules), plainly(form.whole, *given, rules))


@pytest.mark.parametrize('name', RULES)
def test_a_cache_changes_no_token_for_any_rule(name):
    model, rules = make(), samplers.Rules(**RULES[name])
    given = (*prompts(CONTEXT), jax.random.key(2))
    expected = plainly(model.whole, *given, rules)
    np.testing.assert_array_equal(drawn_by(model, *given, rules), expected)
    assert len(np.unique(expected[0])) > 1


def test_a_prefix_read_at_once_changes_no_token():
    model, rules = make(), samplers.Rules(repetition_penalty=1.3)
    given = (*prompts(CONTEXT, (6, 8, 9)), jax.random.key(4))
    expected = drawn_by(model, *given, rules)
    for prefix in (2, 6):
        np.testing.assert_array_equal(drawn_by(model, *given, rules, prefix=prefix), expected)


@pytest.mark.parametrize('name', ['gpt2', 'alibi'])
def test_beyond_the_context_half_of_it_is_read_anew(name):
    model, rules = make(**FORMS[name]), samplers.Rules()
    given = (*prompts(45, (3, 20, 1)), jax.random.key(6))
    expected = plainly(model.whole, *given, rules)
    np.testing.assert_array_equal(drawn_by(model, *given, rules), expected)


def test_a_cache_has_room_for_the_prefix_and_for_all_in_the_end():
    assert samplers.rooms(1, 40) == [40]
    assert samplers.rooms(1, 65) == [64, 65]
    assert samplers.rooms(64, 130) == [128, 130]
    assert samplers.rooms(300, 1024) == [512, 768, 1024]
    assert samplers.rooms(1024, 1024) == [1024]


def test_in_pieces_it_is_the_same_sequence():
    model, (tokens, known) = make(), prompts(40)
    key, rules = jax.random.key(7), samplers.Rules(top_k=4)
    state = samplers.begin(model.predictor, tokens, known, rules)
    go = jax.jit(functools.partial(samplers.advance, model.predictor, rules=rules))
    for until in (1, 9, 10, 39):
        state = go(state, key, until)
        assert state.position == until
    np.testing.assert_array_equal(state.tokens, drawn_by(model, tokens, known, key, rules))


def test_it_ends_early_where_all_sequences_have():
    model, (tokens, known) = make(), prompts(CONTEXT, (1, 1, 1))
    rules = samplers.Rules(stop=tuple(range(VOCAB)))
    state = samplers.begin(model.predictor, tokens, known, rules)
    state = samplers.advance(model.predictor, state, jax.random.key(0), CONTEXT - 1, rules)
    assert state.position == 1 and state.done.all()


def test_choices_keep_what_they_should():
    logits = jnp.log(jnp.array([[0.5, 0.3, 0.15, 0.05], [0.1, 0.2, 0.3, 0.4]]))

    def kept(filtered):
        return np.isfinite(np.asarray(filtered)).tolist()

    first, last = [True, True, False, False], [False, False, True, True]
    assert kept(samplers.keep_top_k(logits, 2)) == [first, last]
    assert kept(samplers.keep_top_k(logits, 9)) == [[True] * 4] * 2
    assert kept(samplers.keep_top_p(logits, 0.6)) == [first, last]
    assert kept(samplers.keep_top_p(logits, 0.45)) == [[True, False, False, False], last]
    assert kept(samplers.keep_top_p(logits, 1.0)) == [[True] * 4] * 2
    rules = samplers.Rules(min_p=0.55)
    draws = [samplers.choose(rules, logits, None, jax.random.key(n)).tolist() for n in range(100)]
    assert {row[0] for row in draws} == {0, 1} and {row[1] for row in draws} == {2, 3}


@pytest.mark.parametrize(
    ('options', 'field'),
    [
        ({'repetition_penalty': 0.0}, 'repetition_penalty'),
        ({'temperature': -1.0}, 'temperature'),
        ({'temperature': float('nan')}, 'temperature'),
        ({'top_k': 0}, 'top_k'),
        ({'top_p': 0.0}, 'top_p'),
        ({'min_p': 1.5}, 'min_p'),
    ],
)
def test_values_out_of_range_are_refused(options, field):
    with pytest.raises(InputError, match=field):
        samplers.check(samplers.Rules(**options))
