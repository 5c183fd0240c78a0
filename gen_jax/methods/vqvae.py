"""Vector-quantized autoencoders: an encoder, a quantizer, and a decoder p(x | e) of its vectors.

    (1) z = encode(x), e = quantize(z): each vector of z becomes one that has a number, its code;
        the gradient of e is that of z                       (van den Oord et al. 2017, VQ-VAE)
    (2) loss = -log p(x | e) / D + what the quantizer asks of z,   D the numbers of x
    (3) loss = (2) + a w G,   G what a discriminator says of the mean of p(x | e), w the adversarial
        weight from step `adversarial_start` on, before that 0      (Esser et al. 2021, VQ-GAN)
    (4) a = |d (-log p / D) / d l| / |d G / d l|,   l the decoder's last layer; or a = 1

The discriminator, which learns from the first step on, has a phase of its own. Here (3) is without
the paper's perceptual term, which needs a network that was trained on labels.

The quantizer is one of `quantizers/`, the law of x given e one of `losses/observation.py`; what a
quantizer learns besides the gradient, its codebook, is the player's part of `model_state`. Nothing
says which codes are likely, so there are no samples and no likelihood of x, which takes a second
stage: `latent.py` with a model of the codes, or of the vectors z, which (1) then quantizes.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from gen_jax.errors import InputError
from gen_jax.losses import likelihood
from gen_jax.losses.adversarial import Adversarial
from gen_jax.losses.observation import Observation, with_extra
from gen_jax.methods.latent_shape import latent_shape_of
from gen_jax.methods.method import (
    Codec,
    CodePerplexity,
    CodeUsage,
    Column,
    Method,
    Phase,
    check_numbers,
    check_players,
)
from gen_jax.quantizers.quantizer import Quantized, Quantizer
from gen_jax.types import Array, Batch, DataSpec, Key, Tree

PLAYER, CRITIC = 'autoencoder', 'discriminator'
# Of (4), in the authors' code.
_LARGEST_RATIO = 1e4
# Of the squared error of images that come back exactly; 100 decibels.
_SMALLEST_ERROR = 1e-10


def vqvae(
    networks: Mapping[str, Callable],
    spec: DataSpec,
    observation: Observation,
    quantizer: Quantizer,
    *,
    adversarial: Adversarial | None = None,
    adversarial_weight: float = 1.0,
    adversarial_start: int = 0,
    adaptive_weight: bool = True,
) -> Method:
    """A vector-quantized autoencoder of data of this `spec`; it draws no samples.

    Args:
      networks: `{'autoencoder': factory}`, see `networks/autoencoder.py`, and for (3)
        `'discriminator'`, called as `(x, train=)`; see `networks/discriminator.py`.
      spec: of the data.
      observation: the law of x given e.
      quantizer: its channels are those of the code at each place.
      adversarial: the game of (3). It and what follows are of no use without a discriminator, which
        a first stage has no more when its latents are modeled.
      adversarial_weight: w of (3).
      adversarial_start: of (3).
      adaptive_weight: whether a is (4), or else 1.

    Raises:
      InputError: options that do not go together, or a network of another kind.
    """
    check_numbers(spec)
    check_players(networks, (PLAYER, CRITIC) if CRITIC in networks else (PLAYER,))
    network = networks[PLAYER](
        shape=spec.shape,
        code_channels=quantizer.channels,
        latent_channels=quantizer.channels,
        out_channels=observation.out_channels,
        num_classes=None,
    )
    shape = latent_shape_of(network, spec, None, quantizer.channels)
    model = Model(network, quantizer, observation, spec, shape)
    critic = None
    if CRITIC in networks:
        options = (adversarial, adversarial_weight, adversarial_start, adaptive_weight)
        critic = Critic(networks[CRITIC](), *options)
        critic.check(model)
    phases = [Phase(PLAYER, functools.partial(_loss, model, critic))]
    if critic is not None:
        phases.append(Phase(CRITIC, functools.partial(_critic_loss, model, critic)))
    return Method(
        init=functools.partial(_init, model, critic),
        phases=tuple(phases),
        sample=None,
        evaluate=functools.partial(_evaluate, model),
        estimators=estimators(model),
        averaged=(PLAYER,),
        codec=codec_of(model),
    )


class Model(NamedTuple):
    """The autoencoder and what its answers mean; parameters come and go as arguments.

    The player's parameters are those of `network`, and where it has any of the `observation`.
    """

    network: nn.Module
    quantizer: Quantizer
    observation: Observation
    spec: DataSpec
    shape: tuple[int, ...]  # of z of one example

    @property
    def num_codes(self) -> int:
        """Codes of one example."""
        return math.prod(self.shape[:-1]) * self.quantizer.depth

    def encode(self, params: Mapping, x: Array, **options) -> Array:
        """z of (1), float32 `[B, *shape]`."""
        own = {'params': params[PLAYER]['network']}
        return self.network.apply(own, x, method='encode', **options)

    def quantize(self, model_state: Mapping, z: Array, key: Key, *, train: bool) -> Quantized:
        """e of (1), with its codes."""
        state = model_state.get(PLAYER, {})
        return self.quantizer.quantize(state, z, key, train=train)

    def decode(self, params: Mapping, e: Array, **options) -> Array:
        """The numbers of p(x | e)."""
        own = params[PLAYER]
        answer = self.network.apply({'params': own['network']}, e, method='decode', **options)
        return with_extra(answer, own.get('observation'))

    def nats(self, x: Array, parameters: Array) -> Array:
        """-log p(x | e) / D: `[B]`."""
        return -self.observation.log_prob(x, parameters) / math.prod(self.spec.shape)

    def vectors(self, model_state: Mapping, tokens: Array) -> Array:
        """e of tokens `[B, num_codes]`: the depth of one place, then the next place."""
        depth = (self.quantizer.depth,) if self.quantizer.depth > 1 else ()
        codes = tokens.reshape(len(tokens), *self.shape[:-1], *depth)
        return self.quantizer.lookup(model_state.get(PLAYER, {}), codes)


class Critic(NamedTuple):
    """The discriminator, and its part of (3)."""

    network: nn.Module
    game: Adversarial | None
    weight: float
    start: int
    is_adaptive: bool

    def check(self, model: Model) -> None:
        """Raises InputError for options that do not go together."""
        if len(model.spec.shape) != 3:
            raise InputError(
                f'networks.discriminator: it is for images, and examples are of shape '
                f'{model.spec.shape}; remove the section'
            )
        if self.game is None:
            raise InputError(
                "method.adversarial: None; a discriminator needs one, name='adversarial.hinge'"
            )
        if self.game.is_relativistic:
            raise InputError(
                'method.adversarial.name: a generator that looks at real examples, which here are '
                "its own input; use 'adversarial.hinge' or 'adversarial.non_saturating'"
            )
        if not self.weight > 0:
            raise InputError(f'method.adversarial_weight: {self.weight} must be above 0')
        if self.start < 0:
            raise InputError(f'method.adversarial_start: {self.start} must be at least 0')
        if not model.observation.is_smooth:
            raise InputError(
                'method.observation.name: a discriminator needs a mean that has a gradient; use '
                "'observation.gaussian' or 'observation.logistic'"
            )

    def answer(self, params: Mapping, x: Array) -> Array:
        """Logits of x."""
        return self.network.apply({'params': params[CRITIC]}, x, train=True)

    def says(self, params: Mapping, x: Array) -> Array:
        """G of (3), the mean over examples x that were made."""
        return jnp.mean(self.game.generator(self.answer(params, x)))


class Reconstruction(NamedTuple):
    """What training makes of a batch: `parameters` of p(x | e), and the `options` of decoding."""

    quantized: Quantized
    parameters: Array
    options: dict


def _init(model: Model, critic: Critic | None, key: Key, batch: Batch) -> tuple[dict, dict]:
    x = jnp.zeros_like(batch['x'])
    keys = jax.random.split(key, 3)
    own = {'network': model.network.init(keys[0], x, train=False)['params']}
    if model.observation.num_extra:
        own['observation'] = jnp.zeros(model.observation.num_extra)
    params = {PLAYER: own}
    if critic is not None:
        params[CRITIC] = critic.network.init(keys[1], x, train=False)['params']
    codebook = model.quantizer.init(keys[2])
    return params, {PLAYER: codebook} if codebook else {}


def _reconstruct(
    model: Model, params: Mapping, model_state: Mapping, x: Array, key: Key
) -> Reconstruction:
    quantize_key, encoder_key, decoder_key = jax.random.split(key, 3)
    z = model.encode(params, x, train=True, rngs={'dropout': encoder_key})
    quantized = model.quantize(model_state, z, quantize_key, train=True)
    options = {'train': True, 'rngs': {'dropout': decoder_key}}
    return Reconstruction(quantized, model.decode(params, quantized.values, **options), options)


def _loss(
    model: Model, critic: Critic | None, params: Mapping, state, batch: Batch, key: Key
) -> tuple[Array, tuple[dict, dict]]:
    """Equations (2) and (3)."""
    x, model_state = batch['x'], state.model_state
    made = _reconstruct(model, params, model_state, x, key)
    nats = jnp.mean(model.nats(x, made.parameters))
    asked = jnp.mean(made.quantized.loss)
    loss = nats + asked
    metrics = {f'code_{name}': value for name, value in made.quantized.metrics.items()}
    metrics |= {'distortion': nats * math.prod(model.spec.shape), 'quantizer_loss': asked}
    if critic is not None:
        says = critic.says(params, model.observation.mean(made.parameters))
        weight = critic.weight * (state.step >= critic.start)
        if critic.is_adaptive:
            weight = weight * _ratio(model, critic, params, x, made)
        loss = loss + weight * says
        metrics |= {'adversarial': says, 'adversarial_weight': weight}
    if PLAYER in model_state:
        model_state = {**model_state, PLAYER: made.quantized.state}
    return loss, (model_state, {'loss': loss, **metrics})


def _ratio(model: Model, critic: Critic, params: Mapping, x: Array, made: Reconstruction) -> Array:
    """Equation (4), which is not differentiated."""
    params, e = jax.lax.stop_gradient((params, made.quantized.values))
    own, last = params[PLAYER], model.network.last_layer

    def parameters_of(layer: Tree) -> Array:
        network = {**own['network'], last: layer}
        return model.decode({PLAYER: {**own, 'network': network}}, e, **made.options)

    parameters, gradient_of_layer = jax.vjp(parameters_of, own['network'][last])

    def size(part: Callable[[Array], Array]) -> Array:
        return optax.tree.norm(gradient_of_layer(jax.grad(part)(parameters)))

    of_nats = size(lambda parameters: jnp.mean(model.nats(x, parameters)))
    of_critic = size(lambda parameters: critic.says(params, model.observation.mean(parameters)))
    return jnp.minimum(of_nats / jnp.maximum(of_critic, 1e-12), _LARGEST_RATIO)


def _critic_loss(
    model: Model, critic: Critic, params: Mapping, state, batch: Batch, key: Key
) -> tuple[Array, tuple[dict, dict]]:
    x = batch['x']
    parameters = _reconstruct(model, params, state.model_state, x, key).parameters
    both = critic.answer(params, jnp.concatenate([x, model.observation.mean(parameters)]))
    real, made = jnp.split(both, 2)
    loss = jnp.mean(critic.game.discriminator(real, made))
    metrics = {'loss': loss, 'logit_of_real': jnp.mean(real), 'logit_of_made': jnp.mean(made)}
    return loss, (state.model_state, metrics)


def _evaluate(
    model: Model, params: Mapping, model_state: Mapping, batch: Batch, key: Key
) -> dict[str, Column]:
    x = batch['x']
    z = model.encode(params, x, train=False)
    quantized = model.quantize(model_state, z, key, train=False)
    parameters = model.decode(params, quantized.values, train=False)
    nats = model.nats(x, parameters)
    error = likelihood.mean_per_example((x - model.observation.mean(parameters)) ** 2)
    codes = quantized.codes.reshape(len(x), -1, model.quantizer.depth)
    num_codes = jnp.full(len(x), model.quantizer.num_codes)
    values = {
        'loss': nats + quantized.loss,
        'distortion': nats * math.prod(model.spec.shape),
        'mse': error,
        'code_usage': CodeUsage(codes, num_codes),
        'code_perplexity': CodePerplexity(codes),
    }
    if model.spec.levels is not None:
        values['mse'] = error / 4  # x goes from -1 to 1
        values['psnr'] = -10 * jnp.log10(jnp.maximum(values['mse'], _SMALLEST_ERROR))
    return values


def codec_of(model: Model) -> Codec:
    """How the model turns examples into codes, or vectors, and back."""

    def encode(params: Mapping, model_state: Mapping, x: Array) -> Array:
        return model.encode(params, x, train=False)

    def rounded(model_state: Mapping, z: Array) -> Quantized:
        # Only restarts, which are of training, need a key.
        return model.quantize(model_state, z, jax.random.key(0), train=False)

    def tokens(params: Mapping, model_state: Mapping, x: Array) -> Array:
        codes = rounded(model_state, encode(params, model_state, x)).codes
        return codes.reshape(len(x), -1)

    of_vectors = _codec(
        model,
        DataSpec(model.shape, bounded=False),
        encode,
        lambda model_state, z: rounded(model_state, z).values,
        log_q=lambda x: None,
    )
    of_tokens = _codec(
        model,
        DataSpec((model.num_codes,), 'int32', vocab_size=model.quantizer.num_codes),
        tokens,
        model.vectors,
        log_q=lambda x: jnp.zeros(len(x)),
    )
    return of_tokens._replace(vectors=of_vectors)


def _codec(
    model: Model, spec: DataSpec, latents: Callable, vectors: Callable, log_q: Callable
) -> Codec:
    """The codec of `latents(params, model_state, x)`, of which `vectors(model_state, .)` are e."""

    def parameters(params: Mapping, model_state: Mapping, z: Array) -> Array:
        return model.decode(params, vectors(model_state, z), train=False)

    def encode(params, model_state, x, *, cond=None):
        return latents(params, model_state, x)

    def draw(params, model_state, x, key, *, cond=None):
        return latents(params, model_state, x), log_q(x)

    def decode(params, model_state, z, *, cond=None):
        return model.observation.mean(parameters(params, model_state, z))

    def log_prob(params, model_state, x, z, *, cond=None):
        return model.observation.log_prob(x, parameters(params, model_state, z))

    return Codec(spec, encode, draw, decode, log_prob, model.observation.is_mass)


def estimators(model: Model) -> dict[str, str]:
    """What each number of `evaluate` is."""
    what = 'of the reconstruction' + ' of x from 0 to 1' * (model.spec.levels is not None)
    found = {
        'loss': 'estimate (-log p(x | codes) per dimension and the loss of the quantizer, which '
        'may be one of batches; no likelihood of x)',
        'distortion': 'exact (-log p(x | codes), nats per example; no likelihood of x)',
        'mse': f'exact (mean squared error {what})',
        'code_usage': 'exact (share of the codes that occur in all of these examples)',
        'code_perplexity': 'exact (exp of the entropy of the codes of all of these examples)',
    }
    if model.spec.levels is not None:
        found['psnr'] = f'exact (mean over examples of -10 log10 of the squared error {what})'
    return found
