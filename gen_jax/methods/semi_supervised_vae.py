"""The semi-supervised variational autoencoder M2 of Kingma et al. 2014 (arXiv:1406.5298).

A class y and numbers z make x, p(x, y, z) = p(y) p(z) p(x | y, z), with p(y) = 1/K for each of K
classes and p(z) = N(0, I); and q(y, z | x) = q(y | x) q(z | x, y), where q(y | x) is a classifier.

    (1) -log p(x, y) <= L(x, y) = E_q(z | x, y)[-log p(x | y, z)] + KL(q(z | x, y) || p(z)) + log K
    (2) -log p(x)    <= U(x) = sum_y q(y | x) (L(x, y) + log q(y | x))
    (3) J = mean over examples of  L(x, y) - alpha log q(y | x)   where y is known
                                   U(x)                           where it is not

(1), (2) and (3) are equations 6, 7 and 9 of the paper, the sum in (2) being over all classes, and
so exact. Its alpha is a weight of the mean over labeled examples; that in (3) is of their sum: the
paper's 0.1 N is, with N examples of which M have a label, an alpha of 0.1 N / M here. A mean over
all examples needs no example of either kind in a batch, and is the same however they are divided
among devices.

Each player has a phase with the part of (3) that it moves, and together their gradients are that of
(3): the autoencoder's is mean sum_y w(y) L(x, y), where w(y) is q(y | x) held fixed, or 1 for a
known label; the classifier's is U(x) with L held fixed, or -alpha log q(y | x).

U(x) is a bound for any q(y), and so for that of the same image moved by some pixels: with
`max_shift` the classifier is shown such images, and the autoencoder those of the data.

    (4) -log p(x) <= -E log 1/S sum_s sum_y w_s(y),   w(y) = p(x, y, z) / q(z | x, y)

is what evaluation has of p(x): in it y is summed out, and q(y | x) plays no part. With one y in
place of the sum it is of p(x, y).                          (Burda et al. 2016, with y enumerated)
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from gen_jax.errors import InputError
from gen_jax.losses import likelihood
from gen_jax.losses.observation import Observation
from gen_jax.methods import bounds, classifier, vae
from gen_jax.methods.latent_shape import latent_shape_of
from gen_jax.methods.method import Method, Phase, check_players
from gen_jax.methods.vae_model import Model
from gen_jax.networks.priors import Normal
from gen_jax.types import Array, Batch, DataSpec, Key


def semi_supervised_vae(
    networks: Mapping[str, Callable],
    spec: DataSpec,
    observation: Observation,
    *,
    latent_channels: int = 16,
    classification_weight: float = 1.0,
    max_shift: int = 0,
) -> Method:
    """A classifier and an autoencoder that learn from examples with and without labels.

    Args:
      networks: `{'autoencoder': factory, 'classifier': factory}`; see `networks/autoencoder.py`.
        The classifier is called as `(x, train=)` and returns features `[B, D]` and logits `[B, K]`.
      spec: of the data; it has classes.
      observation: the law of x given y and z.
      latent_channels: numbers of z, at each place where the code is a map.
      classification_weight: alpha of equation (3).
      max_shift: the classifier sees training images moved by up to so many pixels each way, their
        border repeated.

    Raises:
      InputError: data without classes, other players, or a value out of its range.
    """
    if spec.num_classes is None:
        raise InputError('method: labels are learned here, and this data has none')
    if latent_channels < 1:
        raise InputError(f'method.latent_channels: {latent_channels} must be at least 1')
    if not 0 <= classification_weight < math.inf:
        raise InputError(
            f'method.classification_weight: {classification_weight} must be a number from 0 on'
        )
    classifier.check_shift(max_shift, spec)
    check_players(networks, ('autoencoder', 'classifier'))
    autoencoder = networks['autoencoder'](
        shape=spec.shape,
        code_channels=2 * latent_channels,
        latent_channels=latent_channels,
        out_channels=observation.out_channels,
        num_classes=spec.num_classes,
    )
    latent_shape = latent_shape_of(autoencoder, spec, spec.num_classes, latent_channels)
    model = Model(autoencoder, Normal(), None, observation, spec, spec.num_classes, latent_shape)
    both = Both(model, networks['classifier'](num_classes=spec.num_classes), max_shift)
    of_classifier = functools.partial(_classifier_loss, both, classification_weight)
    return Method(
        init=functools.partial(_init, both),
        phases=(
            Phase('autoencoder', functools.partial(_autoencoder_loss, both)),
            Phase('classifier', of_classifier),
        ),
        sample=functools.partial(vae.sample, model),
        evaluate=functools.partial(_evaluate, both),
        estimators=_estimators(model),
        averaged=('autoencoder', 'classifier'),
        num_classes=spec.num_classes,
        nfe=lambda **options: 1,
        codec=vae.codec_of(model),
        learns_unlabeled=True,
    )


class Both(NamedTuple):
    """The two players, and what they say of a batch for every class at once."""

    model: Model
    classifier: nn.Module
    max_shift: int

    def terms(self, params: Mapping, x: Array, eps: Array, **options) -> tuple[Array, ...]:
        """Of x `[B, ...]` and each class: distortion, and rate in closed form and as it is drawn,
        `[K, B]` nats. The noise `eps` `[B, ...]` is that of all classes, so that they differ in
        nothing else."""
        num_classes, size = self.model.num_classes, len(x)
        label = jnp.repeat(jnp.arange(num_classes), size)
        x, eps = (jnp.tile(a, (num_classes, *[1] * (a.ndim - 1))) for a in (x, eps))
        encoder_options, decoder_options = _for_each_half(options)
        q = self.model.encode(params, x, label, **encoder_options)
        z, log_q = self.model.draw(params, q, eps[None])
        log_likelihood = self.model.log_likelihood(params, x, z, label, **decoder_options)
        drawn = log_q - self.model.log_prior(params, z)
        columns = (-log_likelihood, self.model.rate_of_each(q).sum(1), drawn)
        return tuple(column.reshape(num_classes, size) for column in columns)

    def log_q(self, params: Mapping, x: Array, **options) -> Array:
        """log q(y | x) `[K, B]`."""
        variables = {'params': params['classifier']}
        _, logits = self.classifier.apply(variables, x, **options)
        return jax.nn.log_softmax(logits).T

    def in_training(
        self, params: Mapping, batch: Batch, key: Key
    ) -> tuple[Array, Array, Array, Array]:
        """Distortion, rate and log q(y | x), `[K, B]` each, and which labels are known, as zeros
        and ones `[K, B]`: of both phases the same with the same key."""
        x = batch['x']
        keys = jax.random.split(key, 4)
        eps = jax.random.normal(keys[0], (len(x), *self.model.latent_shape))
        options = {'train': True, 'rngs': {'dropout': keys[1]}}
        distortion, rate, _ = self.terms(params, x, eps, **options)
        moved = classifier.shifted(x, keys[2], self.max_shift)
        log_q = self.log_q(params, moved, train=True, rngs={'dropout': keys[3]})
        known = jax.nn.one_hot(batch['label'], len(log_q), axis=0)  # of -1 all zeros
        return distortion, rate, log_q, known


def _for_each_half(options: Mapping) -> tuple[Mapping, Mapping]:
    """Options of a network for its encoder and its decoder, which drop out each by itself."""
    if 'rngs' not in options:
        return options, options
    keys = jax.random.split(options['rngs']['dropout'])
    encoder, decoder = ({**options, 'rngs': {'dropout': key}} for key in keys)
    return encoder, decoder


def _init(both: Both, key: Key, batch: Batch) -> tuple[dict, dict]:
    autoencoder_key, classifier_key = jax.random.split(key)
    params, model_state = vae.init(both.model, autoencoder_key, batch)
    x = jnp.zeros_like(batch['x'])
    own = both.classifier.init(classifier_key, x, train=False)['params']
    return {**params, 'classifier': own}, model_state


def _autoencoder_loss(
    both: Both, params: Mapping, state, batch: Batch, key: Key
) -> tuple[Array, tuple[dict, dict]]:
    """What the autoencoder moves of (3), in nats per dimension."""
    distortion, rate, log_q, known = both.in_training(params, batch, key)
    weights = jax.lax.stop_gradient(jnp.where(known.any(0), known, jnp.exp(log_q)))
    distortion, rate = (jnp.sum(weights * column, 0).mean() for column in (distortion, rate))
    bound = distortion + rate + math.log(both.model.num_classes)
    loss = bound / math.prod(both.model.spec.shape)
    values = {'loss': loss, 'rate': rate, 'distortion': distortion}
    return loss, (state.model_state, values)


def _classifier_loss(
    both: Both, weight: float, params: Mapping, state, batch: Batch, key: Key
) -> tuple[Array, tuple[dict, dict]]:
    """What the classifier moves of (3), in nats per dimension."""
    distortion, rate, log_q, known = both.in_training(params, batch, key)
    bound = jax.lax.stop_gradient(distortion + rate) + math.log(len(log_q))
    q, is_known = jnp.exp(log_q), known.any(0)
    unlabeled = jnp.sum(q * (bound + log_q), 0)
    surprise = -jnp.sum(known * log_q, 0)  # 0 where the label is unknown
    nats = jnp.mean(jnp.where(is_known, weight * surprise, unlabeled))
    loss = nats / math.prod(both.model.spec.shape)
    right = is_known & (log_q.argmax(0) == batch['label'])
    values = {
        'loss': loss,
        'entropy': -jnp.mean(jnp.sum(q * log_q, 0)),
        # Of the labeled rows alone; 0 where a batch has none.
        'cross_entropy': surprise.sum() / jnp.maximum(is_known.sum(), 1),
        'accuracy': right.sum() / jnp.maximum(is_known.sum(), 1),
    }
    return loss, (state.model_state, values)


def _evaluate(
    both: Both,
    params: Mapping,
    model_state: Mapping,
    batch: Batch,
    key: Key,
    *,
    num_samples: int = 1,
) -> dict[str, Array]:
    """`num_samples` is S of (4)."""
    if num_samples < 1:
        raise InputError(f'num_samples: {num_samples} must be at least 1')
    x, label, model = batch['x'], batch['label'], both.model
    log_q = both.log_q(params, x, train=False)

    def draw(number: Array) -> tuple[Array, Array]:
        """Of each class log w(y), and L(x, y)."""
        shape = (len(x), *model.latent_shape)
        eps = jax.random.normal(jax.random.fold_in(key, number), shape)
        distortion, rate, drawn = both.terms(params, x, eps, train=False)
        constant = math.log(model.num_classes)
        return -distortion - drawn - constant, distortion + rate + constant

    log_weights, costs = jax.lax.map(draw, jnp.arange(num_samples))  # [S, K, B]
    of_each = jax.nn.logsumexp(log_weights, 0) - math.log(num_samples)
    unlabeled = jnp.sum(jnp.exp(log_q) * (costs.mean(0) + log_q), 0)
    return {
        'loss': unlabeled / math.prod(model.spec.shape),
        'accuracy': (log_q.argmax(0) == label).astype(jnp.float32),
        'classification_nats': -jnp.take_along_axis(log_q, label[None], 0)[0],
        **likelihood.of_data(-jax.nn.logsumexp(of_each, 0), model.spec, model.observation.is_mass),
        'nats_with_label': -jnp.take_along_axis(of_each, label[None], 0)[0],
    }


def _estimators(model: Model) -> dict[str, str]:
    """What each number of evaluation is."""
    draws = 'importance-weighted, of num_samples draws for each class'
    what = bounds.kind_of_data(model.spec, model.observation)
    p_of_x = f'({draws}, which are summed over'
    return {
        'loss': f'upper bound on -log p(x) (variational, nats per dimension), {what}',
        'accuracy': classifier.ACCURACY,
        'classification_nats': 'exact (cross entropy of the held-out labels, nats)',
        'nats': f'upper bound on -log p(x) {p_of_x}; nats per example), {what}',
        'nats_with_label': f'upper bound on -log p(x, label) ({draws}; nats per example), {what}',
        **(
            {'bits_per_dim': f'upper bound on -log2 p(x) {p_of_x}), {what}'}
            if model.observation.is_mass or model.spec.dequantized
            else {'nats_per_dim': f'upper bound on -log p(x) {p_of_x}), {what}'}
        ),
    }
