"""Denoising diffusion: one method; `process` and `prediction` choose which.

With x_t = alpha x_0 + sigma eps (see `processes/gaussian.py`) and a network f(x_t, t):

    (1) L_simple = E ||f(x_t, t) - target||^2                     (Ho et al. 2020, equation 14)
        t even over the chain's steps, or over (0, 1] in continuous time; the target is the noise
        in the paper, and any prediction of `processes/gaussian.py` here.
    (2) labels are dropped at random in training, so that one network answers with and without
        (Ho & Salimans 2022); sampling mixes the two by `guidance`.

Held-out data is measured by (1) and by the bound of `losses/variational_bound.py`.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from gen_jax.errors import InputError
from gen_jax.losses import likelihood
from gen_jax.losses.variational_bound import variational_bound
from gen_jax.methods.method import Method, Phase, check_label, check_numbers, check_players
from gen_jax.processes import gaussian
from gen_jax.processes.gaussian import GaussianProcess
from gen_jax.samplers import diffusion as samplers
from gen_jax.samplers import guidance as guide
from gen_jax.types import Array, Batch, DataSpec, Key, Predictor


def diffusion(
    networks: Mapping[str, Callable],
    spec: DataSpec,
    process: GaussianProcess,
    *,
    prediction: str = 'epsilon',
    class_conditional: bool = False,
    label_dropout: float = 0.1,
) -> Method:
    """A diffusion model of data of this `spec`.

    Args:
      networks: `{'model': factory}`; the factory's module is called as `(x, t, label, train=)`.
      spec: shape and levels of the data; its classes where `class_conditional`.
      process: how data becomes noise.
      prediction: what the network's output stands for, one of `gaussian.PREDICTIONS`.
      class_conditional: whether the network is told the label.
      label_dropout: the share of training labels withheld; see (2).

    Raises:
      InputError: unknown prediction; labels asked of data that has none; other players.
    """
    check_numbers(spec)
    if prediction not in gaussian.PREDICTIONS:
        raise gaussian.unknown_prediction(prediction)
    if prediction in ('epsilon', 'score') and process.alpha(1.0) == 0:
        raise InputError(
            f'method.prediction: nothing of x_0 is left at t = 1 here, and {prediction!r} says '
            "nothing of it either; use 'velocity', 'v' or 'x0'"
        )
    if class_conditional and spec.num_classes is None:
        raise InputError('method.class_conditional: this data has no labels; set it to False')
    if not 0 <= label_dropout <= 1:
        raise InputError(f'method.label_dropout: {label_dropout} must be a share from 0 to 1')
    check_players(networks, ('model',))
    num_classes = spec.num_classes if class_conditional else None
    network = networks['model'](out_channels=spec.shape[-1], num_classes=num_classes)
    drops_labels = class_conditional and label_dropout > 0
    model = Denoiser(network, process, prediction, spec, num_classes, drops_labels)
    return Method(
        init=functools.partial(_init, model),
        phases=(Phase('model', functools.partial(_loss, model, label_dropout)),),
        sample=functools.partial(_sample, model),
        evaluate=functools.partial(_evaluate, model),
        estimators=estimators(model),
        averaged=('model',),
        num_classes=num_classes,
        nfe=functools.partial(_nfe, model),
    )


class Denoiser(NamedTuple):
    """A network and what its answers mean; parameters come and go as arguments."""

    network: nn.Module
    process: GaussianProcess
    prediction: str
    spec: DataSpec
    num_classes: int | None  # None: the network is told no labels
    drops_labels: bool  # whether it learns to do without them

    def apply(self, params: Mapping, x_t: Array, t: Array, label: Array | None, **options) -> Array:
        """The network's output, in the space of the prediction."""
        return self.network.apply({'params': params['model']}, x_t, t, label, **options)

    def predictor(self, params: Mapping, label: Array | None) -> Predictor:
        """The estimate of x_0 that this network's answer stands for."""

        def predict(x_t, t):
            t = jnp.broadcast_to(t, (len(x_t),))
            output = self.apply(params, x_t, t, label, train=False)
            return gaussian.to_x0(self.process, self.prediction, output, x_t, t)

        return predict

    def error(self, params: Mapping, x: Array, label: Array | None, key: Key, **options) -> Array:
        """Equation (1) before the mean: `[B, ...]`."""
        time_key, noise_key = jax.random.split(key)
        t = gaussian.sample_time(self.process, time_key, len(x))
        eps = jax.random.normal(noise_key, x.shape)
        x_t = gaussian.corrupt(self.process, x, eps, t)
        output = self.apply(params, x_t, t, label, **options)
        return (output - gaussian.target(self.process, self.prediction, x, eps, t)) ** 2


def _init(model: Denoiser, key: Key, batch: Batch) -> tuple[dict, dict]:
    x = jnp.zeros_like(batch['x'])
    label = None if model.num_classes is None else jnp.zeros(len(x), jnp.int32)
    variables = model.network.init(key, x, jnp.ones(len(x)), label, train=False)
    return {'model': variables['params']}, {}


