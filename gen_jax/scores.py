"""Scores of samples: every metric of `metrics/`, on the features of samples and of real examples.

    FD     distance of fitted Gaussians         from the reference split
    KID    squared MMD, polynomial kernel       from the reference split
    MMD    squared MMD, Gaussian kernel         from the reference split
    SW     sliced Wasserstein distance          from the reference split
    PRDC   precision, recall, density, coverage of the reference split
    IS     Inception-style score                of the samples alone
    C2ST   accuracy of telling samples from     held-out examples, which no model has seen
    memorization   nearer, copied, exact_copies: distances to the training split beside those of
           held-out examples

Samples come from the averaged weights, with keys of the stream 'scores'. The labels of a class-
conditional model are drawn from those of the training split: with each class in turn samples would
be less random than independent ones, and KID, whose expectation at best is 0, would come out below.
"""

import sys
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from gen_jax import build, keys
from gen_jax.data.dataset import Dataset
from gen_jax.errors import InputError, in_section
from gen_jax.features.extractor import Embedded, Extractor, make_embedder
from gen_jax.features.references import references
from gen_jax.metrics import classifier, frechet, mmd, precision_recall, sliced_wasserstein
from gen_jax.metrics.memorization import exact_copies, memorization
from gen_jax.passport import record
from gen_jax.run import Run, modality
from gen_jax.sample import make_sampler
from gen_jax.state import TrainState
from gen_jax.types import DataSpec

_NEIGHBORS = 5  # k of precision, recall, density and coverage
_EMBEDDED = 100  # examples that the feature network takes at once


class Sets(NamedTuple):
    """What samples are measured with: `reference` is one of the other two."""

    samples: Embedded
    reference: Embedded
    train: Embedded
    held_out: Embedded


class Score(NamedTuple):
    """One number, and what is particular to it.

    `against` names the sets of `Sets` that samples were compared with; `n` None means all samples.
    """

    metric: str
    value: float
    stderr: float | None
    against: tuple[str, ...]
    n: int | None = None
    settings: dict | None = None
    facts: dict | None = None


class Scored(NamedTuple):
    """Records by name, and the sets that they were measured on."""

    records: dict[str, dict]
    sets: Sets


def _fd(sets: Sets) -> Iterator[Score]:
    reference = frechet.moments(sets.reference.features)
    value = frechet.frechet_with_error(sets.samples.features, reference)
    yield Score('FD', *value, against=('reference',))


def _kid(sets: Sets) -> Iterator[Score]:
    value = mmd.kid(sets.samples.features, sets.reference.features)
    yield Score('KID', *value, against=('reference',))


def _mmd(sets: Sets) -> Iterator[Score]:
    value = mmd.gaussian_mmd(sets.samples.features, sets.reference.features)
    yield Score('MMD', *value, against=('reference',))


def _sw(sets: Sets) -> Iterator[Score]:
    value = sliced_wasserstein.sliced_wasserstein(sets.samples.features, sets.reference.features)
    yield Score('SW', *value, against=('reference',), settings={'projections': 500})


def _prdc(sets: Sets) -> Iterator[Score]:
    values = precision_recall.precision_recall(
        sets.reference.features, sets.samples.features, _NEIGHBORS
    )
    for name, value in values.items():
        yield Score(name, *value, against=('reference',), settings={'k': _NEIGHBORS})


def _is(sets: Sets) -> Iterator[Score]:
    if sets.samples.probabilities is None:
        raise ValueError('these features come without probabilities of classes')
    value = classifier.inception_style_score(sets.samples.probabilities)
    yield Score('IS', *value, against=(), settings={'splits': 10})


def _c2st(sets: Sets) -> Iterator[Score]:
    value = classifier.two_sample_test(sets.held_out.features, sets.samples.features)
    size = min(sets.samples.num, sets.held_out.num)
    yield Score('C2ST', *value, against=('held_out',), n=size, settings={'seed': 0})


def _memorization(sets: Sets) -> Iterator[Score]:
    found = memorization(*(s.features for s in (sets.train, sets.samples, sets.held_out)))
    size = min(sets.samples.num, sets.held_out.num)
    facts = {'flagged': found.flagged, 'p_value': found.p_value}
    against = ('train', 'held_out')
    yield Score('nearer', found.nearer, found.nearer_error, against, size, facts=facts)
    yield Score('copied', found.copied, found.copied_error, against, size, facts=facts)
    value = exact_copies(sets.train.examples, sets.samples.examples)
    yield Score('exact_copies', *value, against=('train',))


METRICS: dict[str, Callable[[Sets], Iterator[Score]]] = {
    'FD': _fd,
    'KID': _kid,
    'MMD': _mmd,
    'SW': _sw,
    'PRDC': _prdc,
    'IS': _is,
    'C2ST': _c2st,
    'memorization': _memorization,
}
ESTIMATORS = {
    'FD': 'estimate (of finite samples: biased upward, by more the fewer they are)',
    'KID': 'estimate (unbiased)',
    'MMD': 'estimate (unbiased)',
    'SW': 'estimate (of finite samples: biased upward)',
    'IS': 'estimate (of finite samples: biased downward)',
    'C2ST': 'estimate (held-out accuracy; 1/2 where nothing tells them apart)',
    'nearer': 'estimate (Mann-Whitney; 1/2 where samples are like unseen data)',
    'copied': 'estimate (excess of near copies over those among unseen data)',
    'exact_copies': 'exact (share of samples equal to a training example)',
}


