"""`--mode=evaluate`: held-out numbers of a trained model, each with what it is."""

import functools
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

import jax
import numpy as np

from gen_jax import build, hosts, keys, parallel, preemption
from gen_jax import workdir as workdirs
from gen_jax.data.dataset import Dataset, Split, evaluation_batches
from gen_jax.data.tokenizers import UNITS
from gen_jax.errors import in_section
from gen_jax.methods.method import (
    ActiveUnits,
    CodePerplexity,
    CodeUsage,
    Column,
    Perplexity,
    ToldApart,
)
from gen_jax.metrics import codes
from gen_jax.metrics.mann_whitney import mann_whitney
from gen_jax.metrics.neighbors import nearest
from gen_jax.metrics.ratio import ratio
from gen_jax.passport import record
from gen_jax.report.evaluation import write_report
from gen_jax.run import Run, abstract_batch, assemble, load_data, modality
from gen_jax.scores import Sets
from gen_jax.scoring import Scored, make_scores
from gen_jax.state import TrainState, sampling_params
from gen_jax.trained import trained
from gen_jax.writers import Display, finite, read_rows, write_json

_SHOWN = 100  # samples in the report
ACTIVE = 0.01  # the variance above which a latent number is active
_ROW = 8  # rows of nearest examples there, and pictures in each: as many, for a square grid


def evaluate(
    config,
    workdir: Path,
    *,
    checkpoint: str = 'latest',
    seed: int | None = None,
    ema_length: float | None = None,
) -> dict[str, dict]:
    """Evaluates a checkpoint of `workdir`; writes `evaluation.json` and `report.html`.

    What the method itself says of held-out data comes first, over the whole evaluation split or the
    first `evaluate.num_batches` batches of it; then, with `evaluate.scores.num`, the scores of so
    many samples.

    Args:
      config: the run's config.
      workdir: the run's folder.
      checkpoint: 'latest', 'best' or a step.
      seed: of the samples that are scored; None for the config's.
      ema_length: of the average of the weights; see `trained.py`.

    Returns:
      `{name: record}`; see `passport.py`.

    Raises:
      InputError: bad config, no readable checkpoint, or missing data.
    """
    workdirs.check(workdir, config)
    run = assemble(config, spec=workdirs.saved_spec(workdir))
    options = config.evaluate.options.to_dict()
    measure = make_evaluation(run, config, options)
    score = scores_of(run, config, seed)
    state, average = trained(run, config, workdir, checkpoint, ema_length)
    dataset = load_data(config, run.spec)
    workdirs.check_data(workdir, dataset.fingerprint)
    if hosts.is_first():
        print(f'evaluating step {int(state.step)}, average of {average}', file=sys.stderr)
    common = {
        'step': int(state.step),
        'average': average,
        'precision': config.precision,
        'commit': workdirs.commit(),
        'device': f'{jax.device_count()} x {jax.devices()[0].device_kind}',
    }
    started = time.perf_counter()
    columns = measure(state, dataset.evaluation, show_progress=True)
    exact, estimators = known_density(columns, dataset)
    results = summarize({**columns, **exact}, {**run.method.estimators, **estimators})
    own = {'split': 'evaluation', 'options': options, 'seed': config.seed}
    own['seconds'] = round(time.perf_counter() - started, 3)
    if 'evaluation_stride' in config.data:
        stride = config.data.evaluation_stride or config.data.context
        own['window'] = f'{config.data.context} tokens, of which {stride} are predicted'
    records = {name: record(**result, metric=name, **own) for name, result in results.items()}
    scored = None if score is None else score(state, dataset, show_progress=True)
    if scored is not None:
        records |= scored.records
    records = {
        name: {**found, **common, **_fingerprints(name, dataset)} for name, found in records.items()
    }
    if hosts.is_first():
        write_json(workdir / 'evaluation.json', records)
        for name, found in records.items():
            spread = '' if found['stderr'] is None else f' +- {found["stderr"]:.2g}'
            about = f'(n = {found["n"]}; {found["estimator"].split(" (")[0]})'
            warning = '  <- nearer to training examples than unseen data' * found.get('flagged', 0)
            value = 'none' if found['value'] is None else f'{found["value"]:.5g}'
            print(f'{name} = {value}{spread} {about}{warning}')
        could_be_scored = run.method.sample is not None and run.spec.vocab_size is None
        if score is None and could_be_scored:
            print('no samples were scored; --config.evaluate.scores.num says how many to draw')
        _report(config, workdir, records, scored)
    return records


def _fingerprints(name: str, dataset: Dataset) -> dict[str, str]:
    """Of what a number was measured on: per character or byte that is the text, whatever its
    tokens, so that such numbers compare between tokenizers; else these tokens of a text."""
    if dataset.text_fingerprint is None:
        return {'data_fingerprint': dataset.fingerprint}
    if name.endswith(tuple(f'_per_{unit}' for unit in UNITS)):
        return {'data_fingerprint': dataset.text_fingerprint}
    return {
        'data_fingerprint': dataset.fingerprint,
        'text_fingerprint': dataset.text_fingerprint,
    }


