"""What a number was measured with, and whether two numbers may be set side by side.

A record is what `evaluation.json` has under a name: a value, its standard error and interval, what
kind of number it is, and everything that it depends on. `MUST_BE_EQUAL` decides what compares: the
measure has to be the same, while models, samplers, seeds and machines may differ, for these are
what is compared.
"""

from collections.abc import Mapping

import numpy as np

from gen_jax.selection import better

# Two values of one metric compare only where all of these are equal.
MUST_BE_EQUAL = (
    'estimator',
    'n',
    'split',
    'options',
    'extractor',
    'reference',
    'settings',
    'data_fingerprint',
)
_NORMAL_95 = 1.959964
_SHARES = ('precision', 'recall', 'coverage', 'C2ST', 'accuracy', 'exact_copies', 'confident')
_NEVER_NEGATIVE = ('FD', 'SW', 'modes', 'smallest_class', 'class_kl')


def record(
    value: float, stderr: float | None, n: int, estimator: str, metric: str, **passport
) -> dict:
    """One entry of `evaluation.json`.

    Args:
      value: the number.
      stderr: its standard error; None where it has none.
      n: how many examples it was measured on, or tokens, characters, ... of these.
      estimator: 'exact ...', 'upper bound ...' or 'estimate ...'.
      metric: what is measured, without the features that it is measured on: 'FD', 'bits_per_dim'.
      **passport: everything else that it depends on.
    """
    return {
        'value': float(value),
        'stderr': None if stderr is None else float(stderr),
        'interval': None if stderr is None else interval(metric, value, stderr, n),
        'n': n,
        'estimator': estimator,
        'metric': metric,
        'better': better(metric),
        **passport,
    }


def interval(metric: str, value: float, stderr: float, n: int) -> list[float]:
    """95 %: 1.96 errors to either side, Wilson's for a share, and not below 0 where values never
    are."""
    if metric in _SHARES:
        # As many examples as would have this error; n where none, or all, were counted.
        count = value * (1 - value) / stderr**2 if stderr > 0 and 0 < value < 1 else n
        z = _NORMAL_95**2 / count
        middle = (value + z / 2) / (1 + z)
        spread = np.sqrt(z * value * (1 - value) + z * z / 4) / (1 + z)
        return [float(middle - spread), float(middle + spread)]
    low = value - _NORMAL_95 * stderr
    return [float(max(low, 0.0) if metric in _NEVER_NEGATIVE else low), float(value + value - low)]


def absent(metric: str, n: int, reason: str) -> dict:
    """The entry of a number that could not be measured."""
    nothing = dict.fromkeys(('value', 'stderr', 'interval'))
    return {**nothing, 'n': n, 'estimator': reason, 'metric': metric, 'better': better(metric)}


def differences(first: Mapping, second: Mapping) -> list[str]:
    """Why two records of one metric do not compare: 'n is 5000 and 10000'; empty where they do."""
    found = []
    for field in MUST_BE_EQUAL:
        a, b = _flat(field, first.get(field)), _flat(field, second.get(field))
        found += [
            f'{name} is {_word(a.get(name))} and {_word(b.get(name))}'
            for name in [*a, *(name for name in b if name not in a)]
            if a.get(name) != b.get(name)
        ]
    return found


def _flat(name: str, value) -> dict:
    if isinstance(value, Mapping):
        parts = (_flat(f'{name}.{inner}', part) for inner, part in value.items())
        return {key: part for flat in parts for key, part in flat.items()}
    return {name: value}


def _word(value) -> str:
    return 'absent' if value is None else str(value)
