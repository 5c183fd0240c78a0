"""Denoising diffusion: one method; `process` and `prediction` choose which.

With x_t = alpha x_0 + sigma eps (see `processes/gaussian.py`) and a network f(x_t, t):

    (1) L_simple = E ||f(x_t, t) - target||^2                     (Ho et al. 2020, equation 14)
        t even over the chain's steps, or over (0, 1] in continuous time; the target is the noise
        in the paper, and any prediction of `processes/gaussian.py` here.
    (2) -log p(x_0) <= L_N + sum_{k=2..N} L_{k-1} + L_0           (Ho et al. 2020, equation 5)
        L_N     = KL(q(x_1 | x_0) || N(0, I))
        L_{k-1} = KL(q(x_s | x_t, x_0) || N(m(x_t, f), v)),  s = (k-1)/N, t = k/N
        L_0     = -log p(x_0 | x_{1/N})
    (3) labels are dropped at random in training, so that one network answers with and without
        (Ho & Salimans 2022); sampling mixes the two by `guidance`.

The sum in (2) is taken over all its terms, or over `bound_terms` of them, evenly spread from a
random start and weighted up: an unbiased estimate of the same bound.
"""

import functools
import inspect
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from gen_jax.errors import InputError
from gen_jax.losses import likelihood
from gen_jax.methods.method import Method, Phase
from gen_jax.processes import gaussian
from gen_jax.processes.gaussian import GaussianProcess
from gen_jax.samplers import diffusion as samplers
from gen_jax.samplers import guidance as guide
from gen_jax.types import Array, DataSpec, Key, Predictor


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
      label_dropout: the share of training labels withheld; see (3).

    Raises:
      InputError: unknown prediction; labels asked of data that has none.
    """
    if prediction not in gaussian.PREDICTIONS:
        raise gaussian.unknown_prediction(prediction)
    if class_conditional and spec.num_classes is None:
        raise InputError('method.class_conditional: this data has no labels; set it to False')
    if not 0 <= label_dropout <= 1:
        raise InputError(f'method.label_dropout: {label_dropout} must be a share from 0 to 1')
    num_classes = spec.num_classes if class_conditional else None
    network = networks['model'](out_channels=spec.shape[-1], num_classes=num_classes)

    def init(key, batch):
        x = jnp.zeros_like(batch['x'])
        label = jnp.zeros(len(x), jnp.int32) if class_conditional else None
        variables = network.init(key, x, jnp.ones(len(x)), label, train=False)
        return {'model': variables['params']}, {}

    def denoising_error(params, x, label, key, **apply_options):
        """Equation (1) before the mean: `[B, ...]`."""
        time_key, noise_key = jax.random.split(key)
        t = gaussian.sample_time(process, time_key, len(x))
        eps = jax.random.normal(noise_key, x.shape)
        x_t = gaussian.corrupt(process, x, eps, t)
        output = network.apply({'params': params['model']}, x_t, t, label, **apply_options)
        return (output - gaussian.target(process, prediction, x, eps, t)) ** 2

    def loss(params, state, batch, key):
        error_key, label_key, dropout_key = jax.random.split(key, 3)
        x, label = batch['x'], None
        if class_conditional:
            dropped = jax.random.bernoulli(label_key, label_dropout, (len(x),))
            label = jnp.where(dropped, num_classes, batch['label'])
        error = denoising_error(
            params, x, label, error_key, train=True, rngs={'dropout': dropout_key}
        )
        value = jnp.mean(error)
        return value, (state.model_state, {'loss': value})

    def predictor(params, label: Array | None) -> Predictor:
        def predict(x_t, t):
            t = jnp.broadcast_to(t, (len(x_t),))
            output = network.apply({'params': params['model']}, x_t, t, label, train=False)
            return gaussian.to_x0(process, prediction, output, x_t, t)

        return predict

    def sample(
        params,
        model_state,
        key,
        num,
        *,
        cond=None,
        sampler: str = 'ancestral',
        num_steps: int | None = None,
        guidance: float = 1.0,
        eta: float | None = None,
        variance: str | None = None,
    ):
        if class_conditional and cond is None:
            cond = jnp.arange(num) % num_classes
        if cond is not None and not class_conditional:
            raise InputError('label: this model was trained without labels')
        predict = predictor(params, cond)
        if class_conditional:
            nothing = jnp.full((num,), num_classes)
            predict = guide.classifier_free(predict, predictor(params, nothing), guidance)
        elif guidance != 1:
            raise InputError('sample.options.guidance: guidance needs class_conditional=True')
        steps = chain_length(process) if num_steps is None else num_steps
        times = samplers.time_grid(steps, process.num_steps)
        start_key, steps_key = jax.random.split(key)
        return sampler_of(sampler, eta=eta, variance=variance)(
            guide.clipped(predict),
            process,
            jax.random.normal(start_key, (num, *spec.shape)),
            steps_key,
            times,
        )

    def evaluate(params, model_state, batch, key, *, bound_terms=16, variance='large'):
        error_key, bound_key = jax.random.split(key)
        x, label = batch['x'], batch['label'] if class_conditional else None
        error = denoising_error(params, x, label, error_key, train=False)
        rate, distortion = variational_bound(
            guide.clipped(predictor(params, label)),
            process,
            x,
            bound_key,
            num_steps=chain_length(process),
            bound_terms=bound_terms,
            variance=variance,
            levels=None if spec.dequantized else spec.levels,
        )
        return {
            'loss': likelihood.mean_per_example(error),
            **report_bound(rate, distortion, spec),
        }

    return Method(
        init=init,
        phases=(Phase('model', loss),),
        sample=sample,
        evaluate=evaluate,
        estimators=estimators(spec),
        averaged=('model',),
        num_classes=num_classes,
    )


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
        raise InputError(f'sample.options.sampler: no {name!r}; choose from {", ".join(known)}')
    given = {option: value for option, value in options.items() if value is not None}
    for option in given.keys() - inspect.signature(known[name]).parameters.keys():
        raise InputError(f'sample.options.{option}: the {name} sampler has none; remove it')
    return functools.partial(known[name], **given)


def variational_bound(
    predict: Predictor,
    process: GaussianProcess,
    x: Array,
    key: Key,
    *,
    num_steps: int,
    bound_terms: int | None,
    variance: str,
    levels: int | None,
) -> tuple[Array, Array]:
    """Equation (2), per example, in nats: the rate L_N + sum L_{k-1} and the distortion L_0.

    Args:
      predict: the estimate of x_0.
      process: how data becomes noise.
      x: `[B, ...]` data.
      key: draws one x_t for each term.
      num_steps: N.
      bound_terms: how many of the N - 1 terms L_{k-1} to take; None takes them all.
      variance: v, as in `samplers.ancestral`. For L_0, with `levels`, v is the posterior variance
        one step further on, as Ho et al. have it.
      levels: the data's levels, for L_0 the mass of a discretized Gaussian; None for continuous
        data, where L_0 is the density of the Gaussian that has the variance of x_{1/N} about x_0.

    Raises:
      InputError: `variance` is neither 'large' nor 'small', or there are no terms to take.
    """
    if variance not in ('large', 'small'):
        raise InputError(f"evaluate.options.variance: {variance!r} is neither 'large' nor 'small'")
    num_inner = num_steps - 1
    if num_inner < 1 or (bound_terms is not None and bound_terms < 1):
        raise InputError(
            f'evaluate.options.bound_terms: {bound_terms} of the {num_inner} inner terms of the '
            'bound; use at least 1, or None for all, and a chain of at least 2 steps'
        )
    terms = num_inner if bound_terms is None else min(bound_terms, num_inner)
    start_key, noise_key, end_key = jax.random.split(key, 3)
    # Spread evenly from a random start, each k = 2..N is as likely as any other; each example has
    # a start of its own, so that the examples stay independent and their standard error is true.
    start = jax.random.uniform(start_key, (len(x),)) if terms < num_inner else jnp.zeros(len(x))

    def term(total, index):
        k = 2 + jnp.floor((index + start) * (num_inner / terms))
        k = jnp.minimum(k, num_steps)  # a start just below 1 can round up to it
        s, t = (k - 1) / num_steps, k / num_steps
        eps = jax.random.normal(jax.random.fold_in(noise_key, index), x.shape)
        x_t = gaussian.corrupt(process, x, eps, t)
        mean, small = gaussian.posterior(process, x, x_t, s, t)
        guess, _ = gaussian.posterior(process, predict(x_t, t), x_t, s, t)
        chosen = small
        if variance == 'large':
            widen = (-1,) + (1,) * (x.ndim - 1)
            chosen = gaussian.transition(process, s.reshape(widen), t.reshape(widen))[1]
        return total + likelihood.gaussian_kl(mean, small, guess, chosen), None

    total, _ = jax.lax.scan(term, jnp.zeros(len(x)), jnp.arange(terms))
    prior = likelihood.gaussian_kl(
        process.alpha(1.0) * x, process.sigma(1.0) ** 2 * jnp.ones_like(x), 0.0, 1.0
    )
    first, second = np.float32(1 / num_steps), np.float32(2 / num_steps)
    eps = jax.random.normal(end_key, x.shape)
    guess = predict(gaussian.corrupt(process, x, eps, first), jnp.asarray(first))
    if levels is None:
        spread = (process.sigma(first) / process.alpha(first)) ** 2
        distortion = -likelihood.gaussian_log_density(x, guess, spread)
    else:
        _, spread = gaussian.posterior(process, x, x, first, second)
        distortion = -likelihood.discretized_gaussian_log_mass(x, guess, spread, levels)
    return prior + total * (num_inner / terms), distortion


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


def estimators(spec: DataSpec) -> dict[str, str]:
    """What each number of `evaluate` is."""
    bound = 'upper bound on -log2 p (variational, Ho et al. 2020), estimated with random noise'
    return {
        'loss': 'estimate (denoising error in the space of the prediction; random t and noise)',
        'bits_per_dim': bound + (', of uniformly dequantized data' if spec.dequantized else ''),
        'nats_per_dim': bound.replace('log2', 'log') + ', of the density of the scaled data',
        'rate_bits_per_dim': 'part of bits_per_dim: L_1..L_N',
        'distortion_bits_per_dim': 'part of bits_per_dim: L_0',
    }
