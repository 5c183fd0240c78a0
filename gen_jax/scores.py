"""Scores of samples: every metric of `metrics/`, on the features of samples and of real examples.

    FD     distance of fitted Gaussians         from the reference split
    KID    squared MMD, polynomial kernel       from the reference split
    MMD    squared MMD, Gaussian kernel         from the reference split
    SW     sliced Wasserstein distance          from the reference split
    PRDC   precision, recall, density, coverage of the reference split
    IS     Inception-style score                of the samples alone
    modes  confident samples, modes, and the smallest and largest class: of the samples alone;
           class_kl, of frequencies of classes: from the reference split
    C2ST   accuracy of telling samples from     held-out examples, which no model has seen
    memorization   nearer, copied, exact_copies: distances to the training split beside those of
           held-out examples

Which is what; `scoring.py` draws the samples.
"""

import sys
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from gen_jax.features.extractor import Embedded, Extractor
from gen_jax.metrics import classifier, frechet, mmd, modes, precision_recall, sliced_wasserstein
from gen_jax.metrics.memorization import exact_copies, memorization
from gen_jax.passport import absent, record


class Sets(NamedTuple):
    """What samples are measured with, as far as the metrics need it.

    `reference` is one of the next two; `known` stands for all training examples: see `digests`.
    """

    samples: Embedded
    reference: Embedded | None
    train: Embedded | None
    held_out: Embedded | None
    known: set[bytes] | None = None


class Score(NamedTuple):
    """One number, and what is particular to it.

    `against` names the sets of `Sets` that samples were compared with; `n` None means all samples.
    A score that is not `on_features` has neither an extractor nor its suffix.
    """

    metric: str
    value: float
    stderr: float | None
    against: tuple[str, ...]
    n: int | None = None
    settings: dict | None = None
    facts: dict | None = None
    on_features: bool = True


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
    settings = {'num_projections': 500, 'seed': 0}
    features = (sets.samples.features, sets.reference.features)
    value = sliced_wasserstein.sliced_wasserstein(*features, **settings)
    yield Score('SW', *value, against=('reference',), settings=settings)


def _prdc(sets: Sets) -> Iterator[Score]:
    settings = {'k': 5}
    features = (sets.reference.features, sets.samples.features)
    for name, value in precision_recall.precision_recall(*features, **settings).items():
        yield Score(name, *value, against=('reference',), settings=settings)


def _is(sets: Sets) -> Iterator[Score]:
    settings = {'num_splits': 10}
    value = classifier.inception_style_score(_probabilities(sets), **settings)
    yield Score('IS', *value, against=(), settings=settings)


def _modes(sets: Sets) -> Iterator[Score]:
    probabilities, settings = _probabilities(sets), {'threshold': 0.9}
    for name, value in modes.mode_coverage(probabilities, **settings).items():
        yield Score(name, *value, against=(), settings=settings)
    value = modes.class_kl(probabilities, sets.reference.probabilities)
    yield Score('class_kl', *value, against=('reference',))


def _probabilities(sets: Sets) -> np.ndarray:
    if sets.samples.probabilities is None:
        raise ValueError('these features come without probabilities of classes')
    return sets.samples.probabilities


def _c2st(sets: Sets) -> Iterator[Score]:
    settings = {'seed': 0}
    value = classifier.two_sample_test(sets.held_out.features, sets.samples.features, **settings)
    size = min(sets.samples.num, sets.held_out.num)
    yield Score('C2ST', *value, against=('held_out',), n=size, settings=settings)


def _memorization(sets: Sets) -> Iterator[Score]:
    value = exact_copies(sets.known, sets.samples.examples)
    yield Score('exact_copies', *value, against=(), on_features=False)
    found = memorization(*(s.features for s in (sets.train, sets.samples, sets.held_out)))
    size = min(sets.samples.num, sets.held_out.num)
    facts = {'flagged': found.flagged, 'p_value': found.p_value}
    against = ('train', 'held_out')
    yield Score('nearer', found.nearer, found.nearer_error, against, size, facts=facts)
    yield Score('copied', found.copied, found.copied_error, against, size, facts=facts)


