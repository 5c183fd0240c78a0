"""`--mode=evaluate`: held-out numbers of a trained model, each with what it is."""

import functools
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import numpy as np

from gen_jax import build, keys, parallel
from gen_jax import workdir as workdirs
from gen_jax.checkpoint import restore_for_use
from gen_jax.data.dataset import Dataset, Split, evaluation_batches
from gen_jax.errors import in_section
from gen_jax.run import Run, abstract_batch, assemble, load_data
from gen_jax.state import TrainState, sampling_params
from gen_jax.writers import Display, write_json


def evaluate(config, workdir: Path) -> dict[str, dict]:
    """Evaluates the newest checkpoint of `workdir` and writes `evaluation.json`.

    Returns:
      `{name: {value, stderr, n, estimator, ...}}`, over the whole evaluation split, or the first
      `evaluate.num_batches` batches of it.

    Raises:
      InputError: bad config, no readable checkpoint, or missing data.
    """
    workdirs.check(workdir, config)
    run = assemble(config)
    options = config.evaluate.options.to_dict()
    measure = make_evaluation(run, config, options)
    state = restore_for_use(run.template, workdir)
    dataset = load_data(config)
    started = time.perf_counter()
    columns = measure(state, dataset.evaluation, show_progress=True)
    exact, estimators = known_density(columns, dataset)
    results = summarize({**columns, **exact}, {**run.method.estimators, **estimators})
    common = {
        'split': 'evaluation',
        'step': int(state.step),
        'ema_decay': config.ema.decay,
        'seed': config.seed,
        'options': options,
        'data_fingerprint': dataset.fingerprint,
        'commit': workdirs.commit(),
        'device': f'{jax.device_count()} x {jax.devices()[0].device_kind}',
        'seconds': round(time.perf_counter() - started, 3),
    }
    records = {name: {**result, **common} for name, result in results.items()}
    if jax.process_index() == 0:
        write_json(workdir / 'evaluation.json', records)
        for name, record in records.items():
            spread = '' if record['stderr'] is None else f' +- {record["stderr"]:.2g}'
            about = f'(n = {record["n"]}; {record["estimator"]})'
            print(f'{name} = {record["value"]:.5g}{spread} {about}')
    return records


def make_evaluation(
    run: Run, config, options: dict | None = None
) -> Callable[..., dict[str, np.ndarray]]:
    """A function `(state, split) -> {name: [n]}`, one float64 for each example, compiled once.

    Without `options` the method's own defaults hold, which are the quick ones.

    Raises:
      InputError: options that the method refuses, or a batch that does not divide by the devices;
        found now, not after hours of training.
    """
    size, options = config.evaluate.batch_size, options or {}
    parallel.check_batch_size(run.parallel, size, 'evaluate.batch_size')
    given = ('params', 'model_state', 'batch', 'key')
    build.check_keywords(run.method.evaluate, options, 'evaluate.options', hidden=given)
    evaluate = functools.partial(run.method.evaluate, **options)

    # The mask goes along, so that values and mask of all processes come back in one order.
    def columns_of(params, model_state, batch, key):
        return evaluate(params, model_state, batch, key), batch['mask']

    compute = run.parallel.jit(columns_of, out_shardings=run.parallel.replicated)
    state = run.template
    batch = {**abstract_batch(run.spec, size), 'mask': jax.ShapeDtypeStruct((size,), np.float32)}
    with in_section('evaluate.options'):
        jax.eval_shape(compute, sampling_params(state), state.model_state, batch, state.key)

    def measure(state: TrainState, split: Split, show_progress: bool = False) -> dict:
        num_batches = -(-split.num_examples // size)
        num_batches = min(num_batches, config.evaluate.num_batches or num_batches)
        batches = evaluation_batches(
            split,
            batch_size=size,
            num_batches=num_batches,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        params, columns = sampling_params(state), {}
        key = keys.stream(config.seed, 'evaluate')
        with Display(num_batches, hidden=not show_progress) as display:
            for number, batch in enumerate(batches):
                placed = parallel.place(run.parallel, batch)
                batch_key = jax.random.fold_in(key, number)
                values, mask = jax.device_get(compute(params, state.model_state, placed, batch_key))
                for name, column in values.items():
                    columns.setdefault(name, []).append(np.float64(column[mask == 1]))
                display.report(number + 1, {})
        return {name: np.concatenate(parts) for name, parts in columns.items()}

    return measure


def summarize(columns: Mapping[str, np.ndarray], estimators: Mapping[str, str]) -> dict[str, dict]:
    """`{name: {value, stderr, n, estimator}}`: means over examples, and their standard errors."""
    return {
        name: {
            'value': float(values.mean()),
            'stderr': float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None,
            'n': len(values),
            'estimator': estimators[name],
        }
        for name, values in columns.items()
    }


def known_density(
    columns: Mapping[str, np.ndarray], dataset: Dataset
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Where the data's density is known: -log p of the same examples, how far the model's number
    lies above it, and what these two are. Both empty elsewhere."""
    if dataset.log_density is None or 'nats_per_dim' not in columns:
        return {}, {}
    num = len(columns['nats_per_dim'])
    (batch,) = evaluation_batches(dataset.evaluation, batch_size=num, num_batches=1)
    exact = -dataset.log_density(batch['x']) / np.prod(dataset.spec.shape)
    values = {'exact_nats_per_dim': exact, 'excess_nats_per_dim': columns['nats_per_dim'] - exact}
    return values, {
        'exact_nats_per_dim': 'exact (-log p of the law that the data is drawn from)',
        'excess_nats_per_dim': 'nats_per_dim less exact_nats_per_dim, example by example',
    }
