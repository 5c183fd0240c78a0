"""Beam search against all sequences, one by one."""

import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gen_jax.errors import InputError
from gen_jax.networks.transformer import Transformer
from gen_jax.samplers import tokens as samplers
from gen_jax.samplers.beam_search import beam_search, check_search

VOCAB, LENGTH = 3, 6


@pytest.fixture(scope='module')
def model():
    """(a predictor, log p of every token of sequences [N, LENGTH] given those before)."""
    network = Transformer(
        vocab_size=VOCAB, context=LENGTH, width=16, num_layers=2, num_heads=2, init_std=0.5
    )
    params = nn.unbox(network.init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32)))

    def read(tokens, cache, start):
        return network.apply(params, tokens, cache=cache, start=start)

    def logs(x):
        of_all = jax.nn.log_softmax(network.apply(params, x[:, :-1]))
        return np.take_along_axis(np.asarray(of_all), x[:, 1:, None], -1)[..., 0]

    return samplers.Predictor(read, network.init_cache, network.grow_cache, VOCAB, LENGTH), logs


def all_after(prompt):
    rest = itertools.product(range(VOCAB), repeat=LENGTH - len(prompt))
    return np.array([(*prompt, *tail) for tail in rest], np.int32)


def search(predictor, prompts, **options):
    tokens = np.zeros((len(prompts), LENGTH), np.int32)
    known = np.zeros(tokens.shape, bool)
    for row, prompt in enumerate(prompts):
        tokens[row, : len(prompt)], known[row, : len(prompt)] = prompt, True
    run = jax.jit(functools.partial(beam_search, predictor, **options))
    return np.asarray(run(jnp.asarray(tokens), jnp.asarray(known)))


def test_with_enough_beams_the_likeliest_of_all_sequences_is_found(model):
    predictor, logs = model
    prompts = [(0,), (1, 2), (2, 0, 1)]
    found = search(predictor, prompts, num_beams=VOCAB ** (LENGTH - 1), length_penalty=0.0)
    for prompt, sequence in zip(prompts, found, strict=True):
        candidates = all_after(prompt)
        best = candidates[logs(candidates)[:, len(prompt) - 1 :].sum(1).argmax()]
        np.testing.assert_array_equal(sequence, best)


def test_more_beams_find_what_greedy_search_misses(model):
    predictor, logs = model
    prompts = [(a, b) for a in range(VOCAB) for b in range(VOCAB)]
    scores = [logs(search(predictor, prompts, num_beams=n))[:, 1:].sum(1) for n in (1, 4)]
    assert (scores[1] > scores[0] - 1e-6).all() and (scores[1] > scores[0] + 1e-3).any()


def test_one_beam_is_greedy(model):
    predictor, _ = model
    prompts = [(0,), (1, 1)]
    found = search(predictor, prompts, num_beams=1)
    tokens = np.zeros_like(found)
    known = np.zeros(found.shape, bool)
    for row, prompt in enumerate(prompts):
        tokens[row, : len(prompt)], known[row, : len(prompt)] = prompt, True
    greedy = samplers.generate(
        predictor, tokens, known, jax.random.key(0), samplers.Rules(temperature=0.0)
    )
    np.testing.assert_array_equal(found, greedy)


@pytest.mark.parametrize('penalty', [0.0, 1.0])
def test_ended_sequences_compete_by_their_length(model, penalty):
    predictor, logs = model
    end = 1
    (found,) = search(predictor, [(0,)], num_beams=3**5, length_penalty=penalty, stop=(end,))
    candidates = all_after((0,))
    after_end = np.cumsum(candidates[:, 1:] == end, 1) - (candidates[:, 1:] == end) > 0
    totals = np.where(after_end, 0, logs(candidates)).sum(1)
    scores = totals / (~after_end).sum(1) ** penalty
    best = candidates[scores.argmax()]
    stop = np.flatnonzero(best[1:] == end)
    kept = LENGTH if len(stop) == 0 else stop[0] + 2
    np.testing.assert_array_equal(found[:kept], best[:kept])


def test_what_cannot_be_searched_is_refused(model):
    predictor, _ = model
    tokens = jnp.zeros((1, LENGTH + 2), jnp.int32)
    with pytest.raises(InputError, match='within the context'):
        beam_search(predictor, tokens, tokens == 0, num_beams=2)
    with pytest.raises(InputError, match='num_beams: 0'):
        check_search(samplers.Rules(), 0, None)
    check_search(samplers.Rules(stop=(3,), temperature=0.5), 2, 1.0)