METRICS: dict[str, Callable[[Sets], Iterator[Score]]] = {
    'FD': _fd,
    'KID': _kid,
    'MMD': _mmd,
    'SW': _sw,
    'PRDC': _prdc,
    'IS': _is,
    'modes': _modes,
    'C2ST': _c2st,
    'memorization': _memorization,
}
ESTIMATORS = {
    'FD': 'estimate (of finite samples: biased upward, by more the fewer they are)',
    'KID': 'estimate (unbiased)',
    'MMD': 'estimate (unbiased)',
    'SW': 'estimate (of finite samples: biased upward)',
    'IS': 'estimate (of finite samples: biased downward)',
    'confident': 'estimate (unbiased)',
    'modes': 'estimate (of finite samples: biased downward)',
    'smallest_class': 'estimate (of finite samples: biased downward)',
    'largest_class': 'estimate (of finite samples: biased upward)',
    'class_kl': 'estimate (of finite samples: biased upward)',
    'C2ST': 'estimate (held-out accuracy; 1/2 where nothing tells them apart)',
    'nearer': 'estimate (Mann-Whitney; 1/2 where samples are like unseen data)',
    'copied': 'estimate (excess of near copies over those among unseen data)',
    'exact_copies': 'exact (share of samples equal to a training example, of all there are)',
}


def splits_for(metrics: tuple[str, ...], reference: str) -> set[str]:
    """The splits that these metrics look at."""
    needed = {'C2ST': {'evaluation'}, 'memorization': {'train', 'evaluation'}, 'IS': set()}
    return set().union(*(needed.get(metric, {reference}) for metric in metrics))


def names_of(metrics: tuple[str, ...]) -> list[str]:
    """What the records of these metrics call theirs."""
    several = {
        'PRDC': ['precision', 'recall', 'density', 'coverage'],
        'modes': ['confident', 'modes', 'smallest_class', 'largest_class', 'class_kl'],
        'memorization': ['nearer', 'copied', 'exact_copies'],
    }
    return [name for metric in metrics for name in several.get(metric, [metric])]


def measure(
    sets: Sets, metrics: tuple[str, ...], extractor: Extractor, reference: str, passport: dict
) -> dict[str, dict]:
    """Records of the metrics named.

    What cannot be measured, of too few examples or of samples that are no numbers, has a record
    without a value, and a line on stderr says why: a run of hours does not end for it.
    """
    splits = {'reference': reference, 'train': 'train', 'held_out': 'evaluation'}
    features = {field: getattr(extractor, field) for field in ('frechet', 'hash', 'preprocessing')}
    records = {}
    for metric in metrics:
        started, found = time.perf_counter(), []
        try:
            for score in METRICS[metric](sets):
                found.append(score)
        except ValueError as error:
            reason = f'left out: {str(error).splitlines()[0]}'
            print(f'warning: {metric} {reason}', file=sys.stderr)
            records[_name(metric, extractor)] = absent(metric, sets.samples.num, reason)
        seconds = round(time.perf_counter() - started, 3)
        real = _of_held_out(metric, sets, reference)
        for score in found:
            name = _name(score.metric, extractor) if score.on_features else score.metric
            records[name] = record(
                score.value,
                score.stderr,
                sets.samples.num if score.n is None else score.n,
                _estimator(score.metric, sets),
                score.metric,
                extractor=features if score.on_features else None,
                reference={splits[s]: getattr(sets, s).num for s in score.against},
                settings=score.settings or {},
                seconds=seconds,
                **({'held_out': real[score.metric]} if score.metric in real else {}),
                **passport,
                **(score.facts or {}),
            )
    return records


def _name(metric: str, extractor: Extractor) -> str:
    return extractor.frechet if metric == 'FD' else metric + extractor.suffix


def _estimator(metric: str, sets: Sets) -> str:
    known = ESTIMATORS.get(metric, 'estimate (depends on both sample sizes)')
    width = sets.samples.features.shape[1]
    if metric == 'FD' and sets.samples.num <= width:
        return f'{known}; mostly bias, since n is not above the {width} features'
    return known


def _of_held_out(metric: str, sets: Sets, reference: str) -> dict[str, dict]:
    """What held-out examples get in the place of samples: the yardstick, where there is one."""
    if metric in ('C2ST', 'memorization') or sets.held_out is None or reference != 'train':
        return {}
    try:
        found = list(METRICS[metric](sets._replace(samples=sets.held_out)))
    except ValueError:  # the samples have said what is wrong, or there are too few held out
        return {}
    num = sets.held_out.num
    return {s.metric: {'value': s.value, 'stderr': s.stderr, 'n': num} for s in found}
