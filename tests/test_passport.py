"""Records, and which of them compare."""

import pytest

from gen_jax.passport import differences, record


def fd(**changes) -> dict:
    passport = {
        'extractor': {'hash': 'aa', 'preprocessing': 'p'},
        'reference': {'train': 1500},
        'data_fingerprint': 'f',
        'sampler': {'num_steps': 10},
        'seconds': 1.0,
    }
    return record(
        **(
            {'value': 1.0, 'stderr': 0.1, 'n': 5, 'estimator': 'estimate', 'metric': 'FD'}
            | passport
            | changes
        )
    )


def test_a_record_has_the_interval_of_its_error():
    interval = fd()['interval']
    assert interval == pytest.approx([1 - 0.1959964, 1 + 0.1959964])
    assert fd(stderr=None)['interval'] is None
    assert fd(value=0.01)['interval'] == pytest.approx([0, 0.01 + 0.1959964])  # no distance below 0


def test_a_share_has_the_interval_of_wilson():
    """By the textbook: 8 of 10 is 0.49 to 0.94, and 0 of 10 is 0 to 0.278."""
    error = (0.8 * 0.2 / 10) ** 0.5
    assert fd(metric='recall', value=0.8, stderr=error, n=99)['interval'] == pytest.approx(
        [0.4902, 0.9433], abs=1e-4
    )
    assert fd(metric='recall', value=0.0, stderr=0.0, n=10)['interval'] == pytest.approx(
        [0, 0.2775], abs=1e-4
    )


def test_what_cannot_be_negative_has_no_interval_below():
    assert fd(metric='class_kl', value=0.01)['interval'] == pytest.approx([0, 0.01 + 0.1959964])
    assert fd(metric='KID', value=0.01)['interval'][0] == pytest.approx(0.01 - 0.1959964)


def test_records_know_where_better_lies():
    assert fd()['better'] == 'lower' and fd(metric='recall')['better'] == 'higher'
    assert fd(metric='modes')['better'] == fd(metric='smallest_class')['better'] == 'higher'
    assert fd(metric='class_kl')['better'] == fd(metric='largest_class')['better'] == 'lower'


def test_models_may_differ():
    assert differences(fd(), fd(value=2.0, seconds=9.0, sampler={'num_steps': 50})) == []


@pytest.mark.parametrize(
    ('changes', 'reason'),
    [
        ({'n': 10}, 'n is 5 and 10'),
        ({'extractor': {'hash': 'bb', 'preprocessing': 'p'}}, 'extractor.hash is aa and bb'),
        ({'reference': {'train': 9}}, 'reference.train is 1500 and 9'),
        ({'reference': {'evaluation': 1500}}, 'reference.train is 1500 and absent'),
        ({'data_fingerprint': 'g'}, 'data_fingerprint is f and g'),
        ({'estimator': 'exact'}, 'estimator is estimate and exact'),
        ({'settings': {'k': 3}}, 'settings.k is absent and 3'),
    ],
)
def test_measures_may_not(changes, reason):
    assert reason in differences(fd(), fd(**changes))