def _report(config, workdir: Path, records: dict[str, dict], scored: Scored | None) -> None:
    pictures = [] if scored is None else _draw(scored.sets, modality(config), workdir)
    path = workdir / 'report.html'
    write_report(
        path,
        name=workdir.absolute().name,
        records=finite(records),
        rows=read_rows(workdir / 'metrics.jsonl'),
        config=workdirs.config_values(config),
        facts=workdirs.facts(workdir),
        pictures=pictures,
    )
    print(path)


def _draw(sets: Sets, data: ModuleType, workdir: Path) -> list[tuple[str, str, Path]]:
    """Pictures for the report, as (title, caption, file): samples, and what is nearest to some."""
    if data.SUFFIXES[0] != '.png':
        return []
    samples, train = sets.samples, sets.train
    path = data.write(samples.examples[:_SHOWN], workdir / 'samples' / 'evaluation')
    drawn = [('Samples', 'The first that were drawn for the numbers above, not chosen.', path)]
    # Points have no picture of their own.
    if samples.examples.ndim > 2 and train is not None and train.num >= _ROW:
        some = np.linspace(0, samples.num - 1, min(_ROW, samples.num)).round().astype(int)
        _, near = nearest(samples.features[some], train.features, _ROW - 1)
        rows = [[samples.examples[i], *train.examples[n]] for i, n in zip(some, near, strict=True)]
        tiles = np.stack([tile for row in rows for tile in row])
        path = data.write(tiles, workdir / 'samples' / 'evaluation_nearest')
        caption = (
            'Each row: a sample on the left, then the training examples nearest to it by features. '
            'A model that copies shows the same picture twice.'
        )
        drawn.append(('Nearest training examples', caption, path))
    return drawn


def scores_of(run: Run, config, seed: int | None = None) -> Callable[..., Scored] | None:
    """The scores that the config asks of `--mode=evaluate`; None where it asks none.

    Raises:
      InputError: as `make_scores`.
    """
    section = config.evaluate.scores
    if section.num is None:
        return None
    return make_scores(run, config, metrics=section.metrics, num=section.num, seed=seed)


def make_evaluation(
    run: Run, config, options: dict | None = None
) -> Callable[..., dict[str, np.ndarray]]:
    """A function `(state, split) -> {name: column}`, float64 for each example, compiled once.

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
        params, parts = sampling_params(state), []
        key = keys.stream(config.seed, 'evaluate')
        with Display(num_batches, hidden=not (show_progress and hosts.is_first())) as display:
            for number, batch in enumerate(batches):
                placed = parallel.place(run.parallel, batch)
                batch_key = jax.random.fold_in(key, number)
                values, mask = jax.device_get(compute(params, state.model_state, placed, batch_key))
                real = jax.tree.map(lambda rows, mask=mask: np.float64(rows[mask == 1]), values)
                parts.append(real)
                display.report(number + 1, {})
                preemption.check()
        return jax.tree.map(lambda *rows: np.concatenate(rows), *parts)

    return measure


def summarize(
    columns: Mapping[str, np.ndarray | Column],
    estimators: Mapping[str, str],
) -> dict[str, dict]:
    """`{name: {value, stderr, n, estimator}}`: means, and their standard errors over examples. Of a
    `Ratio` n is the number of what it is per: tokens, characters."""
    return {
        name: {**_summary(column), 'estimator': estimators[name]}
        for name, column in columns.items()
    }


def _summary(column: np.ndarray | Column) -> dict:
    """`{value, stderr, n}` of a column."""
    match column:
        case ActiveUnits(means):
            active = means.var(0) > ACTIVE
            return {'value': float(active.sum()), 'stderr': None, 'n': len(means)}
        case CodeUsage(used, num_codes):
            value = codes.usage(used, int(num_codes[0]))
            return {'value': value, 'stderr': None, 'n': len(used)}
        case CodePerplexity(used):
            return {'value': codes.perplexity(used), 'stderr': None, 'n': len(used)}
        case ToldApart(real, made):
            value, stderr = mann_whitney(real, made)
            return {'value': value, 'stderr': stderr, 'n': len(real)}
    totals, counts = column if isinstance(column, tuple) else (column, np.ones_like(column))
    value, stderr = ratio(totals, counts)
    if isinstance(column, Perplexity):
        with np.errstate(over='ignore'):  # a run that diverges is evaluated, too
            value = float(np.exp(value))
        stderr = None if stderr is None else value * stderr
    return {'value': value, 'stderr': stderr, 'n': round(float(counts.sum()))}


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
