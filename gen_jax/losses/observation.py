"""Observation models p(x | z): what a decoder's numbers say of data. No networks here.

A decoder answers with `num_parameters` numbers for every channel of every pixel (or for every
number of a vector), parameter after parameter along the last axis. With mu the first of them:

    (1) bernoulli         x is black or white, log p = x1 log S(mu) + x0 log S(-mu)
    (2) gaussian          N(mu, sigma^2), sigma one number, given or learned  (Rybkin et al. 2021)
    (3) gaussian_of_each  N(mu, exp(s)), s of each pixel                (Kingma & Welling 2014)
    (4) logistic          the mass of a logistic in the bin of a level  (Kingma et al. 2016)
    (5) logistic_mixture  of several, whose channels depend on those before
                                                                        (Salimans et al. 2017)
    (6) categorical       softmax over the levels                       (van den Oord et al. 2016)

(1), (4), (5) and (6) give the mass of levels, so that a bound is one on discrete data; (2) and (3)
are densities, which say something of discrete data only where it is dequantized.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gen_jax.errors import InputError
from gen_jax.losses import likelihood
from gen_jax.losses import logistic_mixture as mixture
from gen_jax.types import Array, DataSpec, Key

# Of learned log deviations, where data lies in [-1, 1]: from a hundredth of an 8-bit level up.
_LOG_SIGMA_LIMITS = (-10.0, 3.0)


class Observation(NamedTuple):
    """What is needed of a law.

    out_channels: numbers that the decoder says for each pixel, or in all for a vector.
    log_prob: `(x [B, ...], parameters [B, ..., out_channels]) -> [B]` nats.
    mean: `parameters -> [B, ...]`, what is shown for an image: its mean, or of (5) and (6) the
      likeliest level.
    sample: `(key, parameters) -> [B, ...]`.
    is_mass: whether `log_prob` is of discrete levels, or else a density.
    num_extra: trained numbers besides those of the network: `parameters` then has so many channels
      more, the same for all pixels; see `with_extra`.
    is_smooth: whether `mean` has a gradient, or else takes the likeliest level.
    """

    out_channels: int
    log_prob: Callable[[Array, Array], Array]
    mean: Callable[[Array], Array]
    sample: Callable[[Key, Array], Array]
    is_mass: bool
    num_extra: int = 0
    is_smooth: bool = True


def with_extra(answer: Array, extra: Array | None) -> Array:
    """A decoder's answer `[B, ..., out_channels]` with the trained numbers `[num_extra]` of a law;
    None where it has none."""
    if extra is None:
        return answer
    extra = jnp.broadcast_to(extra, (*answer.shape[:-1], len(extra)))
    return jnp.concatenate([answer, extra], -1)


def bernoulli(spec: DataSpec) -> Observation:
    """Equation (1).

    Raises:
      InputError: data of other than two levels.
    """
    if spec.levels != 2 or spec.dequantized:
        raise InputError(
            f'name: bernoulli is for two levels, and this data has {spec.levels}; '
            "set data.binarize, or use 'observation.logistic'"
        )

    def log_prob(x: Array, logits: Array) -> Array:
        return likelihood.sum_per_example(jax.nn.log_sigmoid(logits * x))

    def sample(key: Key, logits: Array) -> Array:
        return jax.random.bernoulli(key, jax.nn.sigmoid(logits)).astype(jnp.float32) * 2 - 1

    # x is -1 or 1, and so the mean is 2 S(mu) - 1.
    return Observation(spec.shape[-1], log_prob, lambda mu: jnp.tanh(mu / 2), sample, True)


def gaussian(spec: DataSpec, sigma: float | None = None) -> Observation:
    """Equation (2); `sigma` None learns one deviation for all.

    Raises:
      InputError: `sigma` is not above 0, or is to be learned of data on levels.
    """
    if sigma is None:
        _check_density(spec, 'gaussian without a sigma')
    if sigma is not None and not sigma > 0:
        raise InputError(f'sigma: {sigma} must be above 0, or None')
    channels = spec.shape[-1]

    def split(parameters: Array) -> tuple[Array, Array]:
        mean = parameters[..., :channels]
        if sigma is not None:
            return mean, jnp.float32(math.log(sigma))
        return mean, jnp.clip(parameters[..., channels:], *_LOG_SIGMA_LIMITS)

    return _gaussian(split, channels, num_extra=int(sigma is None))


def gaussian_of_each(spec: DataSpec) -> Observation:
    """Equation (3).

    Raises:
      InputError: data on levels.
    """
    _check_density(spec, 'gaussian_of_each')
    channels = spec.shape[-1]

    def split(parameters: Array) -> tuple[Array, Array]:
        return parameters[..., :channels], jnp.clip(
            parameters[..., channels:] / 2, *_LOG_SIGMA_LIMITS
        )

    return _gaussian(split, 2 * channels)


def _gaussian(split: Callable, out_channels: int, num_extra: int = 0) -> Observation:
    def log_prob(x: Array, parameters: Array) -> Array:
        mean, log_sigma = split(parameters)
        log_sigma = jnp.broadcast_to(log_sigma, x.shape)
        scaled = (x - mean) * jnp.exp(-log_sigma)
        nats = 0.5 * scaled**2 + log_sigma + 0.5 * math.log(2 * math.pi)
        return -likelihood.sum_per_example(nats)

    def sample(key: Key, parameters: Array) -> Array:
        mean, log_sigma = split(parameters)
        return mean + jnp.exp(log_sigma) * jax.random.normal(key, mean.shape)

    def mean_of(parameters: Array) -> Array:
        return split(parameters)[0]

    return Observation(out_channels, log_prob, mean_of, sample, False, num_extra)


def logistic(spec: DataSpec) -> Observation:
    """Equation (4), of each channel alone, with a scale of its own.

    Raises:
      InputError: data without levels, or dequantized.
    """
    levels, channels = _levels(spec, 'logistic'), spec.shape[-1]

    def components(parameters: Array) -> Array:
        """The channels as pixels of one channel and one component, whose weight is one."""
        mean, log_scale = jnp.split(parameters, 2, -1)
        return jnp.stack([jnp.zeros_like(mean), mean, log_scale], -1)[..., None, :]

    def log_prob(x: Array, parameters: Array) -> Array:
        return mixture.log_mass(x[..., None], components(parameters), levels)

    def sample(key: Key, parameters: Array) -> Array:
        law = components(parameters)
        return mixture.sample(key, law, channels=1, levels=levels)[..., 0]

    def mean(parameters: Array) -> Array:
        return jnp.clip(parameters[..., :channels], -1, 1)

    return Observation(2 * channels, log_prob, mean, sample, True)


def logistic_mixture(spec: DataSpec, num_mixtures: int = 10) -> Observation:
    """Equation (5).

    Raises:
      InputError: data without levels, or dequantized; no component.
    """
    if num_mixtures < 1:
        raise InputError(f'num_mixtures: {num_mixtures} must be at least 1')
    levels, channels = _levels(spec, 'logistic_mixture'), spec.shape[-1]
    size = mixture.num_parameters(channels)

    def law(parameters: Array) -> Array:
        return parameters.reshape(*parameters.shape[:-1], num_mixtures, size)

    def log_prob(x: Array, parameters: Array) -> Array:
        return mixture.log_mass(x, law(parameters), levels)

    def sample(key: Key, parameters: Array, temperature: float = 1.0) -> Array:
        options = {'channels': channels, 'levels': levels, 'temperature': temperature}
        return mixture.sample(key, law(parameters), **options)

    def mean(parameters: Array) -> Array:
        # Nearly without noise: the mean of the heaviest component.
        return sample(jax.random.key(0), parameters, temperature=1e-4)

    return Observation(num_mixtures * size, log_prob, mean, sample, True, is_smooth=False)


def categorical(spec: DataSpec) -> Observation:
    """Equation (6).

    Raises:
      InputError: data without levels, or dequantized.
    """
    levels, channels = _levels(spec, 'categorical'), spec.shape[-1]

    def logits_of(parameters: Array) -> Array:
        return parameters.reshape(*parameters.shape[:-1], channels, levels)

    def log_prob(x: Array, parameters: Array) -> Array:
        level = jnp.rint((x + 1) / 2 * (levels - 1)).astype(jnp.int32)
        nats = likelihood.categorical_nats(logits_of(parameters), level)
        return -likelihood.sum_per_example(nats)

    def value(level: Array) -> Array:
        return level.astype(jnp.float32) / (levels - 1) * 2 - 1

    def sample(key: Key, parameters: Array) -> Array:
        return value(jax.random.categorical(key, logits_of(parameters)))

    def mean(parameters: Array) -> Array:
        return value(jnp.argmax(logits_of(parameters), -1))

    return Observation(channels * levels, log_prob, mean, sample, True, is_smooth=False)


def _levels(spec: DataSpec, name: str) -> int:
    if spec.levels is None or spec.dequantized:
        raise InputError(
            f'name: {name} is for data of levels, and this is continuous; use '
            "'observation.gaussian'" + ', or set data.dequantize to False' * spec.dequantized
        )
    return spec.levels


def _check_density(spec: DataSpec, name: str) -> None:
    """Raises InputError for data on levels: a density that learns its width grows without end
    there."""
    if spec.levels is not None and not spec.dequantized:
        raise InputError(
            f'name: {name} learns a width, and this data lies on {spec.levels} levels, where a '
            "density has no bound; use 'observation.logistic', or set data.dequantize to True"
        )
