"""Autoregressive models against all the sequences there are, and against plain sums."""

import functools
import itertools
from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from gen_jax.errors import InputError
from gen_jax.evaluate import summarize
from gen_jax.methods.autoregressive import autoregressive
from gen_jax.networks.lstm import LSTM
from gen_jax.networks.transformer import Transformer
from gen_jax.types import DataSpec

NETWORK = functools.partial(Transformer, width=16, num_layers=2, num_heads=2, init_std=0.3)
SEQUENCES = DataSpec((6,), 'int32', vocab_size=3)
IMAGES = DataSpec((2, 2, 1), levels=4, num_classes=3)
DOCUMENTS = DataSpec((8,), 'int32', vocab_size=5, start_token=4, units=('char', 'byte'))


def model_of(spec, network=NETWORK, **options):
    method = autoregressive({'model': network}, spec, **options)
    params, _ = jax.jit(method.init)(jax.random.key(0), {'x': jnp.zeros((1, *spec.shape))})
    return SimpleNamespace(method=method, params=nn.unbox(params))


def evaluate(model, batch):
    return jax.jit(model.method.evaluate)(model.params, {}, batch, jax.random.key(0))


def all_sequences():
    return np.array(list(itertools.product(range(3), repeat=6)), np.int32)


def test_probabilities_of_all_sequences_sum_to_one_and_samples_follow_them():
    """Of 3 symbols and length 6: a chi-square test over all 729."""
    model = model_of(SEQUENCES)
    nats = 6 * np.asarray(evaluate(model, {'x': all_sequences()})['loss'], np.float64)
    probabilities = np.exp(-nats)
    assert probabilities.sum() == pytest.approx(1, abs=1e-5)
    assert probabilities.max() / probabilities.min() > 10  # it is no uniform law
    num = 40_000
    draw = jax.jit(functools.partial(model.method.sample, num=num))
    drawn = np.asarray(draw(model.params, {}, jax.random.key(1)))
    assert drawn.shape == (num, 6) and drawn.dtype == np.int32
    counts = np.bincount(drawn @ 3 ** np.arange(5, -1, -1), minlength=3**6)
    assert stats.chisquare(counts, num * probabilities / probabilities.sum()).pvalue > 1e-3


def test_probabilities_of_all_images_of_a_class_sum_to_one():
    model = model_of(IMAGES, class_conditional=True)
    levels = np.array(list(itertools.product(range(4), repeat=4)), np.float32)
    x = (levels / 3 * 2 - 1).reshape(-1, 2, 2, 1)
    for label in range(3):
        values = evaluate(model, {'x': x, 'label': np.full(len(x), label)})
        bits = 4 * np.asarray(values['bits_per_dim'], np.float64)
        assert (2.0**-bits).sum() == pytest.approx(1, abs=1e-5)
        np.testing.assert_allclose(values['loss'], values['bits_per_dim'] * np.log(2), rtol=1e-5)
    others = evaluate(model, {'x': x, 'label': np.zeros(len(x), np.int32)})
    assert np.abs(others['loss'] - values['loss']).max() > 0.01  # the label is heard


def test_probabilities_of_all_codes_of_a_class_sum_to_one():
    """Tokens that are of no documents, and have labels."""
    model = model_of(SEQUENCES._replace(num_classes=3), class_conditional=True)
    assert model.method.num_classes == 3
    found = []
    for label in range(3):
        batch = {'x': all_sequences(), 'label': np.full(3**6, label)}
        found.append(6 * np.asarray(evaluate(model, batch)['loss'], np.float64))
        assert np.exp(-found[-1]).sum() == pytest.approx(1, abs=1e-5)
    assert np.abs(found[0] - found[1]).max() > 0.01  # the label is heard
    draw = functools.partial(model.method.sample, num=5, cond=jnp.arange(5) % 3)
    assert jax.jit(draw)(model.params, {}, jax.random.key(1)).shape == (5, 6)


@pytest.mark.parametrize('spec', [SEQUENCES, DOCUMENTS._replace(num_classes=3)])
def test_tokens_without_labels_and_documents_have_no_classes(spec):
    with pytest.raises(InputError, match=r'^method\.class_conditional: '):
        autoregressive({'model': NETWORK}, spec, class_conditional=True)


