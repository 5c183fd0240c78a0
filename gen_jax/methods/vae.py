"""Variational autoencoders: an encoder q(z | x), a prior p(z) and a decoder p(x | z).

    (1) -log p(x) <= E_q[-log p(x | z)] + KL(q(z | x) || p(z))      (Kingma & Welling 2014)
                     distortion           rate
    (2) -log p(x) <= -E log 1/K sum_k w_k,   w = p(x | z_k) p(z_k) / q(z_k | x)
                                                                     (Burda et al. 2016, IWAE)

q is in `vae_model.py`. What is made small is in `objective.py`, and may be (2) itself. The prior is
one of `networks/priors.py`, a flow one of `networks/flows.py`, the law of x given z one of
`losses/observation.py`.
"""

import functools
import math
from collections.abc import Callable, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from gen_jax.errors import InputError
from gen_jax.losses import likelihood
from gen_jax.losses.observation import Observation
from gen_jax.methods import bounds, importance_weighted
from gen_jax.methods.bounds import log_mean_exp
from gen_jax.methods.latent_shape import latent_shape_of
from gen_jax.methods.method import (
    ActiveUnits,
    Codec,
    Method,
    Phase,
    check_label,
    check_numbers,
    check_players,
)
from gen_jax.methods.objective import Objective
from gen_jax.methods.vae_model import Model
from gen_jax.networks.priors import Normal, Vamp
from gen_jax.types import Array, Batch, DataSpec, Key


def vae(
    networks: Mapping[str, Callable],
    spec: DataSpec,
    observation: Observation,
    *,
    latent_channels: int = 16,
    prior: nn.Module | None = None,
    posterior: nn.Module | None = None,
    class_conditional: bool = False,
    beta: float = 1.0,
    warmup_steps: int = 0,
    free_bits: float = 0.0,
    capacity: float | None = None,
    gradient: str = 'elbo',
    num_samples: int = 1,
    gradient_draws: int | None = None,
) -> Method:
    """A variational autoencoder of data of this `spec`.

    Args:
      networks: `{'autoencoder': factory}`; see `networks/autoencoder.py`.
      spec: of the data; its classes where `class_conditional`.
      observation: the law of x given z.
      latent_channels: numbers of z, at each place where the code is a map.
      prior: None for N(0, I).
      posterior: a flow that z goes through, told of x by the encoder; None for none.
      class_conditional: whether encoder and decoder are told the label.
      beta: of `objective.py`; the weight of log p(z) - log q(z | x) in (2).
      warmup_steps: steps over which beta, or the capacity, rises.
      free_bits: nats of each latent number that cost the same as none.
      capacity: nats that C rises to; None for no such term.
      gradient: 'elbo' of (1), 'iwae' of (2), or 'dreg', another estimate of that.
      num_samples: K in training; of 'elbo' that of draws to average over.
      gradient_draws: how many of the K, chosen by their weights, the gradient of (2) is of; None
        for all. With dropout the gradient is biased: the weights have other units dropped.

    Raises:
      InputError: options that do not go together, or a network of another kind.
    """
    prior = Normal() if prior is None else prior
    _check(networks, spec, latent_channels, prior, class_conditional)
    num_classes = spec.num_classes if class_conditional else None
    network = networks['autoencoder'](
        shape=spec.shape,
        code_channels=latent_channels * (2 if posterior is None else 3),
        latent_channels=latent_channels,
        out_channels=observation.out_channels,
        num_classes=num_classes,
    )
    latent_shape = latent_shape_of(network, spec, num_classes, latent_channels)
    model = Model(network, prior, posterior, observation, spec, num_classes, latent_shape)
    target = Objective(
        beta, warmup_steps, free_bits, capacity, gradient, num_samples, gradient_draws
    )
    target.check(model.has_closed_rate, posterior is not None)
    return Method(
        init=functools.partial(init, model),
        phases=(Phase('autoencoder', functools.partial(_loss, model, target)),),
        sample=functools.partial(sample, model),
        evaluate=functools.partial(_evaluate, model),
        estimators=estimators(model),
        averaged=('autoencoder',),
        num_classes=num_classes,
        nfe=lambda **options: 1,
        codec=codec_of(model),
    )


def _check(
    networks: Mapping[str, Callable],
    spec: DataSpec,
    latent_channels: int,
    prior: nn.Module,
    class_conditional: bool,
) -> None:
    """Raises InputError for options that do not go together."""
    check_numbers(spec)
    if class_conditional and spec.num_classes is None:
        raise InputError('method.class_conditional: this data has no labels; set it to False')
    if latent_channels < 1:
        raise InputError(f'method.latent_channels: {latent_channels} must be at least 1')
    check_players(networks, ('autoencoder',))
    if class_conditional and isinstance(prior, Vamp):
        raise InputError(
            'method.prior: pseudo-inputs have no label; set class_conditional to False'
        )


def init(model: Model, key: Key, batch: Batch) -> tuple[dict, dict]:
    """Parameters and model state, as `Method.init`."""
    x = jnp.zeros_like(batch['x'])
    label = model.label(jnp.zeros(len(x), jnp.int32))
    keys = jax.random.split(key, 3)
    own = {'network': model.network.init(keys[0], x, label, train=False)['params']}
    z = jnp.zeros((1, len(x), math.prod(model.latent_shape)))
    if model.posterior is not None:
        own['posterior'] = model.posterior.init(keys[1], z, z[0])['params']
    posterior = model.pseudo_posterior({'autoencoder': own})
    of_prior = model.prior.init(keys[2], z, posterior)
    if 'params' in of_prior:
        own['prior'] = of_prior['params']
    if model.observation.num_extra:
        own['observation'] = jnp.zeros(model.observation.num_extra)
    return {'autoencoder': own}, {}


