"""Hierarchical variational autoencoders: latents z_1, z_2, ... z_N, each drawn given those before.

    (1) p(z) = prod_n p(z_n | z_<n),   q(z | x) = prod_n q(z_n | z_<n, x)   (Sonderby et al. 2016)
    (2) -log p(x) <= E_q[-log p(x | z)] + sum_n E_q KL(q(z_n | z_<n, x) || p(z_n | z_<n))
                     distortion           rate                               (Child 2021)
    (3) -log p(x) <= -E log 1/K sum_k w_k,   w = p(x | z_k) p(z_k) / q(z_k | x)
                                                                             (Burda et al. 2016)
    (4) loss = distortion + beta rate, in nats per dimension, where beta rises evenly from 0 to 1
        over `warmup_steps`; without a warm-up the loss is (2)

All of these laws are Gaussians of independent numbers, so each divergence in (2) has a closed form
given the latents before it, and one draw of these estimates the sum without bias. The network is
one like `networks/vdvae.py`, the law of x given z one of `losses/observation.py`.
"""

import functools
import itertools
import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from gen_jax.errors import InputError
from gen_jax.losses import likelihood
from gen_jax.losses.observation import Observation, with_extra
from gen_jax.methods.bounds import (
    check_draws,
    estimators,
    log_mean_exp,
    rise,
    shown,
)
from gen_jax.methods.method import Codec, Method, Phase, check_label, check_numbers, check_players
from gen_jax.types import Array, Batch, DataSpec, Key

# A channel of latents that says more than so many nats of an example is active.
ACTIVE = 0.01


def hierarchical_vae(
    networks: Mapping[str, Callable],
    spec: DataSpec,
    observation: Observation,
    *,
    latent_channels: int = 16,
    class_conditional: bool = False,
    warmup_steps: int = 0,
) -> Method:
    """A hierarchical variational autoencoder of data of this `spec`.

    Args:
      networks: `{'autoencoder': factory}`; see `networks/vdvae.py`.
      spec: of the data; its classes where `class_conditional`.
      observation: the law of x given z.
      latent_channels: numbers of z at each pixel of each block.
      class_conditional: whether the network is told the label.
      warmup_steps: of (4).

    Raises:
      InputError: options that do not go together, or a network of another kind.
    """
    check_numbers(spec)
    if class_conditional and spec.num_classes is None:
        raise InputError('method.class_conditional: this data has no labels; set it to False')
    if latent_channels < 1:
        raise InputError(f'method.latent_channels: {latent_channels} must be at least 1')
    if warmup_steps < 0:
        raise InputError(f'method.warmup_steps: {warmup_steps} must be at least 0')
    check_players(networks, ('autoencoder',))
    num_classes = spec.num_classes if class_conditional else None
    network = networks['autoencoder'](
        shape=spec.shape,
        latent_channels=latent_channels,
        out_channels=observation.out_channels,
        num_classes=num_classes,
    )
    if not hasattr(network, 'latent_shapes'):
        raise InputError(
            "networks.autoencoder.name: this network has no hierarchy of latents; use 'vdvae.VDVAE'"
        )
    model = Model(network, observation, spec, num_classes)
    return Method(
        init=functools.partial(_init, model),
        phases=(Phase('autoencoder', functools.partial(_loss, model, warmup_steps)),),
        sample=functools.partial(_sample, model),
        evaluate=functools.partial(_evaluate, model),
        estimators=estimators_of(model),
        averaged=('autoencoder',),
        num_classes=num_classes,
        nfe=lambda **options: 1,
        codec=codec_of(model),
    )


class Model(NamedTuple):
    """The network and what its answers mean; parameters come and go as arguments.

    The player's parameters are those of `network`, and of the `observation` where it has any.
    """

    network: nn.Module
    observation: Observation
    spec: DataSpec
    num_classes: int | None  # None: the network is told no labels

    def label(self, cond: Array | None) -> Array | None:
        """Labels as the network takes them."""
        return None if self.num_classes is None else cond

    def apply(self, params: Mapping, *arguments, **options):
        """What the network answers."""
        own = {'params': params['autoencoder']['network']}
        return self.network.apply(own, *arguments, **options)

    def law(self, params: Mapping, parameters: Array) -> Array:
        """The numbers of p(x | z), from those that the network says."""
        return with_extra(parameters, params['autoencoder'].get('observation'))

    def decode(self, params: Mapping, z: Array, cond: Array | None) -> Array:
        """The numbers of p(x | z) for latents `[B, D]`."""
        latents = self.split(z)
        parameters = self.apply(params, latents, self.label(cond), method='decode')
        return self.law(params, parameters)

    def split(self, z: Array) -> tuple[Array, ...]:
        """Latents `[B, D]` block by block: `[B, R, R, latent_channels]` each."""
        shapes = self.network.latent_shapes
        ends = itertools.accumulate(math.prod(shape) for shape in shapes)
        parts = jnp.split(z, list(ends)[:-1], -1)
        return tuple(
            part.reshape(len(z), *shape) for part, shape in zip(parts, shapes, strict=True)
        )


def _init(model: Model, key: Key, batch: Batch) -> tuple[dict, dict]:
    x = jnp.zeros_like(batch['x'])
    label = model.label(jnp.zeros(len(x), jnp.int32))
    own = {'network': model.network.init(key, x, label, train=False)['params']}
    if model.observation.num_extra:
        own['observation'] = jnp.zeros(model.observation.num_extra)
    return {'autoencoder': own}, {}


