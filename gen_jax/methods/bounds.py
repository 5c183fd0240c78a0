"""What variational autoencoders of every kind share: bounds on -log p(x), and what is shown of z.

    (1) -log p(x) <= E_q[-log p(x | z)] + KL(q(z | x) || p(z))      (Kingma & Welling 2014)
    (2) -log p(x) <= -E log 1/K sum_k w_k,   w = p(x | z_k) p(z_k) / q(z_k | x)
                                                                     (Burda et al. 2016)

The two parts of (1) are the distortion and the rate.
"""

import math

import jax
import jax.numpy as jnp

from gen_jax.errors import InputError
from gen_jax.losses.observation import Observation
from gen_jax.types import Array, DataSpec, Key

OUTPUTS = ('mean', 'sample')


def rise(step: Array, warmup_steps: int) -> Array:
    """How far `step` lies in a warm-up, up to 1."""
    return jnp.minimum(1.0, (step + 1) / max(warmup_steps, 1))


def log_mean_exp(log_weights: Array) -> Array:
    """Of `[K, B]` the log of the mean weight: `[B]`."""
    return jax.nn.logsumexp(log_weights, 0) - math.log(len(log_weights))


def check_draws(num_samples: int, chunk: int) -> int:
    """How many of the K draws of (2) to take at once.

    Raises:
      InputError: `num_samples` is no multiple of it.
    """
    if num_samples < 1 or chunk < 1 or num_samples % min(chunk, num_samples):
        raise InputError(
            f'num_samples: {num_samples} draws cannot be taken {chunk} at a time; use a multiple'
        )
    return min(chunk, num_samples)


def shown(observation: Observation, parameters: Array, output: str, key: Key) -> Array:
    """The 'mean' of p(x | z), or a 'sample' of it.

    Raises:
      InputError: any other `output`.
    """
    if output not in OUTPUTS:
        raise InputError(f'output: no {output!r}; choose from {", ".join(OUTPUTS)}')
    if output == 'mean':
        return observation.mean(parameters)
    return observation.sample(key, parameters)


def kind_of_data(spec: DataSpec, observation: Observation) -> str:
    """What a likelihood is of, for the name of its estimator."""
    if spec.dequantized:
        return 'of uniformly dequantized data'
    return 'of the data' if observation.is_mass else 'of the data, a density'


def estimators(
    spec: DataSpec, observation: Observation, *, class_conditional: bool
) -> dict[str, str]:
    """What each of the bounds is, and their parts."""
    p = 'p(x | label)' if class_conditional else 'p(x)'
    draws = 'importance-weighted, of num_samples draws; the variational bound where that is 1'
    what = kind_of_data(spec, observation)
    part = f'part of the variational upper bound on -log {p}'
    found = {
        'loss': f'upper bound on -log {p} (variational, nats per dimension), {what}',
        'nats': f'upper bound on -log {p} ({draws}; nats per example), {what}',
        'rate': f'{part}: KL(q(z | x) || p(z)), nats per example',
        'distortion': f'{part}: -log p(x | z), nats per example',
    }
    if observation.is_mass or spec.dequantized:
        found['bits_per_dim'] = f'upper bound on -log2 {p} ({draws}), {what}'
    else:
        found['nats_per_dim'] = f'upper bound on -log {p} ({draws}), {what}'
    return found
