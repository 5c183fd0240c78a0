"""What a number was measured with, and whether two numbers may be set side by side.

A record is what `evaluation.json` has under a name: a value, its standard error and interval, what
kind of number it is, and everything that it depends on. `MUST_BE_EQUAL` decides what compares: the
measure has to be the same, while models, samplers, seeds and machines may differ, for these are
what is compared.
"""

from collections.abc import Mapping

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


def record(
    value: float, stderr: float | None, n: int, estimator: str, metric: str, **passport
) -> dict:
    """One entry of `evaluation.json`.

    Args:
      value: the number.
      stderr: its standard error; None where it has none.
      n: how many examples it was measured on.
      estimator: 'exact ...', 'upper bound ...' or 'estimate ...'.
      metric: what is measured, without the features that it is measured on: 'FD', 'bits_per_dim'.
      **passport: everything else that it depends on.
    """
    spread = None if stderr is None else _NORMAL_95 * stderr
    return {
        'value': float(value),
        'stderr': None if stderr is None else float(stderr),
        'interval': None if spread is None else [float(value - spread), float(value + spread)],
        'n': n,
        'estimator': estimator,
        'metric': metric,
        'better': better(metric),
        **passport,
    }


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
