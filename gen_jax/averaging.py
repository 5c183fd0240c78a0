"""Averages of parameters of any length, made after training from a few that were kept.

A power-function average (Karras et al. 2024, arXiv:2312.02696, section 3.1) has a length that grows
with training: the weight of step n in the average at step N is proportional to n^g,

    (1) a_n = b_n a_{n-1} + (1 - b_n) p_n,   b_n = (1 - 1/n)^(g + 1)

and its length s is the standard deviation of that weight, as a share of the training so far:

    (2) s^2 = (g + 1) / ((g + 2)^2 (g + 3))

Averages of other lengths can be had afterwards (their section 3.2 and appendix C). With snapshots
a_i of profiles (N_i, g_i), the weights x of the combination sum_i x_i a_i that lies nearest to a
profile (N, g), as functions of time, solve

    (3) A x + l = c,   sum_i x_i = 1,   A_ij = <i, j>,   c_i = <i, (N, g)>
    (4) <(N, g), (M, h)> = (g + 1) (h + 1) r^q / ((g + h + 1) max(N, M)),
        r = N / M,   q = h where N < M and -g elsewhere

The multiplier l is ours: it holds the sum of the weights at 1, so that what training does not move
comes out as it is, however short the run.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gen_jax.errors import InputError
from gen_jax.types import Array, Tree

# Longer than this no power makes: at g = 0, where all steps weigh the same.
LONGEST = 12**-0.5


class Profile(NamedTuple):
    """Which steps an average is of: up to `step`, with the power `exponent` g of equation (1)."""

    step: float
    exponent: float


def power(average: Tree, params: Tree, step: Array, length: float) -> Tree:
    """Equation (1): the average after `step` (from 1 on) updates."""
    # 1 - b_n, in the form that float32 holds to its last digits after millions of steps too
    new = -jnp.expm1((exponent_of(length) + 1) * jnp.log1p(-1 / step.astype(jnp.float32)))
    return jax.tree.map(lambda a, p: a + (p - a) * new, average, params)


def check_length(length: float, field: str) -> None:
    """Raises InputError for a length that no such profile has."""
    if not isinstance(length, int | float) or not 0 < length <= LONGEST:
        raise InputError(
            f'{field}: {length!r} must be above 0 and at most {LONGEST:.3f}; it is a share of the '
            'training so far'
        )


def exponent_of(length: float) -> float:
    """The g of equation (2), its one root of at least 0."""
    inverse = length**-2
    return max(np.roots([1, 7, 16 - inverse, 12 - inverse]).real.max(), 0.0)


def combination(profiles: Sequence[Profile], target: Profile) -> tuple[np.ndarray, float]:
    """Equation (3): weights of snapshots of these profiles, and how far what they make lies from
    the target: the norm of the difference as a share of the target's."""
    steps, exponents = (np.array(column, np.float64) for column in zip(*profiles, strict=True))
    gram = _inner(steps[:, None], exponents[:, None], steps, exponents)
    with_target = _inner(steps, exponents, target.step, target.exponent)
    ones = np.ones((len(gram), 1))
    system = np.block([[gram, ones], [ones.T, np.zeros((1, 1))]])
    # Snapshots that lie close are almost the same function: least squares, not elimination.
    weights = np.linalg.lstsq(system, np.append(with_target, 1), rcond=None)[0][:-1]
    norm = _inner(target.step, target.exponent, target.step, target.exponent)
    left = norm - 2 * weights @ with_target + weights @ gram @ weights
    return weights, float(np.sqrt(max(left, 0.0) / norm))


def _inner(step, exponent, other_step, other_exponent):
    """Equation (4)."""
    power = np.where(step < other_step, other_exponent, -exponent)
    top = (exponent + 1) * (other_exponent + 1) * (step / other_step) ** power
    return top / ((exponent + other_exponent + 1) * np.maximum(step, other_step))


def weighted_sum(weights: Iterable[float], trees: Iterable[Tree]) -> Tree:
    """sum_i weights_i trees_i, one tree at a time, in the trees' own types."""
    total = None
    for weight, tree in zip(weights, trees, strict=True):
        part = jax.tree.map(lambda leaf, w=weight: (w * leaf).astype(leaf.dtype), tree)
        total = part if total is None else jax.tree.map(jnp.add, total, part)
    return total