def _loss(
    model: Denoiser, label_dropout: float, params: Mapping, state, batch: Batch, key: Key
) -> tuple[Array, tuple[dict, dict]]:
    error_key, label_key, dropout_key = jax.random.split(key, 3)
    x, label = batch['x'], None
    if model.num_classes is not None:
        dropped = jax.random.bernoulli(label_key, label_dropout, (len(x),))
        label = jnp.where(dropped, model.num_classes, batch['label'])
    error = model.error(params, x, label, error_key, train=True, rngs={'dropout': dropout_key})
    value = jnp.mean(error)
    return value, (state.model_state, {'loss': value})


def _sample(
    model: Denoiser,
    params: Mapping,
    model_state: Mapping,
    key: Key,
    num: int,
    *,
    cond: Array | None = None,
    sampler: str = 'ancestral',
    num_steps: int | None = None,
    guidance: float = 1.0,
    eta: float | None = None,
    variance: str | None = None,
) -> Array:
    check_label(cond, model.num_classes)
    predict = model.predictor(params, cond)
    if model.drops_labels:
        nothing = jnp.full((num,), model.num_classes)
        predict = guide.classifier_free(predict, model.predictor(params, nothing), guidance)
    elif guidance != 1:
        raise InputError('guidance: it needs class_conditional and label_dropout; use 1.0')
    steps = chain_length(model.process) if num_steps is None else num_steps  # as `_nfe` counts
    times = samplers.time_grid(steps, model.process.num_steps)
    start_key, steps_key = jax.random.split(key)
    return sampler_of(sampler, eta=eta, variance=variance)(
        guide.clipped(predict) if model.spec.bounded else predict,
        model.process,
        jax.random.normal(start_key, (num, *model.spec.shape)),
        steps_key,
        times,
    )


def _nfe(model: Denoiser, *, num_steps: int | None = None, guidance: float = 1.0, **others) -> int:
    steps = chain_length(model.process) if num_steps is None else num_steps
    return steps if guidance == 1 else 2 * steps


def _evaluate(
    model: Denoiser,
    params: Mapping,
    model_state: Mapping,
    batch: Batch,
    key: Key,
    *,
    bound_terms: int | None = 16,
    variance: str = 'large',
) -> dict[str, Array]:
    error_key, bound_key = jax.random.split(key)
    x, label = batch['x'], None if model.num_classes is None else batch['label']
    error = model.error(params, x, label, error_key, train=False)
    predict = model.predictor(params, label)
    rate, distortion = variational_bound(
        guide.clipped(predict) if model.spec.bounded else predict,
        model.process,
        x,
        bound_key,
        num_steps=chain_length(model.process),
        bound_terms=bound_terms,
        variance=variance,
        levels=None if model.spec.dequantized else model.spec.levels,
    )
    return {
        'loss': likelihood.mean_per_example(error),
        **report_bound(rate, distortion, model.spec),
    }


def chain_length(process: GaussianProcess) -> int:
    """The steps of the chain; a continuous process is cut into 1,000."""
    return 1000 if process.num_steps is None else process.num_steps


def sampler_of(name: str, **options) -> Callable:
    """'ancestral' or 'ddim', with those of its options that are not None.

    Raises:
      InputError: another name, or an option of the other sampler.
    """
    known = {'ancestral': samplers.ancestral, 'ddim': samplers.ddim}
    if name not in known:
        raise InputError(f'sampler: no {name!r}; choose from {", ".join(known)}')
    given = {option: value for option, value in options.items() if value is not None}
    for option in given.keys() - inspect.signature(known[name]).parameters.keys():
        raise InputError(f'{option}: the {name} sampler has none; remove it')
    return functools.partial(known[name], **given)


def report_bound(rate: Array, distortion: Array, spec: DataSpec) -> dict[str, Array]:
    """The bound in the units of the data: bits/dim where it has levels, nats/dim where not."""
    num_dims = int(np.prod(spec.shape))
    if spec.levels is None:
        return {'nats_per_dim': (rate + distortion) / num_dims}
    if spec.dequantized:
        nats = rate + distortion
        return {'bits_per_dim': likelihood.dequantized_bits_per_dim(nats, num_dims, spec.levels)}
    rate, distortion = (likelihood.bits_per_dim(nats, num_dims) for nats in (rate, distortion))
    return {
        'bits_per_dim': rate + distortion,
        'rate_bits_per_dim': rate,
        'distortion_bits_per_dim': distortion,
    }


def estimators(model: Denoiser) -> dict[str, str]:
    """What each number of `evaluate` is."""
    given = ', label' if model.num_classes is not None else ''
    what = 'of uniformly dequantized data' if model.spec.dequantized else 'of the data'
    p = f'p(x | {given[2:]})' if given else 'p(x)'
    how = f'(variational, Ho et al. 2020, estimated with random noise), {what}'
    loss = f'estimate (error of {model.prediction} given x_t, t{given}; random t and noise), {what}'
    values = {'loss': loss}
    if model.spec.levels is None:
        return values | {'nats_per_dim': f'upper bound on -log {p} {how}, a density'}
    values['bits_per_dim'] = f'upper bound on -log2 {p} {how}'
    if not model.spec.dequantized:
        values['rate_bits_per_dim'] = f'part of the upper bound on -log2 {p} {how}: L_1..L_N'
        values['distortion_bits_per_dim'] = f'part of the upper bound on -log2 {p} {how}: L_0'
    return values