@pytest.mark.parametrize('levels', [2, 17, 256])
def test_images_are_their_levels_and_back(levels):
    model = model_of(IMAGES._replace(levels=levels, shape=(4, 8, 8)))
    inner = model.method.sample.args[0]
    x = np.linspace(-1, 1, levels, dtype=np.float32)
    x = np.resize(x, (2, 4, 8, 8))
    tokens = np.asarray(inner.tokens(x))
    assert tokens.min() == 0 and tokens.max() == levels - 1
    np.testing.assert_allclose(inner.examples(tokens), x, atol=1e-6)


def documents(rng, num=3):
    x = rng.integers(0, 5, (num, 8)).astype(np.int32)
    weight = (rng.random((num, 8)) < 0.7).astype(np.float32)
    counts = np.stack([weight.sum(1), 2 * weight.sum(1)], 1)
    before = rng.integers(0, 5, num).astype(np.int32)
    return {'x': x, 'before': before, 'weight': weight, 'counts': counts}


def test_windows_count_what_has_weight():
    model, batch = model_of(DOCUMENTS), documents(np.random.default_rng(0))
    network = NETWORK(vocab_size=5, context=8)
    given = np.concatenate([batch['before'][:, None], batch['x'][:, :-1]], 1)
    logs = jax.nn.log_softmax(network.apply({'params': model.params['model']}, given))
    nats = -np.take_along_axis(np.asarray(logs, np.float64), batch['x'][..., None], -1)[..., 0]
    total, number = (nats * batch['weight']).sum(), batch['weight'].sum()
    results = summarize(evaluate(model, batch), model.method.estimators)
    expected = {
        'loss': total / number,
        'bits_per_token': total / number / np.log(2),
        'perplexity': np.exp(total / number),
        'nats_per_char': total / number,
        'bits_per_char': total / number / np.log(2),
        'nats_per_byte': total / number / 2,
        'bits_per_byte': total / number / 2 / np.log(2),
    }
    assert results.keys() == expected.keys()
    for name, value in expected.items():
        assert results[name]['value'] == pytest.approx(value, rel=1e-5), name
        assert 'exact' in results[name]['estimator']
        counted = 2 if name.endswith('byte') else 1
        assert results[name]['n'] == counted * number
    phase = model.method.phases[0]
    loss, _ = phase.loss(model.params, SimpleNamespace(model_state={}), batch, jax.random.key(0))
    assert float(loss) == pytest.approx(expected['loss'], rel=1e-5)


def test_separate_documents_do_not_see_each_other():
    x = np.array([[0, 1, 4, 2, 3, 1, 4, 0], [0, 0, 4, 2, 3, 1, 4, 3]], np.int32)
    batch = {'x': x, 'before': np.array([4, 2]), 'weight': np.ones((2, 8), np.float32)}
    batch['counts'] = np.ones((2, 2), np.float32)
    network = functools.partial(NETWORK, positions='rotary')
    apart = model_of(DOCUMENTS, network, separate_documents=True)
    inner = apart.method.sample.args[0]
    nats = np.asarray(inner.nats(apart.params, batch, train=False))
    np.testing.assert_allclose(nats[0, 3:7], nats[1, 3:7], rtol=1e-5)  # the second document
    assert np.abs(nats[0, 7] - nats[1, 7]) > 1e-3
    alone = {'x': np.resize(x[0, 3:7], (1, 8)), 'before': np.array([4])}
    np.testing.assert_allclose(
        nats[0, 3:7], inner.nats(apart.params, alone, train=False)[0, :4], rtol=1e-4
    )
    together = model_of(DOCUMENTS, network).method.sample.args[0]
    nats = np.asarray(together.nats(apart.params, batch, train=False))
    assert np.abs(nats[0, 3:7] - nats[1, 3:7]).max() > 1e-3


