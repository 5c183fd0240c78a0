"""A model of latents: `inner`, another method, on what a frozen `autoencoder` makes of x.

    (1) z ~ q(z | x), the encoder's; x ~ p(x | z), the decoder's        (Rombach et al. 2022)
    (2) u = (z - m) / s   what `inner` models, if z is continuous: each channel has mean 0 and
        deviation 1. m and s are of the first `statistics_steps` training batches, and then stay.
    (3) -log p(x) <= E_q[-log p(u) + sum log s + log q(z | x) - log p(x | z)]   (Vahdat et al. 2021)
        where -log p(u) is what `inner` says, exact or a bound. Of codes, which are tokens, q is one
        point and s is 1. With `vectors`, what codes are made of is modeled instead, and rounded
        after it was drawn; these z are one point where there should be a density, and no bound
        follows.

The autoencoder's player is named by no phase, so nothing changes it; it begins with the weights of
the run that trained it (`restore.py`).
"""

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gen_jax.errors import InputError
from gen_jax.losses import likelihood
from gen_jax.methods.method import Codec, Method, Phase, check_label
from gen_jax.types import Array, Batch, DataSpec, Key, Tree

PLAYER = 'autoencoder'
# A channel that never varies is not blown up.
_SMALLEST_DEVIATION = 1e-3


def latent(
    networks: Mapping[str, Callable],
    spec: DataSpec,
    inner: Callable[..., Method],
    autoencoder: Callable[..., Method],
    *,
    vectors: bool = False,
    statistics_steps: int = 100,
) -> Method:
    """A model of the latents of data of this `spec`.

    Args:
      networks: the autoencoder's, and those of the players of `inner`.
      spec: of the data.
      inner: makes a method, from networks and the spec of latents.
      autoencoder: makes a method with a codec, from its network and the spec of the data.
      vectors: of an autoencoder that makes codes, whether to model the vectors that it makes them
        of.
      statistics_steps: batches that (2) is made of.

    Raises:
      InputError: an autoencoder that encodes nothing or is not there, vectors of one that has none,
        or labels for one alone.
    """
    if statistics_steps < 1:
        raise InputError(f'method.statistics_steps: {statistics_steps} must be at least 1')
    if PLAYER not in networks:
        raise InputError(f'networks: there must be a section {PLAYER!r}')
    first = autoencoder({PLAYER: networks[PLAYER]}, spec)
    if first.codec is None:
        raise InputError('method.autoencoder.name: this one does not encode; use a VAE or a VQ-VAE')
    if vectors and first.codec.vectors is None:
        raise InputError('method.vectors: this autoencoder makes no codes; set it to False')
    codec = first.codec.vectors if vectors else first.codec
    of_latents = codec.spec._replace(num_classes=spec.num_classes)
    rest = {player: make for player, make in networks.items() if player != PLAYER}
    second = inner(rest, of_latents)
    if second.sample is None:
        raise InputError('method.inner.name: this method draws no samples')
    if codec.num_classes is not None and second.num_classes is None:
        raise InputError(
            'method.inner.class_conditional: the autoencoder is told labels; set it to True'
        )
    model = Model(first, second, codec, spec, not vectors, statistics_steps)
    return Method(
        init=functools.partial(_init, model),
        phases=tuple(
            phase._replace(loss=functools.partial(_loss, model, phase)) for phase in second.phases
        ),
        sample=_with_options_of(second.sample, functools.partial(_sample, model)),
        evaluate=_with_options_of(second.evaluate, functools.partial(_evaluate, model)),
        estimators=estimators(model),
        averaged=second.averaged,
        num_classes=second.num_classes,
        nfe=second.nfe,
        codec=codec,
    )


class Model(NamedTuple):
    """Both methods. In `model_state` the inner one's is 'inner', and (2) is made of 'latent'."""

    first: Method
    second: Method
    codec: Codec
    spec: DataSpec
    has_bound: bool  # whether (3) holds
    statistics_steps: int

    @property
    def is_continuous(self) -> bool:
        """Whether latents are numbers, or else tokens."""
        return self.codec.spec.vocab_size is None

    def told(self, cond: Array | None) -> Array | None:
        """Labels as the autoencoder takes them."""
        return None if self.codec.num_classes is None else cond

    def draw(
        self, params: Mapping, model_state: Mapping, batch: Batch, key: Key
    ) -> tuple[Array, Array | None]:
        """z and log q(z | x), of which nothing is differentiated."""
        cond = self.told(batch.get('label'))
        return jax.lax.stop_gradient(
            self.codec.draw(params, model_state, batch['x'], key, cond=cond)
        )


class Statistics(NamedTuple):
    """m and s of (2), of each channel."""

    mean: Array
    deviation: Array


def _init(model: Model, key: Key, batch: Batch) -> tuple[dict, dict]:
    first_key, second_key = jax.random.split(key)
    params, state = model.first.init(first_key, batch)
    model_state = {PLAYER: state[PLAYER]} if PLAYER in state else {}
    latents = model.codec.spec
    z = jnp.zeros((len(batch['x']), *latents.shape), latents.dtype)
    others, inner_state = model.second.init(second_key, {**batch, 'x': z})
    if inner_state:
        model_state['inner'] = inner_state
    if model.is_continuous:
        channels = latents.shape[-1]
        model_state['latent'] = {'mean': jnp.zeros(channels), 'square': jnp.ones(channels)}
    return {PLAYER: params[PLAYER], **others}, model_state


