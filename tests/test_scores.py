"""Scores: every metric on the sets it should see, and on the samples that were asked for."""

import numpy as np
import pytest

from gen_jax.features.extractor import Embedded, Extractor
from gen_jax.metrics import frechet, mmd, modes
from gen_jax.metrics.memorization import digests
from gen_jax.scores import METRICS, Sets, measure, names_of, splits_for

LOOK = Extractor('FD-x', '-x', 'x', 'none', {}, None)


def embedded(rng, num: int, shift: float = 0.0, with_classes: bool = True) -> Embedded:
    features = rng.normal(size=(num, 4)).astype(np.float32) + shift
    probabilities = np.abs(features) / np.abs(features).sum(1, keepdims=True)
    return Embedded(features, features, probabilities if with_classes else None)


@pytest.fixture(scope='module')
def sets():
    rng = np.random.default_rng(0)
    train, held_out = embedded(rng, 300), embedded(rng, 200)
    known = digests(train.examples)
    return Sets(embedded(rng, 250, shift=1.0), held_out, train, held_out, known)


def test_every_metric_gives_the_records_that_it_is_known_for(sets):
    metrics = tuple(METRICS)
    records = measure(sets, metrics, LOOK, 'evaluation', {'nfe': 3})
    assert {record['metric'] for record in records.values()} == {*names_of(metrics)}
    moments = (frechet.moments(s.features) for s in (sets.samples, sets.held_out))
    assert records['FD-x']['value'] == pytest.approx(frechet.frechet_distance(*moments))
    assert records['KID-x']['value'] == mmd.kid(sets.samples.features, sets.held_out.features)[0]
    assert records['FD-x']['reference'] == {'evaluation': 200} and records['FD-x']['n'] == 250
    assert records['nearer-x']['reference'] == {'train': 300, 'evaluation': 200}
    assert records['nearer-x']['n'] == records['C2ST-x']['n'] == 200
    assert records['C2ST-x']['value'] > 0.6 and records['exact_copies']['value'] == 0
    assert not records['nearer-x']['flagged']
    divergence = modes.class_kl(sets.samples.probabilities, sets.held_out.probabilities)
    assert records['class_kl-x']['value'] == divergence[0]
    assert records['class_kl-x']['reference'] == {'evaluation': 200}
    assert records['modes-x']['reference'] == {} and records['modes-x']['settings'] == {
        'threshold': 0.9
    }
    assert records['exact_copies'].pop('extractor') is None
    for record in records.values():
        assert record['nfe'] == 3 and record.get('extractor', {'hash': 'x'})['hash'] == 'x'
        assert np.isfinite(record['value']) and record['estimator'] and record['interval']


def test_copies_are_flagged(sets):
    copies = Embedded(
        *(np.concatenate([a[:30], b[30:]]) for a, b in zip(sets.train, sets.samples, strict=True))
    )
    records = measure(sets._replace(samples=copies), ('memorization',), LOOK, 'train', {})
    assert records['copied-x']['flagged'] and records['exact_copies']['value'] == 30 / 250


def test_what_cannot_be_measured_is_left_out_and_named(sets, capsys):
    rng = np.random.default_rng(1)
    few = sets._replace(samples=embedded(rng, 15, with_classes=False))
    records = measure(few, ('IS', 'modes', 'memorization', 'KID'), LOOK, 'train', {})
    assert records.keys() == {'IS-x', 'modes-x', 'exact_copies', 'memorization-x', 'KID-x'}
    assert records['modes-x']['value'] is None
    assert records['IS-x']['value'] is None and 'left out' in records['IS-x']['estimator']
    assert records['exact_copies']['value'] == 0
    said = capsys.readouterr().err
    assert 'IS left out: these features come without' in said
    assert 'memorization left out: 15 samples' in said
    broken = sets._replace(samples=few.samples._replace(features=np.full((15, 4), np.nan)))
    assert measure(broken, ('C2ST',), LOOK, 'train', {})['C2ST-x']['value'] is None


def test_held_out_examples_are_the_yardstick(sets):
    record = measure(sets._replace(reference=sets.train), ('KID',), LOOK, 'train', {})['KID-x']
    value, error = mmd.kid(sets.held_out.features, sets.train.features)
    assert record['held_out'] == {'value': value, 'stderr': error, 'n': 200}
    records = measure(sets._replace(reference=sets.train), ('modes',), LOOK, 'train', {})
    assert {record['held_out']['n'] for record in records.values()} == {200}
    found = modes.mode_coverage(sets.held_out.probabilities)['smallest_class'][0]
    assert records['smallest_class-x']['held_out']['value'] == found
    assert 'held_out' not in measure(sets, ('KID',), LOOK, 'evaluation', {})['KID-x']


def test_a_distance_of_too_few_says_so(sets):
    rng = np.random.default_rng(0)
    few = sets._replace(samples=embedded(rng, 4))
    assert 'mostly bias' in measure(few, ('FD',), LOOK, 'train', {})['FD-x']['estimator']
    assert 'mostly bias' not in measure(sets, ('FD',), LOOK, 'train', {})['FD-x']['estimator']


def test_each_metric_says_which_splits_it_looks_at():
    assert splits_for(('FD', 'KID'), 'train') == {'train'}
    assert splits_for(('C2ST',), 'train') == {'evaluation'}
    assert splits_for(('memorization', 'SW'), 'evaluation') == {'train', 'evaluation'}
    assert splits_for(('IS',), 'train') == set()
    assert splits_for(('modes',), 'evaluation') == {'evaluation'}
