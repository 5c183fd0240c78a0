"""From a trained state to scores: samples are drawn, embedded, and measured beside real examples.

Samples come from the averaged weights. The labels of a class-conditional model are drawn from those
of the training split: with each class in turn samples would be less random than independent ones,
and KID, whose expectation at best is 0, would come out below.
"""

import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from gen_jax import build, keys
from gen_jax.data.dataset import Dataset
from gen_jax.errors import InputError, in_section
from gen_jax.features.extractor import Embedded, Extractor, make_embedder
from gen_jax.features.references import read, references
from gen_jax.metrics.memorization import digests
from gen_jax.run import Run, modality
from gen_jax.sample import make_sampler
from gen_jax.scores import METRICS, Sets, measure, splits_for
from gen_jax.state import TrainState
from gen_jax.types import DataSpec

_EMBEDDED = 100  # examples that the feature network takes at once


class Scored(NamedTuple):
    """Records by name, and the sets that they were measured on."""

    records: dict[str, dict]
    sets: Sets


def make_scores(
    run: Run,
    config,
    *,
    metrics: tuple[str, ...],
    num: int,
    limit: float | None = None,
    seed: int | None = None,
    in_training: bool = False,
) -> Callable[..., Scored | None]:
    """A function `(state, dataset) -> Scored` that draws `num` samples and measures them.

    It returns None, and says why on stderr, where drawing them would take more than `limit` seconds
    (fewer samples would be another measure), or where they are not finite.

    Args:
      run: whose samples.
      config: `evaluate.scores` says how they are measured, and `sample` how they are drawn.
      metrics: of `METRICS`.
      num: of samples.
      limit: in seconds, or None.
      seed: of the samples; None for the config's.
      in_training: draws from keys of its own, so that a step that was chosen for its scores is not
        evaluated on the same samples.

    Raises:
      InputError: samples of tokens, an unknown metric, or features or options that do not fit;
        found now.
    """
    section, options = config.evaluate.scores, config.sample.options.to_dict()
    if run.spec.vocab_size is not None:
        field = 'train.score_every' if in_training else 'evaluate.scores.num'
        raise InputError(f'{field}: samples of tokens have no features to score; set it to None')
    _check(section, metrics, 'train.score_metrics' if in_training else 'evaluate.scores.metrics')
    extractor = extractor_of(section.features, run.spec)
    embed = make_embedder(extractor, run.parallel, _EMBEDDED)
    batch_size = min(config.sample.batch_size, num)
    draw, decode = make_sampler(run, batch_size, options), modality(config).decode
    purpose = 'scores_in_training' if in_training else 'scores'
    seed = config.seed if seed is None else seed
    kept = {}  # what does not change from one call to the next

    def prepare(dataset: Dataset) -> None:
        kept['labels'] = _labels(run, dataset, num, (seed, keys.PURPOSES.index(purpose)))
        for split in splits_for(metrics, section.reference):
            given = (dataset, split, section.num_references, decode, extractor, embed)
            kept[split] = references(*given)
        if 'memorization' in metrics:
            everything = np.arange(dataset.train.num_examples)
            kept['known'] = digests(read(dataset.train, everything, decode, dataset.spec))

    def score(state: TrainState, dataset: Dataset, show_progress: bool = False) -> Scored | None:
        if not kept:
            prepare(dataset)
        key, started = keys.stream(seed, purpose), time.perf_counter()
        drawn = draw(state, key, num, kept['labels'], show_progress=show_progress, limit=limit)
        if drawn is None:
            return _left_out(f'drawing {num} samples would take more than {limit:g} s')
        if not np.isfinite(drawn).all():
            return _left_out('samples are not finite')
        passport = {
            'seed': seed,
            'sampler': options,
            'nfe': run.method.nfe(**options),
            'labels': 'none' if kept['labels'] is None else 'drawn from the training split',
            'sample_batch_size': batch_size,
            'sampling_seconds': round(time.perf_counter() - started, 3),
        }
        samples, seconds = _timed(embed, decode(drawn, run.spec))
        passport['embedding_seconds'] = seconds
        real = (kept.get(name) for name in (section.reference, 'train', 'evaluation', 'known'))
        sets = Sets(samples, *real)
        return Scored(measure(sets, metrics, extractor, section.reference, passport), sets)

    return score


def extractor_of(section, spec: DataSpec) -> Extractor:
    """What a config's section of features names, for data of this spec.

    Raises:
      InputError: a name, an argument or a file of weights that does not exist or does not fit.
    """
    field = 'evaluate.scores.features'
    make, options = build.named('features', section.to_dict(), field)
    options = {name: value for name, value in options.items() if value is not None}
    build.check_keywords(make, options, field, hidden=('spec',))
    with in_section(field):
        return make(spec, **options)


def _check(section, metrics: tuple[str, ...], field: str) -> None:
    for name in metrics or ('',):
        if name not in METRICS:
            raise InputError(
                f"{field}: no {name!r}; choose from {', '.join(METRICS)}, as \"('FD', 'KID')\""
            )
    if section.reference not in ('train', 'evaluation'):
        raise InputError(
            f"evaluate.scores.reference: {section.reference!r} is neither 'train' nor 'evaluation'"
        )


def _labels(run: Run, dataset: Dataset, num: int, seed: tuple[int, ...]) -> np.ndarray | None:
    """Labels of training examples drawn at random, of those whose label is known; None for a model
    without labels."""
    if run.method.num_classes is None:
        return None
    split, labels = dataset.train, []
    known = np.arange(split.num_examples) if split.labeled is None else split.labeled
    numbers = known[np.random.default_rng(seed).integers(len(known), size=num)]
    for start in range(0, num, 1000):
        raw = split.fetch(numbers[start : start + 1000])
        labels.append(split.transform(raw, np.zeros(len(raw['label']), np.uint64))['label'])
    return np.concatenate(labels)


def _timed(embed: Callable, examples: np.ndarray) -> tuple[Embedded, float]:
    started = time.perf_counter()
    return embed(examples), round(time.perf_counter() - started, 3)


def _left_out(reason: str) -> None:
    print(f'warning: scores left out: {reason}', file=sys.stderr)
