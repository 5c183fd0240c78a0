"""The classifier: its loss by hand, its shifts, and what it refuses."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gen_jax.errors import InputError
from gen_jax.methods.classifier import classifier, shifted
from gen_jax.types import DataSpec

SPEC = DataSpec((2, 2, 1), levels=17, num_classes=3)


class Fixed(nn.Module):
    """Logits that are three of the pixels."""

    num_classes: int

    @nn.compact
    def __call__(self, x, *, train):
        scale = self.param('scale', nn.initializers.ones_init(), ())
        flat = scale * x.reshape(len(x), -1)
        return flat, flat[:, :3]


def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)


@pytest.mark.parametrize('smoothing', [0.0, 0.3])
def test_the_loss_is_the_cross_entropy_by_hand(smoothing):
    method = classifier({'model': Fixed}, SPEC, label_smoothing=smoothing)
    x = np.random.default_rng(0).normal(size=(5, 2, 2, 1)).astype(np.float32)
    label = np.array([0, 1, 2, 0, 1], np.int32)
    batch = {'x': jnp.asarray(x), 'label': jnp.asarray(label)}
    params, model_state = method.init(jax.random.key(0), batch)
    state = type('State', (), {'model_state': model_state})
    loss, (_, metrics) = method.phases[0].loss(params, state, batch, jax.random.key(0))
    p = softmax(x.reshape(5, -1)[:, :3])
    target = (1 - smoothing) * np.eye(3)[label] + smoothing / 3
    np.testing.assert_allclose(loss, -(target * np.log(p)).sum(1).mean(), rtol=1e-5)
    values = method.evaluate(params, model_state, batch, jax.random.key(0))
    np.testing.assert_allclose(values['loss'], -np.log(p[np.arange(5), label]), rtol=1e-5)
    np.testing.assert_array_equal(values['accuracy'], p.argmax(1) == label)
    np.testing.assert_allclose(metrics['accuracy'], np.mean(p.argmax(1) == label), rtol=1e-6)


def test_shifts_move_images_and_repeat_their_border():
    x = np.arange(2 * 4 * 5, dtype=np.float32).reshape(2, 4, 5, 1)
    np.testing.assert_array_equal(shifted(x, jax.random.key(0), 0), x)
    wide = np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)), mode='edge')
    seen = set()
    for seed in range(40):
        for wide_image, moved in zip(wide, shifted(x, jax.random.key(seed), 2), strict=True):
            found = [
                (i, j)
                for i in range(5)
                for j in range(5)
                if np.array_equal(wide_image[i : i + 4, j : j + 5], moved)
            ]
            assert found
            seen.add(found[0])
    assert len(seen) > 15  # of 25 ways to move


@pytest.mark.parametrize(
    ('spec', 'options', 'message'),
    [
        (SPEC._replace(num_classes=None), {}, 'needs labels'),
        (SPEC, {'label_smoothing': 1.0}, 'label_smoothing'),
        (SPEC, {'max_shift': 2}, 'max_shift'),
    ],
)
def test_what_makes_no_classifier_is_refused(spec, options, message):
    with pytest.raises(InputError, match=message):
        classifier({'model': Fixed}, spec, **options)
