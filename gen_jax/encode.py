"""`--mode=encode`: the latents of examples, as a file of arrays."""

import sys
from pathlib import Path

import numpy as np

from gen_jax import hosts
from gen_jax import workdir as workdirs
from gen_jax.coding import encoder
from gen_jax.errors import InputError
from gen_jax.files import replacing
from gen_jax.given import HELD_OUT, examples_of
from gen_jax.run import assemble
from gen_jax.trained import trained


def encode(
    config,
    workdir: Path,
    *,
    num: int | None = None,
    out: str | None = None,
    label: int | None = None,
    given: str | None = None,
    checkpoint: str = 'latest',
    ema_length: float | None = None,
) -> Path | None:
    """Encodes examples with a checkpoint of `workdir`.

    The file is `.npz`: array `z` `[N, ...]`, the mean of q(z | x) or the codes, and `label` where
    the examples have one.

    Args:
      config: the run's config.
      workdir: the run's folder.
      num: how many examples; None for all.
      out: the file; None for one under the workdir's `samples/`.
      label: the class of all, for a model that is told classes and examples without.
      given: 'held_out' or 'train', or a file of the data's kind; None for 'held_out'.
      checkpoint: 'latest', 'best' or a step.
      ema_length: of the average of the weights; see `trained.py`.

    Returns:
      The file, where this process wrote it: of several the first does.

    Raises:
      InputError: bad config or flags, a method without an encoder, or no readable checkpoint.
    """
    if num is not None and num < 1:
        raise InputError(f'--num: {num} must be at least 1')
    workdirs.check(workdir, config)
    path = None if out is None else workdirs.check_out(out, ('.npz',))
    run = assemble(config, spec=workdirs.saved_spec(workdir))
    encode_all = encoder(run, config.evaluate.batch_size)
    source = given or HELD_OUT
    examples = examples_of(config, run, workdir, source, num, label)
    state, average = trained(run, config, workdir, checkpoint, ema_length)
    if hosts.is_first():
        print(f'step {int(state.step)}, average: {average}', file=sys.stderr)
    z = encode_all(state, examples.x, examples.label)
    if not hosts.is_first():
        return None
    name = f'latents_{Path(source).stem}' + ('' if num is None else f'_num{num}')
    path = path or workdir / 'samples' / f'{name}.npz'
    path.parent.mkdir(exist_ok=True)
    arrays = {'z': z} if examples.label is None else {'z': z, 'label': examples.label}
    with replacing(path) as file:
        np.savez_compressed(file, **arrays)
    print(path)
    return path
