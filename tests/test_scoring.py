"""From a state to scores: samples drawn as asked, the same each time, beside the right examples."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import common
from gen_jax.errors import InputError
from gen_jax.features.stacked import stacked
from gen_jax.run import assemble, initialize, load_data
from gen_jax.scoring import _labels, extractor_of, make_scores


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


def test_training_looks_at_other_samples_than_evaluation(config):
    run = assemble(config)
    state, dataset = initialize(run, 0), load_data(config)
    drawn = [
        make_scores(run, config, metrics=('SW',), num=30, in_training=training)(state, dataset)
        for training in (False, True)
    ]
    first, second = (scored.sets.samples.examples for scored in drawn)
    assert np.abs(first - second).max() > 0.1


def test_copies_are_counted_in_all_of_the_training_split(config):
    """Though only 60 of it are references."""
    run, dataset = assemble(config), load_data(config)
    copies = dataset.train.fetch(np.arange(900, 940))['x']
    method = run.method._replace(
        sample=lambda params, model_state, key, num, cond=None, **options: jnp.asarray(copies[:num])
    )
    score = make_scores(run._replace(method=method), config, metrics=('memorization',), num=40)
    assert score(initialize(run, 0), dataset).records['exact_copies']['value'] == 1.0


def test_points_of_a_mixture_are_counted_by_the_centers_of_the_data(config):
    """The law is that of the data, which a flag may set to another."""
    config = config.copy_and_resolve_references()
    with config.unlocked():
        common.score_mixture(config)
    config.data.name = '25gaussians'
    config.evaluate.scores.num_references, config.sample.batch_size = None, 1000
    run, dataset = assemble(config), load_data(config)
    real = dataset.train.fetch(np.arange(1000))['x']
    method = run.method._replace(
        sample=lambda params, model_state, key, num, cond=None, **options: jnp.asarray(real[:num])
    )
    run = run._replace(method=method)
    score = make_scores(run, config, metrics=('modes',), num=1000)
    records = score(initialize(run, 0), dataset).records
    assert records['modes-25gaussians']['value'] == 25
    assert records['confident-25gaussians']['value'] == pytest.approx(0.98889, abs=0.012)
    assert records['class_kl-25gaussians']['value'] < 1e-3  # these are the references
    config.evaluate.scores.features.law = None
    assert config.data.name == '25gaussians'


def test_stacked_images_are_looked_at_by_a_net_of_single_ones():
    config = importlib.import_module('configs.ddpm_digits').get_config('smoke')
    with config.unlocked():
        common.score_stacked(config, weights='digits')
    config.data.stacked = True
    spec = assemble(config).spec
    assert spec.shape == (8, 8, 3) and 'modes' in config.evaluate.scores.metrics
    look = extractor_of(config.evaluate.scores.features, spec)
    assert look.hash == stacked(spec, weights='digits').hash


def test_samples_that_are_not_finite_have_no_scores(config, capsys):
    run = assemble(config)
    method = run.method._replace(
        sample=lambda params, model_state, key, num, cond=None, **options: (
            jnp.full((num, 2), jnp.nan).at[0].set(0.0)
        )
    )
    score = make_scores(run._replace(method=method), config, metrics=('SW', 'PRDC'), num=40)
    assert score(initialize(run, 0), load_data(config)) is None
    assert 'scores left out: samples are not finite' in capsys.readouterr().err


def test_drawing_that_would_take_too_long_is_given_up(config):
    run = assemble(config)
    config = config.copy_and_resolve_references()
    config.sample.batch_size = 8
    state, dataset = initialize(run, 0), load_data(config)
    assert make_scores(run, config, metrics=('SW',), num=40, limit=1e-6)(state, dataset) is None
    # What has been drawn whole is not thrown away.
    assert make_scores(run, config, metrics=('SW',), num=16, limit=1e-6)(state, dataset)


@pytest.mark.parametrize(
    ('field', 'value', 'message'),
    [
        ('metrics', ('FD', 'LPIPS'), r"evaluate\.scores\.metrics: no 'LPIPS'; choose from FD, KID"),
        ('metrics', (), r"evaluate\.scores\.metrics: no ''"),
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


def test_tokens_have_no_features():
    config = importlib.import_module('configs.gpt_shakespeare_char_cpu').get_config('smoke')
    with pytest.raises(
        InputError, match=r'evaluate\.scores\.num: samples of tokens have no features'
    ):
        make_scores(assemble(config), config, metrics=('SW',), num=30)


def test_a_method_that_draws_nothing_has_no_scores():
    config = importlib.import_module('configs.feature_net_digits').get_config('smoke')
    with pytest.raises(InputError, match='draws no samples; it is no generative model'):
        make_scores(assemble(config), config, metrics=('SW',), num=30)
    config = importlib.import_module('configs.fsq_digits').get_config('smoke')
    with pytest.raises(InputError, match=r'draws no samples; .* as a second stage'):
        make_scores(assemble(config), config, metrics=('SW',), num=30)


def test_labels_are_those_of_training_examples():
    config = importlib.import_module('configs.ddpm_digits').get_config('smoke')
    run, dataset = assemble(config), load_data(config)
    labels = _labels(run, dataset, 2500, (0, 5))
    numbers = np.random.default_rng((0, 5)).integers(dataset.train.num_examples, size=2500)
    np.testing.assert_array_equal(labels, dataset.train.fetch(numbers)['label'])
