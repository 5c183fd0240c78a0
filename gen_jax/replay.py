"""`--mode=replay`: the step at which a run diverged, computed again and looked at.

The same batch, keys and state give the same numbers: the record of `divergence.py` says which, and
the checkpoint beside it holds the state as it was, for a skipped step changes nothing. (Of several
players those whose numbers were finite have learned on meanwhile; then the step is only almost the
same.) Another precision or other devices can be asked for, to see whether it was these.
"""

import contextlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from gen_jax import divergence, manifest, parallel
from gen_jax import workdir as workdirs
from gen_jax.checkpoint import Checkpoints
from gen_jax.data.dataset import Arrays, batch_indices
from gen_jax.errors import InputError
from gen_jax.run import assemble, batches_after, compile_step, load_data

_SHOWN = 8  # names of leaves, or numbers of examples


def replay(config, workdir: Path) -> dict:
    """Repeats the first of the skipped steps for which the run in `workdir` ended.

    Returns:
      `metrics` of that step, `repeated` (whether it is skipped again), the numbers of the
      `examples` that are not finite, the names of the `parameters` that are not, and the `largest`
      magnitude of a parameter, with its name.

    Raises:
      InputError: the run has not diverged, or its data or checkpoint are not there any more.
    """
    workdirs.check_config(workdir, config)
    record = divergence.read_record(workdir)
    run = assemble(config)
    size, parts = config.data.batch_size, config.train.accumulate
    parallel.check_batch_size(run.parallel, size, 'data.batch_size', parts)
    dataset, step = load_data(config), record['step']
    indices = batch_indices(dataset.train, size, config.seed, step - 1)
    if indices.tolist() != record['batch_indices']:
        raise InputError(f'data: step {step} had other examples of this data when it was recorded')
    with Checkpoints(workdir, read_only=True) as checkpoints:
        if record['checkpoint'] not in checkpoints.steps():
            raise InputError(
                f'--workdir: checkpoint {record["checkpoint"]}, with the state before step {step}, '
                'is not kept any more; a larger train.keep_checkpoints would have'
            )
        state = checkpoints.restore(run.template, record['checkpoint'])
    state = state.replace(step=jax.device_put(np.int32(step - 1), state.step.sharding))
    with contextlib.closing(batches_after(step - 1, dataset, config)) as batches:
        batch = next(batches)
    facts = {
        'examples': _not_finite(batch, indices),
        'parameters': _leaves_not_finite(state.params),
        'largest': _largest(state.params),
    }
    before = int(state.guard.skipped)
    placed = parallel.place_for_step(run.parallel, batch)
    _, metrics = compile_step(run, config)(state, placed)
    metrics = {name: float(value) for name, value in metrics.items()}
    facts |= {'metrics': metrics, 'repeated': metrics['skipped'] > before}
    _show(step, record, facts)
    return facts


def _not_finite(batch: Arrays, indices: np.ndarray) -> list[int]:
    """The numbers of the examples with a value that is not finite."""
    share = len(indices) // jax.process_count()
    mine = indices[jax.process_index() * share :][:share]
    finite = np.ones(share, bool)
    for rows in batch.values():
        if np.issubdtype(rows.dtype, np.floating):
            finite &= np.isfinite(rows.reshape(share, -1)).all(1)
    return mine[~finite].tolist()


def _leaves_not_finite(tree) -> list[str]:
    leaves = manifest.leaves_of(tree).items()
    return [path for path, leaf in leaves if not bool(jnp.isfinite(leaf).all())]


def _largest(tree) -> tuple[float, str]:
    """Of the finite numbers of the tree; with a learning rate that is too high it is what tells."""
    return max(
        (float(jnp.max(jnp.abs(leaf), where=jnp.isfinite(leaf), initial=0)), path)
        for path, leaf in manifest.leaves_of(tree).items()
    )


def _show(step: int, record: dict, facts: dict) -> None:
    print(f'step {step}, from checkpoint {record["checkpoint"]}')
    for name, value in facts['metrics'].items():
        print(f'{name:24}{value:.6g}')
    print(f'{"not finite before it":24}{_few(facts["parameters"]) or "no parameter"}')
    print(f'{"":24}{_few(facts["examples"]) or "no example"}')
    largest, name = facts['largest']
    print(f'{"largest parameter":24}{largest:.6g}, in {name}')
    print(f'{"skipped again":24}{"yes" if facts["repeated"] else "no"}')


def _few(names: list) -> str:
    more = f' and {len(names) - _SHOWN} more' if len(names) > _SHOWN else ''
    return ', '.join(map(str, names[:_SHOWN])) + more
