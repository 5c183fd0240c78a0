"""A trained method at work on many examples or latents: batches of one size, compiled once, rows
cut off."""

import functools
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from gen_jax import hosts, preemption
from gen_jax.errors import InputError
from gen_jax.methods.method import Codec
from gen_jax.run import Run
from gen_jax.state import TrainState, sampling_params


def codec_of(run: Run) -> Codec:
    """Of the run's method.

    Raises:
      InputError: it encodes nothing.
    """
    if run.method.codec is None:
        raise InputError(
            'method.name: this method has no encoder; train one that has, such as '
            '--config=configs/vae_digits.py'
        )
    return run.method.codec


def encoder(run: Run, batch_size: int) -> Callable[..., np.ndarray]:
    """A function `(state, x [N, ...], label [N] or None) -> z [N, ...]`."""
    codec = codec_of(run)
    return batched(run, codec.encode, batch_size, codec.num_classes is not None)


def decoder(run: Run, batch_size: int) -> Callable[..., np.ndarray]:
    """A function `(state, z [N, ...], label [N] or None) -> x [N, ...]`."""
    codec = codec_of(run)
    return batched(run, codec.decode, batch_size, codec.num_classes is not None)


def batched(
    run: Run, function: Callable, batch_size: int, takes_labels: bool
) -> Callable[..., np.ndarray]:
    """A function `(state, values [N, ...], label [N] or None) -> [N, ...]`, of one `(params,
    model_state, values, *, cond=None)`; `cond` is the label where it takes one."""
    compute = run.parallel.jit(function, out_shardings=run.parallel.batch_sharding)
    return in_batches(run, compute, batch_size, takes_labels)


def in_batches(
    run: Run, compute: Callable, batch_size: int, takes_labels: bool
) -> Callable[..., np.ndarray]:
    """The same of a function that is compiled, or compiles what it computes."""
    rows = -(-batch_size // run.parallel.batch_devices) * run.parallel.batch_devices

    def apply(state: TrainState, values: np.ndarray, label: np.ndarray | None) -> np.ndarray:
        call = functools.partial(compute, sampling_params(state), state.model_state)
        parts = []
        for start in range(0, len(values), batch_size):
            these = np.minimum(start + np.arange(rows), len(values) - 1)
            told = {'cond': jnp.asarray(label[these])} if takes_labels else {}
            found = hosts.to_host(call(jnp.asarray(values[these]), **told))
            parts.append(found[: min(batch_size, len(values) - start)])
            preemption.check()
        return np.concatenate(parts)

    return apply
