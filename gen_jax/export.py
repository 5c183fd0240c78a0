"""`--mode=export`: the averaged weights of a run, to be used without it.

    weights       one file, safetensors: `<player>/<module>/.../<leaf>`
    huggingface   a folder that `transformers` opens, by `AutoModelForCausalLM.from_pretrained` and,
                  where it is of text, `AutoTokenizer.from_pretrained`; see `huggingface/`

Either has in its file's metadata, under 'gen_jax', what network these are the weights of.

A folder is of a model when config.json is in it. That file is removed first and written last, so a
folder that is only half written is opened by nobody.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np

from gen_jax import workdir as workdirs
from gen_jax.errors import InputError, in_section
from gen_jax.files import replacing
from gen_jax.huggingface.layouts import layout_of
from gen_jax.huggingface.tokenizer import tokenizer_config
from gen_jax.huggingface.weights import to_huggingface
from gen_jax.networks.transformer import Transformer
from gen_jax.run import Run, assemble
from gen_jax.state import sampling_params
from gen_jax.trained import trained
from gen_jax.types import DataSpec, Tree
from gen_jax.workdir import config_values
from gen_jax.writers import write_atomically, write_json

_SUFFIXES = ('.safetensors',)


def export(
    config,
    workdir: Path,
    *,
    checkpoint: str = 'latest',
    out: str | None = None,
    format: str = 'weights',
    ema_length: float | None = None,
) -> Path:
    """Writes the weights that samples are drawn with, of a checkpoint of `workdir`.

    Args:
      config: the run's config.
      workdir: the run's folder.
      checkpoint: 'latest', 'best' or a step.
      out: for 'weights' a file ending in `.safetensors`, None for `weights.safetensors` in the
        workdir; for 'huggingface' a folder, new, empty or of such an export, None for
        `huggingface/` in the workdir.
      format: 'weights' or 'huggingface'.
      ema_length: of the average of the weights; see `trained.py`.

    Returns:
      The file or folder written.

    Raises:
      InputError: bad config or flags, no readable checkpoint, or a network that the format has no
        words for.
    """
    is_folder = format == 'huggingface'
    if out is None:
        workdirs.check(workdir, config)
        path = workdir / ('huggingface' if is_folder else 'weights.safetensors')
    else:
        workdirs.check_config(workdir, config)
        path = workdirs.check_out_folder(out) if is_folder else workdirs.check_out(out, _SUFFIXES)
    if is_folder:
        _check_is_ours(path)
    run = assemble(config, spec=workdirs.saved_spec(workdir))
    player = _transformer(run, config) if is_folder else None
    state, average = trained(run, config, workdir, checkpoint, ema_length)
    params = jax.device_get(sampling_params(state))
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
    if is_folder:
        _write_folder(path, run.method.networks[player], params[player], run.spec, facts)
    else:
        # What a method carries besides parameters, such as a codebook, is needed to use them.
        rest = {'model_state': jax.device_get(state.model_state)} if state.model_state else {}
        flat, _ = jax.tree_util.tree_flatten_with_path({**params, **rest})
        arrays = {
            jax.tree_util.keystr(name, simple=True, separator='/'): np.ascontiguousarray(leaf)
            for name, leaf in flat
        }
        _write_tensors(path, arrays, facts)
    print(path)
    return path


def _write_tensors(path: Path, arrays: dict, facts: dict, **metadata: str) -> None:
    from safetensors.numpy import save

    with replacing(path) as file:
        file.write(save(arrays, metadata={**metadata, 'gen_jax': json.dumps(facts)}))


def _write_folder(
    folder: Path, network: Transformer, params: Tree, spec: DataSpec, facts: Mapping
) -> None:
    config, tensors = to_huggingface(network, params, start_token=spec.start_token)
    generation = {name: config[name] for name in ('bos_token_id', 'eos_token_id')}
    # Rows that only ever stand before an example, as an image's start does, are not to be drawn.
    known = spec.levels if spec.vocab_size is None else spec.vocab_size
    if known < network.vocab_size:
        generation['suppress_tokens'] = [*range(known, network.vocab_size)]
    folder.mkdir(exist_ok=True)
    for stale in ('config.json', 'tokenizer.json', 'tokenizer_config.json'):
        (folder / stale).unlink(missing_ok=True)
    _write_tensors(folder / 'model.safetensors', tensors, facts, format='pt')
    write_json(folder / 'generation_config.json', generation)
    if spec.tokenizer is not None:
        write_atomically(folder / 'tokenizer.json', spec.tokenizer)
        beside = tokenizer_config(spec.tokenizer, spec.start_token, network.context)
        write_json(folder / 'tokenizer_config.json', beside)
    write_json(folder / 'config.json', config)


def _check_is_ours(folder: Path) -> None:
    """Raises InputError for a folder that has something in it, and is of no such export."""
    from safetensors import SafetensorError, safe_open

    inside = [] if not folder.exists() else [*folder.iterdir()]
    if all(path.suffix == '.partial' for path in inside):
        return
    try:
        with safe_open(folder / 'model.safetensors', framework='numpy') as file:
            is_ours = 'gen_jax' in (file.metadata() or {})
    except (OSError, SafetensorError):
        is_ours = False
    if not is_ours:
        raise InputError(
            f'--out: there is something in {folder} that no --format=huggingface wrote; name a new '
            'or an empty folder'
        )


def _transformer(run: Run, config) -> str:
    """The player whose network goes into a folder for `transformers`.

    Raises:
      InputError: there is none, or its layout is unknown there.
    """
    networks = run.method.networks or {}
    players = [name for name, network in networks.items() if isinstance(network, Transformer)]
    if len(players) != 1:
        raise InputError(
            '--format: huggingface is for a model that is one transformer over tokens, and '
            f'{config.method.name} has {len(players)} of them; use --format=weights'
        )
    with in_section(f'networks.{players[0]}'):
        layout_of(networks[players[0]])
    return players[0]