def test_separate_documents_are_drawn_one_by_one():
    """What is drawn after an end would see the document before: ends fill the rest."""
    method = model_of(DOCUMENTS, separate_documents=True)
    draw = jax.jit(functools.partial(method.method.sample, num=300))
    x = np.asarray(draw(method.params, {}, jax.random.key(0)))
    ended = np.logical_or.accumulate(x == 4, axis=1)
    assert 0.2 < ended[:, -2].mean() < 1 and not ended[:, 0].all()
    assert np.all(x[ended] == 4)
    # Up to its end it is drawn as it would be without.
    plain = model_of(DOCUMENTS)
    others = np.asarray(
        jax.jit(functools.partial(plain.method.sample, num=300))(
            method.params, {}, jax.random.key(0)
        )
    )
    np.testing.assert_array_equal(x[~ended], others[~ended])
    # What was not given is no part of it, either.
    given = np.full((300, 8), 2, np.int32), np.arange(8) < 3
    completed = np.asarray(draw(method.params, {}, jax.random.key(0), given=given))
    after = np.logical_or.accumulate(completed == 4, axis=1)
    assert np.all(completed[:, :3] == 2) and after.any() and np.all(completed[after] == 4)


def test_a_recurrent_network_cannot_separate_documents():
    with pytest.raises(InputError, match=r'method\.separate_documents: .* set it to False'):
        model_of(DOCUMENTS, functools.partial(LSTM, width=8), separate_documents=True)


def test_what_is_given_stays_and_the_rest_follows_it():
    model = model_of(IMAGES._replace(num_classes=None))
    x = np.array([[-1, 1], [-1, 1]], np.float32).reshape(1, 2, 2, 1).repeat(5, 0)
    known = np.array([True, True, False, False]).reshape(1, 2, 2, 1)
    draw = jax.jit(functools.partial(model.method.sample, num=5))
    drawn = np.asarray(draw(model.params, {}, jax.random.key(2), given=(x, known)))
    np.testing.assert_array_equal(drawn[:, 0], x[:, 0])
    assert len(np.unique(drawn[:, 1], axis=0)) > 1
    everything = draw(model.params, {}, jax.random.key(2), given=(x, np.ones_like(known)))
    np.testing.assert_allclose(everything, x, atol=1e-6)


def test_greedy_and_beams_draw_the_likely():
    model = model_of(SEQUENCES)
    nats = 6 * evaluate(model, {'x': all_sequences()})['loss']
    best = all_sequences()[int(nats.argmin())]

    def draw(**options):
        sample = jax.jit(functools.partial(model.method.sample, num=1, **options))
        return np.asarray(sample(model.params, {}, jax.random.key(0)))

    np.testing.assert_array_equal(draw(num_beams=3**6)[0], best)
    np.testing.assert_array_equal(draw(temperature=0.0), draw(num_beams=1))


@pytest.mark.parametrize(
    ('spec', 'options', 'words'),
    [
        (DataSpec((2,)), {}, 'continuous'),
        (IMAGES._replace(dequantized=True), {}, 'dequantize'),
        (IMAGES._replace(num_classes=None), {'class_conditional': True}, 'class_conditional'),
        (DOCUMENTS, {'class_conditional': True}, 'class_conditional'),
        (IMAGES, {'separate_documents': True}, 'separate_documents'),
    ],
)
def test_data_and_options_that_do_not_go_together_are_refused(spec, options, words):
    with pytest.raises(InputError, match=words):
        autoregressive({'model': NETWORK}, spec, **options)


def test_options_of_sampling_that_make_no_sense_are_refused():
    model = model_of(SEQUENCES)
    for options, words in (
        ({'cond': jnp.zeros(2)}, 'labels'),
        ({'top_k': 0}, 'top_k'),
        ({'num_beams': 0}, 'num_beams'),
        ({'num_beams': 2, 'repetition_penalty': 2.0}, 'repetition_penalty: 2.0; a search'),
        ({'length_penalty': 0.5}, 'length_penalty: it compares beams'),
    ):
        with pytest.raises(InputError, match=words):
            model.method.sample(model.params, {}, jax.random.key(0), 2, **options)
    told = model_of(IMAGES, class_conditional=True)
    with pytest.raises(InputError, match='needs labels of its 3 classes'):
        told.method.sample(told.params, {}, jax.random.key(0), 2)
