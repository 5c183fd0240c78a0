"""Evaluations: exact over a split, whatever the batches."""

import importlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gen_jax import parallel
from gen_jax.data import images, toy
from gen_jax.evaluate import known_density, make_evaluation, summarize
from gen_jax.methods.method import ActiveUnits, CodePerplexity, CodeUsage, Method, ToldApart
from gen_jax.run import Run, initialize
from gen_jax.writers import read_rows


def run_of(evaluate) -> Run:
    """A run of a method without parameters, whose evaluation is the function given."""
    method = Method(
        init=lambda key, batch: ({'model': jnp.zeros(())}, {}),
        phases=(),
        sample=None,
        evaluate=evaluate,
        estimators={'mean': 'exact'},
        averaged=(),
    )
    layout = parallel.lay_out()
    spec = images.describe().spec
    run = Run(layout, spec, method, {}, None)
    template = jax.eval_shape(lambda: initialize_plainly(method))
    shardings = parallel.state_shardings(layout, template)
    template = jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        template,
        shardings,
    )
    return run._replace(template=template)


def measured(run, config, state, dataset) -> dict:
    columns = make_evaluation(run, config)(state, dataset.evaluation)
    return summarize(columns, run.method.estimators)['mean']


def initialize_plainly(method):
    from gen_jax.state import init_state

    return init_state(method, {}, 0, {'x': jnp.zeros((8, 8, 8, 1))})


@pytest.mark.parametrize('batch_size', [8, 64, 304])
def test_the_last_partial_batch_counts_only_its_real_rows(batch_size):
    """297 held-out digits divide by none of these batch sizes."""
    run = run_of(lambda params, model_state, batch, key: {'mean': batch['x'].mean((1, 2, 3))})
    config = importlib.import_module('configs.ddpm_digits').get_config()
    config.evaluate.batch_size = batch_size
    dataset = images.load()
    state = initialize(run, 0)
    result = measured(run, config, state, dataset)

    raw = dataset.evaluation.fetch(np.arange(297))['image']
    means = (2 * raw / 16.0 - 1).mean((1, 2, 3))
    assert result['n'] == 297
    np.testing.assert_allclose(result['value'], means.mean(), rtol=1e-6)
    np.testing.assert_allclose(result['stderr'], means.std(ddof=1) / np.sqrt(297), rtol=1e-5)
    assert result['estimator'] == 'exact'


def test_num_batches_bounds_the_work():
    run = run_of(lambda params, model_state, batch, key: {'mean': batch['x'].mean((1, 2, 3))})
    config = importlib.import_module('configs.ddpm_digits').get_config()
    config.evaluate.batch_size, config.evaluate.num_batches = 16, 3
    state = initialize(run, 0)
    result = measured(run, config, state, images.load())
    assert result['n'] == 48


@pytest.mark.parametrize('batch_size', [64, 304])
def test_codes_are_counted_over_the_whole_split_whatever_the_batches(batch_size):
    """The code of a pixel is its level; two rows of the image are a depth of two."""

    def columns(params, model_state, batch, key):
        levels = jnp.round((batch['x'] + 1) * 8).astype(jnp.int32)
        codes = jnp.moveaxis(levels.reshape(-1, 2, 32), 1, 2)
        num_codes = jnp.full(len(codes), 20)
        return {'usage': CodeUsage(codes, num_codes), 'mean': CodePerplexity(codes)}

    run = run_of(columns)
    run = run._replace(method=run.method._replace(estimators={'usage': 'exact', 'mean': 'exact'}))
    config = importlib.import_module('configs.ddpm_digits').get_config()
    config.evaluate.batch_size = batch_size
    dataset = images.load()
    found = make_evaluation(run, config)(initialize(run, 0), dataset.evaluation)
    found = summarize(found, run.method.estimators)

    raw = dataset.evaluation.fetch(np.arange(297))['image'].reshape(297, 2, 32)
    counts = [np.unique(raw[:, half], return_counts=True)[1] for half in (0, 1)]
    shares = [count / count.sum() for count in counts]
    entropies = [-(share * np.log(share)).sum() for share in shares]
    assert found['usage']['value'] == pytest.approx(np.mean([len(c) for c in counts]) / 20)
    assert found['mean']['value'] == pytest.approx(np.exp(entropies).mean())
    assert found['mean']['n'] == 297 and found['usage']['stderr'] is None


@pytest.mark.parametrize('batch_size', [64, 304])
def test_pairs_are_of_the_whole_split_and_the_samples_chance_counts_too(batch_size):
    """Rows that fill the last batch are in no pair."""

    def columns(params, model_state, batch, key):
        real = batch['x'].mean((1, 2, 3))
        return {'mean': ToldApart(real, batch['x'][:, 4, 4, 0] - 1)}

    run = run_of(columns)
    config = importlib.import_module('configs.ddpm_digits').get_config()
    config.evaluate.batch_size = batch_size
    dataset = images.load()
    found = measured(run, config, initialize(run, 0), dataset)

    raw = np.float32(2 * dataset.evaluation.fetch(np.arange(297))['image'] / 16.0 - 1)
    real, made = raw.mean((1, 2, 3)), raw[:, 4, 4, 0] - 1
    above = (1 + np.sign(real[:, None] - made)) / 2
    variance = above.mean(1).var(ddof=1) + above.mean(0).var(ddof=1)
    assert found['value'] == pytest.approx(above.mean(), abs=1e-3)
    assert found['stderr'] == pytest.approx(np.sqrt(variance / 297), rel=1e-2)
    assert found['n'] == 297