def _loss(
    model: Model, phase: Phase, params: Mapping, state, batch: Batch, key: Key
) -> tuple[Array, tuple[dict, dict]]:
    encode_key, inner_key = jax.random.split(key)
    z, _ = model.draw(params, state.model_state, batch, encode_key)
    after = dict(state.model_state)
    if model.is_continuous:
        after['latent'] = _gathered(after['latent'], z, state.step, model.statistics_steps)
        z = _normalized(z, _statistics(after))
    seen = state.replace(model_state=after.get('inner', {}))
    loss, (inner_state, metrics) = phase.loss(params, seen, {**batch, 'x': z}, inner_key)
    if inner_state:
        after['inner'] = inner_state
    return loss, (after, metrics)


def _gathered(sums: Mapping, z: Array, step: Array, num_steps: int) -> dict:
    """The means over batches so far, with those of z where `step` is one of the first."""
    axes = tuple(range(z.ndim - 1))
    now = {'mean': z.mean(axes), 'square': (z * z).mean(axes)}
    share = jnp.where(step < num_steps, 1 / (step + 1), 0.0)
    return {name: sums[name] + share * (now[name] - sums[name]) for name in now}


def _statistics(model_state: Mapping) -> Statistics:
    mean, square = (model_state['latent'][name] for name in ('mean', 'square'))
    variance = jnp.maximum(square - mean**2, _SMALLEST_DEVIATION**2)
    return Statistics(mean, jnp.sqrt(variance))


def _normalized(z: Array, statistics: Statistics) -> Array:
    """Equation (2)."""
    return (z - statistics.mean) / statistics.deviation


def _sample(
    model: Model,
    params: Mapping,
    model_state: Mapping,
    key: Key,
    num: int,
    *,
    cond: Array | None = None,
    **options,
) -> Array:
    check_label(cond, model.second.num_classes)
    inner_state = model_state.get('inner', {})
    z = model.second.sample(params, inner_state, key, num, cond=cond, **options)
    if model.is_continuous:
        mean, deviation = _statistics(model_state)
        z = mean + deviation * z
    return model.codec.decode(params, model_state, z, cond=model.told(cond))


def _evaluate(
    model: Model, params: Mapping, model_state: Mapping, batch: Batch, key: Key, **options
) -> dict[str, Tree]:
    encode_key, inner_key = jax.random.split(key)
    z, log_q = model.draw(params, model_state, batch, encode_key)
    u, log_scale = z, 0.0
    if model.is_continuous:
        statistics = _statistics(model_state)
        u = _normalized(z, statistics)
        positions = math.prod(z.shape[1:-1])
        log_scale = positions * jnp.sum(jnp.log(statistics.deviation))
    inner_state = model_state.get('inner', {})
    values = model.second.evaluate(params, inner_state, {**batch, 'x': u}, inner_key, **options)
    found = {_name(name): column for name, column in values.items()}
    nats = _nats_of_latents(model, values) if model.has_bound else None
    if nats is not None:
        cond = model.told(batch.get('label'))
        log_p = model.codec.log_prob(params, model_state, batch['x'], z, cond=cond)
        rate = nats + log_scale + log_q
        found |= likelihood.of_data(rate - log_p, model.spec, model.codec.is_mass)
        found |= {'rate': rate, 'distortion': -log_p}
    return found


def _nats_of_latents(model: Model, values: Mapping) -> Array | None:
    """-log p(u) `[B]`, exact or a bound, of what the inner method reports; None if it does not."""
    size = math.prod(model.codec.spec.shape)
    if 'nats_per_dim' in values:
        return values['nats_per_dim'] * size
    if 'bits_per_dim' in values:
        return values['bits_per_dim'] * size * math.log(2)
    return None


def _name(name: str) -> str:
    """What a number of the inner method is called here; its loss is that of the run."""
    return name if name == 'loss' else f'latent_{name}'


def _with_options_of(inner: Callable, function: Callable) -> Callable:
    """The function, which passes its options on, with the names of those that `inner` takes."""
    options = [
        parameter
        for name, parameter in inspect.signature(inner).parameters.items()
        if name != 'given'  # what latents are known is not what is known of x
    ]
    function.__signature__ = inspect.Signature(options)
    return function


def estimators(model: Model) -> dict[str, str]:
    """What each number of `evaluate` is."""
    p = 'p(x | label)' if model.second.num_classes is not None else 'p(x)'
    what = '' if model.codec.is_mass or model.spec.dequantized else ', a density'
    how = f'(variational, encoder and model of latents together){what}'
    part = f'part of the upper bound on -log {p} {how}'
    bound = 'bits_per_dim' if model.codec.is_mass or model.spec.dequantized else 'nats_per_dim'
    inner = {_name(name): f'{text}; of latents' for name, text in model.second.estimators.items()}
    if not model.has_bound:
        return inner
    return {
        **inner,
        'nats': f'upper bound on -log {p} {how}, nats per example',
        bound: f'upper bound on -log {p} {how}',
        'rate': f'{part}: of the latents, nats per example',
        'distortion': f'{part}: -log p(x | z), nats per example',
    }
