"""Diffusion: a network that knows the answer, the labels, and what evaluation reports."""

import functools
import math
from collections.abc import Callable
from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gen_jax.errors import InputError
from gen_jax.methods import diffusion as methods
from gen_jax.processes import gaussian
from gen_jax.samplers import diffusion as samplers
from gen_jax.types import DataSpec

LINEAR = gaussian.linear()
CHAIN = gaussian.linear(num_steps=1000)
STATE = SimpleNamespace(model_state={})  # all that the loss reads of a state
SPEC = DataSpec((2,), levels=4, num_classes=3)


class Tiny(nn.Module):
    """A network of a few weights; `note` is told what it is called with."""

    out_channels: int
    num_classes: int | None = None
    note: Callable | None = None

    @nn.compact
    def __call__(self, x, t, label=None, *, train):
        if self.note is not None:
            self.note({'label': label, 'train': train})
        h = nn.Dense(8)(x) + nn.Dense(8)(t[:, None])
        if self.num_classes is not None:
            h = h + nn.Embed(self.num_classes + 1, 8, embedding_init=nn.initializers.normal(1.0))(
                label
            )
        return nn.Dense(self.out_channels)(jnp.tanh(h))


class Knowing(nn.Module):
    """Answers what its prediction should for data that is `value` everywhere, by equation (4)."""

    out_channels: int
    value: float
    process: gaussian.GaussianProcess
    prediction: str
    num_classes: int | None = None

    @nn.compact
    def __call__(self, x, t, label=None, *, train):
        alpha, sigma = self.process.alpha(t)[:, None], self.process.sigma(t)[:, None]
        eps = (x - alpha * self.value) / sigma
        rates = [
            jax.vmap(jax.grad(c))(t)[:, None] for c in (self.process.alpha, self.process.sigma)
        ]
        answer = {
            'epsilon': eps,
            'x0': self.value * jnp.ones_like(x),
            'v': alpha * eps - sigma * self.value,
            'velocity': rates[0] * self.value + rates[1] * eps,
            'score': -eps / sigma,
        }[self.prediction]
        return self.param('scale', nn.initializers.ones, ()) * answer


def method_and_params(network=Tiny, spec=SPEC, process=LINEAR, **options):
    method = methods.diffusion({'model': network}, spec, process, **options)
    batch = {'x': jnp.zeros((2, *spec.shape))}
    params, model_state = jax.jit(method.init)(jax.random.key(0), batch)
    assert set(params) == {'model'} and model_state == {}
    return method, params


def evaluate(method, params, batch):
    return method.evaluate(params, {}, batch, jax.random.key(0), bound_terms=3)


def conditional(network=Tiny, **options):
    return method_and_params(network, class_conditional=True, **options)


# Training and sampling


@pytest.mark.parametrize(
    'prediction, process',
    [
        ('epsilon', LINEAR),
        ('x0', LINEAR),
        ('v', gaussian.cosine(num_steps=20)),
        ('velocity', CHAIN),
        ('velocity', gaussian.cosine()),
        ('score', LINEAR),
    ],
)
def test_network_that_knows_the_data_has_no_loss_and_samples_it(prediction, process):
    network = functools.partial(Knowing, value=0.3, process=process, prediction=prediction)
    method, params = method_and_params(network, process=process, prediction=prediction)

    @jax.jit
    def run(params, key):
        loss, _ = method.phases[0].loss(params, STATE, {'x': jnp.full((64, 2), 0.3)}, key)
        return loss, method.sample(params, {}, key, 5, sampler='ddim', num_steps=3)

    loss, x = run(params, jax.random.key(1))
    assert loss < 1e-4
    np.testing.assert_allclose(x, 0.3, atol=1e-4)
    loss, _ = run(jax.tree.map(jnp.zeros_like, params), jax.random.key(1))
    assert loss > 0.05


@pytest.mark.parametrize('sampler', ['ancestral', 'ddim'])
def test_samples_are_held_to_the_range_of_the_data(sampler):
    network = functools.partial(Knowing, value=7.0, process=LINEAR, prediction='x0')
    method, params = method_and_params(network, prediction='x0')
    x = method.sample(params, {}, jax.random.key(0), 4, sampler=sampler, num_steps=5)
    np.testing.assert_array_equal(x, 1)