def test_train_evaluate_sample_through_the_door(launch, tmp_path):
    """The three modes on the real digits, one after the other."""
    flags = (
        '--config=configs/ddpm_digits.py:smoke',
        '--config.data.source=embedded',
        f'--workdir={tmp_path}',
    )
    assert launch(*flags).returncode == 0
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / 'checkpoints').rglob('*')}

    done = launch(*flags, '--mode=evaluate', '--config.evaluate.num_batches=3')
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / 'evaluation.json').read_text())
    bits = results['bits_per_dim']
    assert bits['n'] == 24 and bits['stderr'] > 0 and 'upper bound' in bits['estimator']
    assert bits['step'] == 3 and bits['options'] == {'bound_terms': 49, 'variance': 'large'}
    parts = results['rate_bits_per_dim']['value'] + results['distortion_bits_per_dim']['value']
    np.testing.assert_allclose(bits['value'], parts, rtol=1e-6)
    assert 'bits_per_dim = ' in done.stdout and 'evaluating step 3' in done.stderr

    # Scores of 40 samples, on the features of the net that ships with the package.
    distance = next(record for record in results.values() if record['metric'] == 'FD')
    assert distance['n'] == 40 and distance['reference'] == {'train': 60} and distance['nfe'] == 5
    assert distance['extractor']['frechet'] in results and distance['better'] == 'lower'
    assert {record['metric'] for record in results.values()} >= {
        *('FD', 'KID', 'precision', 'recall', 'density', 'coverage', 'IS', 'C2ST'),
        *('nearer', 'copied', 'exact_copies', 'bits_per_dim'),
    }
    of_model = {'step', 'average', 'precision', 'data_fingerprint'}
    everywhere = {*of_model, 'seed', 'commit', 'device', 'seconds'}
    assert all(everywhere <= record.keys() for record in results.values())
    rows = read_rows(tmp_path / 'metrics.jsonl')
    assert any(f'eval/{distance["extractor"]["frechet"]}' in row for row in rows)
    report = (tmp_path / 'report.html').read_text()
    assert distance['extractor']['frechet'] in report and 'Nearest training examples' in report

    done = launch(*flags, '--mode=sample', '--num=13', '--seed=5', '--steps=4')
    assert done.returncode == 0, done.stderr
    written = tmp_path / 'samples' / 'num13_seed5_steps4'
    assert done.stdout.split() == [f'{written}.png', f'{written}.npz']
    with np.load(f'{written}.npz') as arrays:
        assert arrays['x'].shape == (13, 8, 8, 1) and arrays['x'].dtype == np.uint8
        assert arrays['label'].tolist() == [*range(10), 0, 1, 2]
    one = launch(
        *flags, '--mode=sample', '--num=4', '--label=3', '--steps=4', f'--out={tmp_path}/b.npz'
    )
    assert one.returncode == 0, one.stderr
    with np.load(tmp_path / 'b.npz') as arrays:
        assert arrays['label'].tolist() == [3] * 4
    # Looking changes nothing.
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / 'checkpoints').rglob('*')}


def test_a_known_density_is_reported_beside_the_bound():
    dataset = toy.load(name='8gaussians', num_train=10, num_evaluation=200)
    x = dataset.evaluation.fetch(np.arange(150))['x']
    exact = -toy.LAWS['8gaussians'].log_density(x) / 2
    columns, estimators = known_density({'nats_per_dim': exact + 0.25}, dataset)
    results = summarize(columns, estimators)
    assert results['exact_nats_per_dim']['value'] == pytest.approx(exact.mean())
    assert results['exact_nats_per_dim']['estimator'].startswith('exact')
    assert results['excess_nats_per_dim']['value'] == pytest.approx(0.25)
    assert results['excess_nats_per_dim']['stderr'] < 1e-12
    assert known_density({'nats_per_dim': exact}, images.load()) == ({}, {})


def test_active_units_are_those_whose_means_vary_over_the_whole_set():
    """Not over a batch of it: the third number is another one in each half, and the same within."""
    means = np.zeros((400, 4))
    means[:, 0] = np.random.default_rng(0).normal(size=400)
    means[:, 1] = 0.05 * means[:, 0]  # varies by a quarter of what it takes
    means[200:, 2] = 1
    column = ActiveUnits(means)
    result = summarize({'active_units': column}, {'active_units': 'estimate'})['active_units']
    assert result == {'value': 2.0, 'stderr': None, 'n': 400, 'estimator': 'estimate'}