def _loss(
    model: Model, target: Objective, params: Mapping, state, batch: Batch, key: Key
) -> tuple[Array, tuple[dict, dict]]:
    noise_key, encoder_key, decoder_key, choice_key = jax.random.split(key, 4)
    x, label = batch['x'], model.label(batch.get('label'))
    q = model.encode(params, x, label, train=True, rngs={'dropout': encoder_key})
    eps = jax.random.normal(noise_key, (target.num_samples, *q.mean.shape))
    of_each = model.rate_of_each(q) if model.has_closed_rate else None

    def log_likelihood(params: Mapping, z: Array) -> Array:
        options = {'train': True, 'rngs': {'dropout': decoder_key}}
        return model.log_likelihood(params, x, z, label, **options)

    if target.gradient == 'elbo':
        z, log_q = model.draw(params, q, eps)
        log_p, log_ratio = log_likelihood(params, z), log_q - model.log_prior(params, z)
        rate = log_ratio.mean(0) if of_each is None else of_each.sum(1)
        nats = target.weighted_rate(rate, of_each, state.step) - jnp.mean(log_p)
    else:
        weigh = importance_weighted.weigh
        if target.gradient_draws is not None:
            weigh = functools.partial(
                importance_weighted.weigh_and_resample, key=choice_key, num=target.gradient_draws
            )
        beta = target.beta * target.rise(state.step)
        draws = importance_weighted.Draws(model, log_likelihood, q, eps, beta)
        bound, log_p, log_ratio = weigh(draws, params, doubly=target.gradient == 'dreg')
        rate = log_ratio.mean(0) if of_each is None else of_each.sum(1)
        nats = -jnp.mean(bound)
    loss = nats / math.prod(model.spec.shape)
    values = {'loss': loss, 'rate': jnp.mean(rate), 'distortion': -jnp.mean(log_p)}
    return loss, (state.model_state, values)


def _evaluate(
    model: Model,
    params: Mapping,
    model_state: Mapping,
    batch: Batch,
    key: Key,
    *,
    num_samples: int = 1,
    chunk: int = 50,
) -> dict[str, Array | ActiveUnits]:
    """`num_samples` is K of (2), and `chunk` how many of these are computed at once."""
    chunk = bounds.check_draws(num_samples, chunk)
    x, label = batch['x'], model.label(batch.get('label'))
    q = model.encode(params, x, label, train=False)

    def some(number: Array) -> tuple[Array, Array, Array]:
        """Of one chunk: the log of the mean weight, and the means of distortion and rate."""
        eps = jax.random.normal(jax.random.fold_in(key, number), (chunk, *q.mean.shape))
        z, log_q = model.draw(params, q, eps)
        log_likelihood = model.log_likelihood(params, x, z, label, train=False)
        log_ratio = log_q - model.log_prior(params, z)
        log_weight = log_mean_exp(log_likelihood - log_ratio)
        return log_weight, -log_likelihood.mean(0), log_ratio.mean(0)

    log_weight, distortion, rate = jax.lax.map(some, jnp.arange(num_samples // chunk))
    distortion, rate = distortion.mean(0), rate.mean(0)
    if model.has_closed_rate:
        rate = model.rate_of_each(q).sum(1)
    elbo = distortion + rate
    nats = elbo if num_samples == 1 else -log_mean_exp(log_weight)
    return {
        'loss': elbo / math.prod(model.spec.shape),
        **likelihood.of_data(nats, model.spec, model.observation.is_mass),
        'rate': rate,
        'distortion': distortion,
        'active_units': ActiveUnits(q.mean.reshape(len(x), -1)),
    }


def sample(
    model: Model,
    params: Mapping,
    model_state: Mapping,
    key: Key,
    num: int,
    *,
    cond: Array | None = None,
    output: str = 'mean',
) -> Array:
    """`output` is what is shown for z: the 'mean' of p(x | z), or a 'sample' of it."""
    check_label(cond, model.num_classes)
    latent_key, output_key = jax.random.split(key)
    z = model.draw_prior(params, latent_key, num)
    parameters = model.decode(params, z, cond, train=False)
    return bounds.shown(model.observation, parameters, output, output_key)


def codec_of(model: Model) -> Codec:
    """How the model turns examples into latents and back."""

    def encode(params, model_state, x, *, cond=None):
        q = model.encode(params, x, cond, train=False)
        return q.mean if model.posterior is None else model.flow(params, q, q.mean[None])[0][0]

    def draw(params, model_state, x, key, *, cond=None):
        q = model.encode(params, x, cond, train=False)
        z, log_q = model.draw(params, q, jax.random.normal(key, (1, *q.mean.shape)))
        return z[0], log_q[0]

    def decode(params, model_state, z, *, cond=None):
        return model.observation.mean(model.decode(params, z, cond, train=False))

    def log_prob(params, model_state, x, z, *, cond=None):
        return model.log_likelihood(params, x, z[None], cond, train=False)[0]

    return Codec(
        DataSpec(model.latent_shape, bounded=False),
        encode,
        draw,
        decode,
        log_prob,
        model.observation.is_mass,
        model.num_classes,
    )


def estimators(model: Model) -> dict[str, str]:
    """What each number of `evaluate` is."""
    conditional = model.num_classes is not None
    return {
        **bounds.estimators(model.spec, model.observation, class_conditional=conditional),
        'active_units': 'estimate (variance over these examples of the mean of q above 0.01)',
    }