def test_sample_takes_as_many_steps_as_asked_and_the_whole_chain_by_default():
    method, params = method_and_params(process=gaussian.cosine(num_steps=20))

    def lengths(**options):
        jaxpr = jax.make_jaxpr(lambda key: method.sample(params, {}, key, 2, **options))
        loops = [e for e in jaxpr(jax.random.key(0)).eqns if e.primitive.name == 'scan']
        return [loop.params['length'] for loop in loops]

    assert lengths() == [20]
    assert lengths(num_steps=5) == [5]
    assert lengths(num_steps=5, sampler='ddim', eta=0.5) == [5]
    with pytest.raises(InputError, match='num_steps: 21 is out of range'):
        lengths(num_steps=21)


def test_options_of_sample_reach_the_sampler():
    method, params = method_and_params()

    def draw(**options):
        sample = functools.partial(method.sample, params, {}, num=4, num_steps=3, **options)
        return np.asarray(jax.jit(sample)(jax.random.key(0)))

    large, small = draw(), draw(variance='small')
    flow, half, full = (draw(sampler='ddim', eta=eta) for eta in (None, 0.5, 1.0))
    # Ancestral with the posterior variance and DDIM with eta 1 are one sampler.
    np.testing.assert_allclose(full, small, atol=1e-4)
    different = [large, small, flow, half]
    for i, one in enumerate(different):
        assert all(np.abs(one - other).max() > 1e-3 for other in different[:i])


@pytest.mark.parametrize(
    'options, field',
    [
        ({'sampler': 'euler'}, r"^sampler: no 'euler'; .* ancestral, ddim"),
        ({'eta': 0.5}, '^eta: '),
        ({'sampler': 'ancestral', 'eta': 0.0}, '^eta: '),
        ({'sampler': 'ddim', 'variance': 'small'}, '^variance: '),
        ({'variance': 'huge'}, "'huge'"),
        ({'guidance': 2.0}, r'^guidance: it needs class_conditional'),
        ({'cond': jnp.zeros(2, jnp.int32)}, 'label: this model was trained without labels'),
    ],
)
def test_options_that_cannot_be_are_refused(options, field):
    method, params = method_and_params()
    with pytest.raises(InputError, match=field):
        method.sample(params, {}, jax.random.key(0), 2, **{'num_steps': 2, **options})


def test_what_cannot_be_built_is_refused():
    with pytest.raises(InputError, match=r"no prediction 'nonsense'; choose from epsilon"):
        method_and_params(prediction='nonsense')
    with pytest.raises(InputError, match=r'method\.class_conditional: .* no labels'):
        method_and_params(spec=SPEC._replace(num_classes=None), class_conditional=True)
    with pytest.raises(InputError, match=r"networks: has .*'critic', 'model'.* plays with"):
        methods.diffusion({'model': Tiny, 'critic': Tiny}, SPEC, LINEAR)


# Labels


def test_labels_are_dropped_at_the_asked_rate_and_replaced_by_the_index_after_the_last():
    label = jnp.arange(3000) % 3
    batch = {'x': jnp.zeros((3000, 2)), 'label': label}
    for dropout in (0.0, 0.3, 1.0):
        seen = []
        method, params = conditional(
            functools.partial(Tiny, note=seen.append), label_dropout=dropout
        )
        method.phases[0].loss(params, STATE, batch, jax.random.key(0))
        given = np.asarray(seen[-1]['label'])
        dropped = given == 3
        assert abs(dropped.mean() - dropout) < 0.03 * (0 < dropout < 1) + 1e-9
        np.testing.assert_array_equal(given[~dropped], np.asarray(label)[~dropped])


def test_network_trains_in_training_and_is_evaluated_with_its_labels():
    seen = []
    method, params = conditional(functools.partial(Tiny, note=seen.append), label_dropout=1.0)
    batch = {'x': jnp.zeros((6, 2)), 'label': jnp.arange(6) % 3}
    method.phases[0].loss(params, STATE, batch, jax.random.key(0))
    assert seen[-1]['train'] is True
    seen.clear()
    jax.eval_shape(lambda: evaluate(method, params, batch))  # labels that are not traced are seen
    assert all(call['train'] is False for call in seen)
    np.testing.assert_array_equal(seen[0]['label'], batch['label'])


def test_unconditional_model_gets_no_label_even_where_the_data_has_them():
    seen = []
    method, params = method_and_params(functools.partial(Tiny, note=seen.append))
    assert method.num_classes is None
    method.phases[0].loss(
        params, STATE, {'x': jnp.zeros((3, 2)), 'label': jnp.arange(3)}, jax.random.key(0)
    )
    assert all(call['label'] is None for call in seen)


