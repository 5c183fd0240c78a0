"""`--mode=export`: the averaged weights of a run in one file that needs no run to be read.

The file is safetensors: `<player>/<module>/.../<leaf>`, and in its metadata, under 'gen_jax', what
network these are the weights of.
"""

import json
from pathlib import Path

import jax
import numpy as np

from gen_jax import workdir as workdirs
from gen_jax.files import replacing
from gen_jax.run import assemble
from gen_jax.state import sampling_params
from gen_jax.trained import trained
from gen_jax.workdir import config_values


def export(
    config,
    workdir: Path,
    *,
    checkpoint: str = 'latest',
    out: str | None = None,
    ema_length: float | None = None,
) -> Path:
    """Writes the weights that samples are drawn with, of a checkpoint of `workdir`.

    Args:
      config: the run's config.
      workdir: the run's folder.
      checkpoint: 'latest', 'best' or a step.
      out: a file ending in `.safetensors`; None for `weights.safetensors` in the workdir.
      ema_length: of the average of the weights; see `trained.py`.

    Returns:
      The file written.

    Raises:
      InputError: bad config or flags, or no readable checkpoint.
    """
    from safetensors.numpy import save

    if out is None:
        workdirs.check(workdir, config)
        path = workdir / 'weights.safetensors'
    else:
        workdirs.check_config(workdir, config)
        path = workdirs.check_out(out, ('.safetensors',))
    run = assemble(config, spec=workdirs.saved_spec(workdir))
    state, average = trained(run, config, workdir, checkpoint, ema_length)
    values = config_values(config)
    facts = {
        'method': values['method']['name'],
        'networks': values['networks'],
        'shape': run.spec.shape,
        'num_classes': run.spec.num_classes,
        'step': int(state.step),
        'average': average,
        'commit': workdirs.commit(),
    }
    flat, _ = jax.tree_util.tree_flatten_with_path(jax.device_get(sampling_params(state)))
    arrays = {
        jax.tree_util.keystr(name, simple=True, separator='/'): np.ascontiguousarray(leaf)
        for name, leaf in flat
    }
    with replacing(path) as file:
        file.write(save(arrays, metadata={'gen_jax': json.dumps(facts)}))
    print(path)
    return path