def make_scores(
    run: Run,
    config,
    *,
    metrics: tuple[str, ...],
    num: int,
    limit: float | None = None,
) -> Callable[..., Scored | None]:
    """A function `(state, dataset) -> Scored` that draws `num` samples and measures them.

    It returns None where drawing them would take more than `limit` seconds: a number of fewer
    samples would be another number.

    Raises:
      InputError: an unknown metric, or features or options that do not fit; found now.
    """
    section = config.evaluate.scores
    for name in metrics:
        if name not in METRICS:
            raise InputError(
                f'evaluate.scores.metrics: no {name!r}; choose from {", ".join(METRICS)}'
            )
    if section.reference not in ('train', 'evaluation'):
        raise InputError(
            f"evaluate.scores.reference: {section.reference!r} is neither 'train' nor 'evaluation'"
        )
    extractor = extractor_of(section.features, run.spec)
    embed = make_embedder(extractor, run.parallel, _EMBEDDED)
    options = config.sample.options.to_dict()
    draw = make_sampler(run, min(config.sample.batch_size, num), options)
    decode = modality(config).decode
    kept = {}  # what does not change from one call to the next: labels, and the real examples

    def score(state: TrainState, dataset: Dataset, show_progress: bool = False) -> Scored | None:
        if 'labels' not in kept:
            kept['labels'] = _labels(run, dataset, num, config.seed)
        started = time.perf_counter()
        key, labels = keys.stream(config.seed, 'scores'), kept['labels']
        drawn = draw(state, key, num, labels, show_progress=show_progress, limit=limit)
        if drawn is None:
            return None
        common = {
            'sampler': options,
            'nfe': run.method.nfe(**options),
            'labels': None if labels is None else 'drawn from those of the training split',
            'sample_batch_size': min(config.sample.batch_size, num),
            'sampling_seconds': round(time.perf_counter() - started, 3),
        }
        for split in ('train', 'evaluation'):
            if split not in kept:
                count = section.num_references
                kept[split] = references(dataset, split, count, decode, extractor, embed)
        started = time.perf_counter()
        samples = embed(decode(drawn, run.spec))
        common['embedding_seconds'] = round(time.perf_counter() - started, 3)
        sets = Sets(samples, kept[section.reference], kept['train'], kept['evaluation'])
        return Scored(measure(sets, metrics, extractor, section.reference, common), sets)

    return score


def _labels(run: Run, dataset: Dataset, num: int, seed: int) -> np.ndarray | None:
    """Labels of training examples drawn at random; None for a model without labels."""
    if run.method.num_classes is None:
        return None
    split, labels = dataset.train, []
    numbers = np.random.default_rng((seed, 2)).integers(split.num_examples, size=num)
    for start in range(0, num, 1000):
        raw = split.fetch(numbers[start : start + 1000])
        labels.append(split.transform(raw, np.zeros(len(raw['label']), np.uint64))['label'])
    return np.concatenate(labels)


def names_of(metrics: tuple[str, ...]) -> list[str]:
    """How the names of these metrics' records begin."""
    several = {
        'PRDC': ['precision', 'recall', 'density', 'coverage'],
        'memorization': ['nearer', 'copied', 'exact_copies'],
        'FD': ['FD', 'FID'],
    }
    return [name for metric in metrics for name in several.get(metric, [metric])]


def extractor_of(section, spec: DataSpec) -> Extractor:
    """What a config's section of features names, for data of this spec.

    Raises:
      InputError: a name, an argument or a file of weights that does not exist or does not fit.
    """
    field = 'evaluate.scores.features'
    make, options = build.named('features', section.to_dict(), field)
    build.check_keywords(make, options, field, hidden=('spec',))
    with in_section(field):
        return make(spec, **options)


def measure(
    sets: Sets, metrics: tuple[str, ...], extractor: Extractor, reference: str, passport: dict
) -> dict[str, dict]:
    """Records of the metrics named.

    What cannot be measured, of too few examples or of samples that are no numbers, is left out, and
    a line on stderr says why: a run of hours does not end for it.
    """
    splits = {'reference': reference, 'train': 'train', 'held_out': 'evaluation'}
    look = {field: getattr(extractor, field) for field in ('frechet', 'hash', 'preprocessing')}
    records = {}
    for metric in metrics:
        started = time.perf_counter()
        try:
            found = list(METRICS[metric](sets))
        except ValueError as error:
            print(f'warning: {metric} left out: {error}', file=sys.stderr)
            continue
        for score in found:
            name = extractor.frechet if score.metric == 'FD' else score.metric + extractor.suffix
            records[name] = record(
                score.value,
                score.stderr,
                sets.samples.num if score.n is None else score.n,
                ESTIMATORS.get(score.metric, 'estimate (depends on both sample sizes)'),
                score.metric,
                extractor=look,
                reference={splits[s]: getattr(sets, s).num for s in score.against},
                settings=score.settings or {},
                seconds=round(time.perf_counter() - started, 3),
                **passport,
                **(score.facts or {}),
            )
    return records