def test_guidance_goes_from_the_unconditional_sample_through_the_conditional_one():
    method, params = conditional()
    assert method.num_classes == 3

    @functools.partial(jax.jit, static_argnames='guidance')
    def draw(label, guidance):
        return method.sample(
            params,
            {},
            jax.random.key(0),
            6,
            cond=None if label is None else jnp.full(6, label),
            sampler='ddim',
            num_steps=4,
            guidance=guidance,
        )

    def by_hand(label):
        def predict(x_t, t):
            t = jnp.broadcast_to(t, (6,))
            output = Tiny(2, 3).apply(
                {'params': params['model']}, x_t, t, jnp.full(6, label), train=False
            )
            return gaussian.to_x0(LINEAR, 'epsilon', output, x_t, t).clip(-1, 1)

        start_key, key = jax.random.split(jax.random.key(0))
        x = jax.random.normal(start_key, (6, 2))
        return samplers.ddim(predict, LINEAR, x, key, samplers.time_grid(4))

    assert np.abs(np.asarray(draw(0, 1.0) - draw(1, 1.0))).max() > 1e-2
    np.testing.assert_allclose(draw(1, 1.0), by_hand(1), atol=1e-5)
    np.testing.assert_allclose(draw(1, 0.0), by_hand(3), atol=1e-4)
    assert np.abs(np.asarray(draw(1, 3.0) - draw(1, 1.0))).max() > 1e-2


def test_a_model_with_labels_needs_them():
    method, params = conditional()
    with pytest.raises(InputError, match='label: this model needs labels of its 3 classes'):
        method.sample(params, {}, jax.random.key(0), 7, num_steps=2)


# What evaluation reports

LEVELS = np.linspace(-1, 1, 4).astype(np.float32)
SPECS = {
    'levels': SPEC,
    'dequantized': SPEC._replace(dequantized=True),
    'continuous': SPEC._replace(levels=None),
}


@pytest.mark.parametrize('kind', SPECS)
def test_evaluation_is_per_example_and_every_number_names_its_estimator(kind):
    method, params = method_and_params(spec=SPECS[kind])
    x = jax.random.choice(jax.random.key(1), jnp.asarray(LEVELS), (5, 2))
    values = jax.jit(functools.partial(evaluate, method))(params, {'x': x})
    measure = 'nats_per_dim' if kind == 'continuous' else 'bits_per_dim'
    assert {'loss', measure} <= set(values)
    for name, column in values.items():
        assert column.shape == (5,) and np.all(np.isfinite(np.asarray(column))), name
        assert method.estimators[name].split()[0] in ('exact', 'upper', 'estimate', 'part'), name
    assert method.estimators[measure].startswith('upper bound')
    assert ('dequantized' in method.estimators[measure]) == (kind == 'dequantized')


def test_evaluation_of_one_example_does_not_depend_on_the_others():
    method, params = method_and_params()
    x = jax.random.choice(jax.random.key(1), jnp.asarray(LEVELS), (5, 2))
    run = jax.jit(functools.partial(evaluate, method))
    first, other = run(params, {'x': x}), run(params, {'x': x.at[1:].multiply(-1)})
    for name in first:
        np.testing.assert_allclose(first[name][0], other[name][0], rtol=1e-5, err_msg=name)
    assert np.all(first['loss'][1:] != other['loss'][1:])


def test_bound_is_reported_in_the_units_of_the_data():
    dims, levels = 2, 4
    rate, distortion = jnp.array([1.0, 2.0]), jnp.array([3.0, 0.0])
    report = methods.report_bound(rate, distortion, SPECS['levels'])
    np.testing.assert_allclose(report['rate_bits_per_dim'], np.array([1, 2]) / dims / np.log(2))
    np.testing.assert_allclose(report['distortion_bits_per_dim'], np.array([3, 0]) / 2 / np.log(2))
    np.testing.assert_allclose(report['bits_per_dim'], np.array([4, 2]) / dims / np.log(2))
    report = methods.report_bound(rate, distortion, SPECS['continuous'])
    assert {k: v.tolist() for k, v in report.items()} == {'nats_per_dim': [2, 1]}
    # A uniform density on [-1, 1)^2 knows nothing of the levels: log2(levels) bits each.
    uniform = jnp.full(2, dims * math.log(2))
    report = methods.report_bound(uniform, 0 * uniform, SPECS['dequantized'])
    assert set(report) == {'bits_per_dim'}
    np.testing.assert_allclose(report['bits_per_dim'], math.log2(levels), rtol=1e-6)