def _loss(
    model: Model, warmup_steps: int, params: Mapping, state, batch: Batch, key: Key
) -> tuple[Array, tuple[dict, dict]]:
    noise_key, dropout_key = jax.random.split(key)
    x, label = batch['x'], model.label(batch.get('label'))
    rngs = {'dropout': dropout_key}
    answer = model.apply(params, x, label, noise_key, train=True, rngs=rngs)
    law = model.law(params, answer.parameters)
    distortion = -jnp.mean(model.observation.log_prob(x, law))
    rate = jnp.mean(answer.rates.sum((0, 2)))
    nats = distortion + rise(state.step, warmup_steps) * rate
    loss = nats / math.prod(model.spec.shape)
    return loss, (state.model_state, {'loss': loss, 'rate': rate, 'distortion': distortion})


def _evaluate(
    model: Model,
    params: Mapping,
    model_state: Mapping,
    batch: Batch,
    key: Key,
    *,
    num_samples: int = 1,
    chunk: int = 10,
) -> dict[str, Array]:
    """`num_samples` is K of (3), and `chunk` how many of these are computed at once."""
    chunk = check_draws(num_samples, chunk)
    x, label = batch['x'], model.label(batch.get('label'))
    seen = model.apply(params, x, label, train=False, method='look')

    def one(number: Array) -> tuple[Array, Array, Array]:
        """Of one draw: the log of its weight, its distortion, and its rates `[N, B, C]`."""
        noise_key = jax.random.fold_in(key, number)
        answer = model.apply(params, seen, label, noise_key, train=False, method='infer')
        law = model.law(params, answer.parameters)
        log_likelihood = model.observation.log_prob(x, law)
        return log_likelihood - answer.log_ratio.sum(0), -log_likelihood, answer.rates

    def some(numbers: Array) -> tuple[Array, Array, Array]:
        """Of one chunk: the log of the mean weight, and the means of distortion and rates."""
        log_weights, distortion, rates = jax.vmap(one)(numbers)
        return log_mean_exp(log_weights), distortion.mean(0), rates.mean(0)

    log_weight, distortion, rates = jax.lax.map(some, jnp.arange(num_samples).reshape(-1, chunk))
    distortion, rates = distortion.mean(0), rates.mean(0)
    rate = rates.sum((0, 2))
    elbo = distortion + rate
    nats = elbo if num_samples == 1 else -log_mean_exp(log_weight)
    return {
        'loss': elbo / math.prod(model.spec.shape),
        **likelihood.of_data(nats, model.spec, model.observation.is_mass),
        'rate': rate,
        'distortion': distortion,
        **_rates_by_resolution(model, rates.sum(2)),
        'active_channels': (rates > ACTIVE).sum((0, 2)).astype(jnp.float32),
    }


def _rates_by_resolution(model: Model, rates: Array) -> dict[str, Array]:
    """`rate_<R>x<R>`, the sums of the rates `[N, B]` of the blocks of each resolution."""
    resolutions = model.network.resolutions
    return {
        f'rate_{r}x{r}': sum(rates[n] for n, own in enumerate(resolutions) if own == r)
        for r in dict.fromkeys(resolutions)
    }


def _sample(
    model: Model,
    params: Mapping,
    model_state: Mapping,
    key: Key,
    num: int,
    *,
    cond: Array | None = None,
    temperature: float = 1.0,
    output: str = 'mean',
) -> Array:
    """`temperature` multiplies the deviation of every latent number given those before; `output` is
    what is shown for z: the 'mean' of p(x | z), or a 'sample' of it."""
    check_label(cond, model.num_classes)
    if not temperature >= 0:
        raise InputError(f'temperature: {temperature} must be at least 0')
    latent_key, output_key = jax.random.split(key)
    parameters = model.apply(
        params, latent_key, num, cond, temperature=temperature, method='generate'
    )
    return shown(model.observation, model.law(params, parameters), output, output_key)


def codec_of(model: Model) -> Codec:
    """How the model turns examples into latents, all blocks' in one vector, and back.

    The mean of q is that of each block given the means of those before.
    """
    size = sum(math.prod(shape) for shape in model.network.latent_shapes)

    def infer(params, x, key, cond):
        answer = model.apply(params, x, model.label(cond), key, train=False)
        z = jnp.concatenate([z.reshape(len(x), -1) for z in answer.latents], -1)
        return z, answer.log_q.sum(0)

    def encode(params, model_state, x, *, cond=None):
        return infer(params, x, None, cond)[0]

    def draw(params, model_state, x, key, *, cond=None):
        return infer(params, x, key, cond)

    def decode(params, model_state, z, *, cond=None):
        return model.observation.mean(model.decode(params, z, cond))

    def log_prob(params, model_state, x, z, *, cond=None):
        return model.observation.log_prob(x, model.decode(params, z, cond))

    return Codec(
        DataSpec((size,), bounded=False),
        encode,
        draw,
        decode,
        log_prob,
        model.observation.is_mass,
        model.num_classes,
    )


def estimators_of(model: Model) -> dict[str, str]:
    """What each number of `evaluate` is."""
    conditional = model.num_classes is not None
    found = estimators(model.spec, model.observation, class_conditional=conditional)
    parts = {
        f'rate_{r}x{r}': f'{found["rate"]}; of the blocks of {r} x {r} pixels'
        for r in model.network.resolutions
    }
    active = f'estimate (channels of latents, over all blocks, of KL(q || p) above {ACTIVE} nats '
    return {**found, **parts, 'active_channels': f'{active}for an example)'}
