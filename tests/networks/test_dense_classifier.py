"""The classifier of plain layers: by hand, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gen_jax.errors import InputError
from gen_jax.networks.dense_classifier import DenseClassifier

X = jax.random.normal(jax.random.key(7), (4, 3, 3, 2))


def test_features_and_logits_are_those_by_hand():
    network = DenseClassifier(num_classes=3, widths=(8, 5))
    params = network.init(jax.random.key(0), X, train=False)['params']
    features, logits = network.apply({'params': params}, X, train=False)
    h = np.asarray(X, np.float64).reshape(4, 18)
    for i in range(2):
        h = h @ np.asarray(params[f'dense_{i}']['kernel'], np.float64)
        h = h / (1 + np.exp(-h))
    np.testing.assert_allclose(features, h, rtol=1e-4, atol=1e-5)
    expected = h @ np.asarray(params['out']['kernel'], np.float64)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
    half = DenseClassifier(num_classes=3, widths=(8, 5), dtype='bfloat16')
    assert [a.dtype for a in half.apply({'params': params}, X, train=False)] == [jnp.float32] * 2


def test_numbers_are_dropped_in_training_alone():
    network = DenseClassifier(num_classes=3, widths=(64,), dropout=0.5)
    params = network.init(jax.random.key(0), X, train=False)['params']

    def logits(train, seed):
        rngs = {'dropout': jax.random.key(seed)}
        return network.apply({'params': params}, X, train=train, rngs=rngs)[1]

    np.testing.assert_array_equal(logits(False, 0), logits(False, 1))
    assert np.abs(logits(True, 0) - logits(True, 1)).max() > 0.01


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        ({'widths': ()}, 'widths'),
        ({'widths': (8, 0)}, 'widths'),
        ({'dropout': 1.0}, 'dropout'),
    ],
)
def test_what_makes_no_network_is_refused(fields, message):
    with pytest.raises(InputError, match=message):
        DenseClassifier(num_classes=3, **fields)
