"""Weights that a run begins with instead of random ones: `config.restore.<player>`, a folder.

    a workdir                 the player of this name, as in the newest checkpoint: its averaged
                              parameters where it has an average, and its entry of `model_state`
    a folder of Hugging Face  a transformer over tokens; see `huggingface/`

Step 0 begins with them: parameters, and the averages of them; the optimizer begins anew. A run that
goes on from a checkpoint of its own does not look at the folder any more; its `run.json` says what
it began with, and a run that had not ended is warned of.

A player that no phase trains, such as the autoencoder of `methods/latent.py`, stays what it is
here. Its section `method.<player>` is then the whole method of the run in that folder, and what
that run was trained on must be like the data here.
"""

import contextlib
import functools
import sys
from collections.abc import Iterator
from pathlib import Path

import jax

from gen_jax import hosts
from gen_jax import workdir as workdirs
from gen_jax.checkpoint import Checkpoints, exist
from gen_jax.errors import InputError
from gen_jax.huggingface.tokenizer import check_tokenizer
from gen_jax.huggingface.weights import fitted, from_huggingface
from gen_jax.networks.transformer import Transformer
from gen_jax.run import Run
from gen_jax.state import Weights

# Fields of a network that may be others than those its weights were trained with.
_FREE = ('remat', 'dropout', 'init_std')


def weights(run: Run, config, workdir: Path) -> tuple[dict[str, Weights], dict[str, dict]]:
    """By player what the config restores, placed as in the template of `run`, and where it is from:
    the `folder`, and of a run also the `step` of `num_steps`. Nothing where `workdir` has a
    checkpoint to go on from.

    Raises:
      InputError: there is no such player, the folder holds no weights that can be read, or those
        of another network.
    """
    given, origins = {}, {}
    if hosts.of_first(exist(workdir)):
        return given, origins
    for player, name in config.restore.items():
        if name is None:
            is_frozen = player in run.template.params and player not in run.method.trained
            if is_frozen and hosts.is_first():
                print(
                    f'warning: restore.{player}: None, and nothing trains this player here; it '
                    'stays what it is by chance',
                    file=sys.stderr,
                )
            continue
        if player not in run.template.params:
            raise InputError(
                f'restore.{player}: this method has no such player; it has '
                f'{", ".join(run.template.params)}'
            )
        folder = Path(name).expanduser()
        with _naming(player, folder):
            hosts.together(functools.partial(_check_tokens, run, folder), 'restore')
            if hosts.of_first((folder / 'checkpoints').is_dir()):
                step, given[player] = _of_workdir(run, config, player, folder)
                origins[player] = {'folder': name, **_progress(player, folder, step)}
            else:
                read = functools.partial(_of_huggingface, run, player, folder)
                given[player] = hosts.together(read, 'restore')
                origins[player] = {'folder': name}
    return given, origins


@contextlib.contextmanager
def _naming(player: str, folder: Path) -> Iterator[None]:
    """Names the field and the folder in what is wrong with it."""
    try:
        yield
    except InputError as error:
        reason = str(error).removeprefix('--workdir: ')  # which is how workdirs are named elsewhere
        raise InputError(f'restore.{player}: {folder}: {reason}') from None


def _check_tokens(run: Run, folder: Path) -> None:
    """Raises InputError where the folder says that the numbers of its tokens are others."""
    if run.spec.tokenizer is not None:
        check_tokenizer(folder, run.spec.tokenizer)
    saved = workdirs.saved_spec(folder)
    same = ('units', 'words')  # a tokenizer was compared above
    if saved is not None and any(getattr(saved, n) != getattr(run.spec, n) for n in same):
        raise InputError('its tokens stand for something else than those of the data')


def _progress(player: str, folder: Path, step: int) -> dict[str, int]:
    """How far the run in the folder is; with a word on stderr where it has not ended."""
    num_steps = workdirs.read_json(folder / 'config.json')['train']['num_steps']
    if step < num_steps and hosts.is_first():
        print(
            f'warning: restore.{player}: {folder} is at step {step:,} of {num_steps:,}; this run '
            'begins with what is there now',
            file=sys.stderr,
        )
    return {'step': step, 'num_steps': num_steps}


def _of_workdir(run: Run, config, player: str, folder: Path) -> tuple[int, Weights]:
    prefix = f'networks.{player}.'

    def is_free(field: str, *_) -> bool:
        return not field.startswith(prefix) or field.removeprefix(prefix) in _FREE

    different = workdirs.config_differences(folder, config, is_free)
    if player in config.method and player not in run.method.trained:
        # What this player's answers mean, there as here.
        as_there = config.copy_and_resolve_references()
        with as_there.unlocked():
            as_there.method = as_there.method[player]
        method = workdirs.config_differences(
            folder, as_there, lambda field, *_: not field.startswith('method.')
        )
        different += [line.replace('method.', f'method.{player}.', 1) for line in method]
        _check_spec(run, folder)
    if different:
        raise InputError(f'it has another network: {"; ".join(different)}; set here what is there')
    template = Weights(run.template.params[player])
    if player in run.template.model_state:
        template = template._replace(model_state=run.template.model_state[player])
    with Checkpoints(folder, read_only=True) as checkpoints:
        step, found = checkpoints.restore_player(template, player)
    if found is None:
        raise InputError('it has no finished checkpoint yet; train there first')
    return step, found


def _check_spec(run: Run, folder: Path) -> None:
    """Raises InputError where the examples of the run in the folder were of another kind."""
    saved = workdirs.saved_spec(folder)
    for name in ('shape', 'levels', 'dequantized'):
        if saved is not None and getattr(saved, name) != getattr(run.spec, name):
            raise InputError(
                f'it was trained on data whose {name} is {getattr(saved, name)}, and here it is '
                f'{getattr(run.spec, name)}'
            )


def _of_huggingface(run: Run, player: str, folder: Path) -> Weights:
    if not folder.is_dir():
        raise InputError(
            'there is no such folder; name a workdir, after training there, or None to begin at '
            'random; for a transformer also a folder that save_pretrained of transformers or '
            '--mode=export --format=huggingface has filled'
        )
    network = (run.method.networks or {}).get(player)
    if not isinstance(network, Transformer):
        raise InputError('it is no workdir, and only a transformer over tokens is read from others')
    params = fitted(network, *from_huggingface(folder))

    def place(leaf: jax.ShapeDtypeStruct, array):
        return jax.make_array_from_callback(leaf.shape, leaf.sharding, lambda index: array[index])

    return Weights(jax.tree.map(place, run.template.params[player], params))
