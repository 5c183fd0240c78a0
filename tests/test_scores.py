"""Scores: every metric on the sets it should see, and on the samples that were asked for."""

import importlib

import jax
import numpy as np
import pytest

from gen_jax.errors import InputError
from gen_jax.features.extractor import Embedded, Extractor
from gen_jax.metrics import frechet, mmd
from gen_jax.run import assemble, initialize, load_data
from gen_jax.scores import METRICS, Sets, make_scores, measure, names_of

LOOK = Extractor('FD-x', '-x', 'x', 'none', {}, None)


def embedded(rng, num: int, shift: float = 0.0, with_classes: bool = True) -> Embedded:
    features = rng.normal(size=(num, 4)).astype(np.float32) + shift
    probabilities = np.abs(features) / np.abs(features).sum(1, keepdims=True)
    return Embedded(features, features, probabilities if with_classes else None)


@pytest.fixture(scope='module')
def sets():
    rng = np.random.default_rng(0)
    train, held_out = embedded(rng, 300), embedded(rng, 200)
    return Sets(embedded(rng, 250, shift=1.0), held_out, train, held_out)


def test_every_metric_gives_the_records_that_it_is_known_for(sets):
    metrics = tuple(METRICS)
    records = measure(sets, metrics, LOOK, 'evaluation', {'nfe': 3})
    assert {record['metric'] for record in records.values()} == {*names_of(metrics)} - {'FID'}
    moments = (frechet.moments(s.features) for s in (sets.samples, sets.held_out))
    assert records['FD-x']['value'] == pytest.approx(frechet.frechet_distance(*moments))
    assert records['KID-x']['value'] == mmd.kid(sets.samples.features, sets.held_out.features)[0]
    assert records['FD-x']['reference'] == {'evaluation': 200} and records['FD-x']['n'] == 250
    assert records['nearer-x']['reference'] == {'train': 300, 'evaluation': 200}
    assert records['nearer-x']['n'] == records['C2ST-x']['n'] == 200
    assert records['C2ST-x']['value'] > 0.6 and records['exact_copies-x']['value'] == 0
    assert not records['nearer-x']['flagged']
    for record in records.values():
        assert record['nfe'] == 3 and record['extractor']['hash'] == 'x'
        assert np.isfinite(record['value']) and record['estimator'] and record['interval']


def test_copies_are_flagged(sets):
    copies = Embedded(
        *(np.concatenate([a[:30], b[30:]]) for a, b in zip(sets.train, sets.samples, strict=True))
    )
    records = measure(sets._replace(samples=copies), ('memorization',), LOOK, 'train', {})
    assert records['copied-x']['flagged'] and records['exact_copies-x']['value'] == 30 / 250


def test_what_cannot_be_measured_is_left_out_and_named(sets, capsys):
    rng = np.random.default_rng(0)
    few = sets._replace(samples=embedded(rng, 15, with_classes=False))
    records = measure(few, ('IS', 'memorization', 'KID'), LOOK, 'train', {})
    assert list(records) == ['KID-x']
    said = capsys.readouterr().err
    assert 'IS left out: these features come without' in said
    assert 'memorization left out: 15 samples' in said
    broken = sets._replace(samples=few.samples._replace(features=np.full((15, 4), np.nan)))
    assert measure(broken, ('C2ST', 'FD'), LOOK, 'train', {}).keys() <= {'FD-x'}


@pytest.fixture(scope='module')
def config():
    return importlib.import_module('configs.ddpm_8gaussians').get_config('smoke')


def test_samples_are_drawn_as_asked_and_the_same_each_time(config):
    run = assemble(config)
    state, dataset = initialize(run, 0), load_data(config)
    score = make_scores(run, config, metrics=('SW',), num=30)
    first, again = (score(state, dataset) for _ in range(2))
    assert first.sets.samples.examples.shape == (30, 2)
    np.testing.assert_array_equal(first.sets.samples.examples, again.sets.samples.examples)
    record = first.records['SW-raw']
    assert record['nfe'] == config.sample.options.num_steps
    assert record['sampler'] == config.sample.options.to_dict()
    assert record['reference'] == {'train': 60}
    moved = state.replace(ema_params=jax.tree.map(lambda leaf: leaf + 0.1, state.ema_params))
    assert score(moved, dataset).records['SW-raw']['value'] != record['value']


def test_drawing_that_would_take_too_long_is_given_up(config):
    run = assemble(config)
    config = config.copy_and_resolve_references()
    config.sample.batch_size = 8
    score = make_scores(run, config, metrics=('SW',), num=40, limit=1e-6)
    assert score(initialize(run, 0), load_data(config)) is None


@pytest.mark.parametrize(
    ('field', 'value', 'message'),
    [
        ('metrics', ('FD', 'LPIPS'), r"evaluate\.scores\.metrics: no 'LPIPS'; choose from FD, KID"),
        ('reference', 'test', r'evaluate\.scores\.reference'),
        ('features.name', 'identity.none', r'evaluate\.scores\.features\.name'),
        ('features.name', 'feature_net.feature_net', r'evaluate\.scores\.features\.weights'),
    ],
)
def test_what_cannot_be_scored_is_refused_before_anything_is_drawn(config, field, value, message):
    config = config.copy_and_resolve_references()
    config.evaluate.scores.update_from_flattened_dict({field: value})
    with pytest.raises(InputError, match=message):
        make_scores(assemble(config), config, metrics=config.evaluate.scores.metrics, num=30)


def test_a_method_that_draws_nothing_has_no_scores():
    config = importlib.import_module('configs.feature_net_digits').get_config('smoke')
    with pytest.raises(InputError, match='draws no samples'):
        make_scores(assemble(config), config, metrics=('SW',), num=30)


def test_labels_are_those_of_training_examples():
    config = importlib.import_module('configs.ddpm_digits').get_config('smoke')
    run, dataset = assemble(config), load_data(config)
    from gen_jax.scores import _labels

    labels = _labels(run, dataset, 2500, 0)
    numbers = np.random.default_rng((0, 2)).integers(dataset.train.num_examples, size=2500)
    np.testing.assert_array_equal(labels, dataset.train.fetch(numbers)['label'])
