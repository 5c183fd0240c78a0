"""Token transformers as folders of Hugging Face's `transformers`, both ways, bit for bit.

Nothing is computed. Names differ, matrices lie the other way in all layouts but GPT-2's, which has
q, k and v side by side in one; a network without biases is a GPT-2 whose biases are zero. Rotary
positions turn the same pairs of numbers, half a head apart, in all of them.

What the layouts cannot say: attention has no dropout of its own here, and dropout goes with GPT-2
alone. It changes no answer of a trained network.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from gen_jax.errors import InputError
from gen_jax.huggingface.layouts import HEAD, LAYOUTS, Layout, layout_of, places
from gen_jax.networks.transformer import Transformer
from gen_jax.types import Tree

Arrays = dict[str, np.ndarray]

# Tensors of older files that hold no parameters: masks and frequencies.
_CONSTANT = re.compile(
    r'(h\.\d+\.attn\.(masked_)?bias|layers\.\d+\.self_attn\.rotary_emb\.inv_freq)'
)
_TYPES = ('float32', 'float16', 'bfloat16')  # all of which are float32 numbers
_ROTARY = ('rope_theta', 'partial_rotary_factor')
_MAY_BE_NONE = ('hidden', 'num_kv_heads', 'window')
# Fields of a network that its answers do not depend on.
_FREE = ('dropout', 'init_std', 'dtype', 'remat', 'scan', 'parent', 'name')


def to_huggingface(
    network: Transformer, params: Tree, *, start_token: int | None = None
) -> tuple[dict, Arrays]:
    """What config.json and model.safetensors hold of a network.

    Args:
      network: any that `layout_of` has a layout for.
      params: its parameters, float32.
      start_token: the token that begins and ends documents, if there is one.

    Returns:
      The config, and the tensors by their names.

    Raises:
      InputError: as `layout_of`.
    """
    layout = layout_of(network)
    own = _fields_of(network)
    config = {
        'architectures': [layout.architecture],
        'model_type': layout.model_type,
        'torch_dtype': 'float32',
        **{theirs: own[ours] for theirs, ours in layout.numbers.items()},
        **{theirs: values[0] for theirs, values in layout.means.items()},
        **layout.writes,
        'bos_token_id': start_token,
        'eos_token_id': start_token,
    }
    if 'head_dim' in layout.defaults:
        config['head_dim'] = network.width // network.num_heads
    _, params = network.for_decoding(params)
    flat = {name: np.asarray(leaf) for name, leaf in flatten_dict(params, sep='/').items()}
    tensors = {}
    for name, parts in places(layout, network.num_layers, network.tied):
        if parts[0] in flat:
            arrays = [flat[part] for part in parts]
            array = arrays[0] if len(arrays) == 1 else np.concatenate(arrays, -1)
        else:  # a bias that the network does not have
            array = np.zeros(tensors[name.replace('.bias', '.weight')].shape[-1], np.float32)
        is_turned = layout.transposed and parts[0].endswith('/kernel')
        tensors[name] = np.ascontiguousarray(array.T if is_turned else array)
    return config, tensors


def from_huggingface(folder: Path) -> tuple[dict, Tree]:
    """The network in a folder that `save_pretrained` of one of the layouts, or `to_huggingface`,
    has filled.

    Returns:
      The fields of its Transformer, and its parameters, float32, each block by itself.

    Raises:
      InputError: a file is missing or cannot be read, or no Transformer has these weights.
    """
    said = _read_config(folder)
    layout = LAYOUTS.get(said.get('model_type'))
    if layout is None:
        raise InputError(
            f'config.json: no network here has the layout model_type {said.get("model_type")!r}; '
            f'there are {", ".join(LAYOUTS)}'
        )
    fields = _read_fields(layout, said)
    try:
        network = Transformer(**fields)
    except InputError as error:
        raise InputError(f'config.json: {error}') from None
    _check_meaning(layout, said, network)
    return fields, _read_params(layout, network, _read_tensors(folder, layout))


def fitted(network: Transformer, fields: Mapping, params: Tree) -> Tree:
    """Parameters of a network with these fields as those of `network`, which must be the same: but
    for dropout, for biases that are all zero and that it does not have, for positions that need no
    table and that it does not use, and for how its blocks are kept (`scan`).

    Raises:
      InputError: it is another; with every field that differs.
    """
    here, there = _fields_of(network), _fields_of(Transformer(**fields))
    flat = flatten_dict(params, sep='/')
    biases = [name for name in flat if name.endswith('/bias')]
    if biases and not network.bias and not any(flat[name].any() for name in biases):
        there['bias'] = False
        flat = {name: leaf for name, leaf in flat.items() if name not in biases}
    if network.positions != 'learned' and network.context <= there['context']:
        there['context'] = network.context
    different = [
        f'{name} is {value!r} here and {there[name]!r} there'
        for name, value in here.items()
        if name not in _FREE and value != there[name]
    ]
    if different:
        raise InputError(
            f'it is another network than that of the config: {", ".join(different)}; set here what '
            'is there (vocab_size and context follow from the data: from its tokenizer, and from '
            'the length of its examples)'
        )
    params = unflatten_dict(flat, sep='/')
    if network.scan:
        blocks = [params.pop(f'block_{i}') for i in range(network.num_layers)]
        params['blocks'] = jax.tree.map(lambda *leaves: np.stack(leaves), *blocks)
    return params


def _fields_of(network: Transformer) -> dict[str, Any]:
    """The fields of a network, with what None stands for; no base where nothing is turned."""
    own = {name: getattr(network, name) for name in Transformer.__dataclass_fields__}
    own['hidden'] = network.hidden or 4 * network.width
    own['num_kv_heads'] = network.num_kv_heads or network.num_heads
    if network.positions != 'rotary':
        own['rotary_base'] = None
    return own


def _read_config(folder: Path) -> dict:
    path = folder / 'config.json'
    if not path.is_file():
        raise InputError('it has no config.json; name the folder of a model of Hugging Face')
    try:
        said = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f'config.json cannot be read ({error})') from None
    if not isinstance(said, dict):
        raise InputError('config.json is no object; name the folder of a model of Hugging Face')
    return said


def _rotary(said: Mapping) -> dict:
    """What config.json says of rotary positions, in any of its forms."""
    found = said.get('rope_parameters') or said.get('rope_scaling') or {}
    whole = {name: said[name] for name in _ROTARY if name in said} | found
    return {'rope_type': found.get('type', 'default')} | whole


def _read_fields(layout: Layout, said: Mapping) -> dict[str, Any]:
    """The fields of the Transformer, of what config.json says."""
    values = {**layout.defaults, **said}
    if 'rope_theta' in layout.numbers:
        values |= {'rope_theta': layout.defaults['rope_theta']} | _rotary(said)
    fields = dict(layout.needs)
    for theirs, ours in layout.numbers.items():
        value = values.get(theirs)
        if not isinstance(value, int | float) and not (value is None and ours in _MAY_BE_NONE):
            raise InputError(f'config.json: {theirs} is {value!r}; it must be a number')
        fields[ours] = value
    return fields


def _check_meaning(layout: Layout, said: Mapping, network: Transformer) -> None:
    """Raises InputError for what config.json says and no network here is."""
    values = {**layout.defaults, **said}
    meant = {**layout.means, 'head_dim': (None, network.width // network.num_heads)}
    if 'rope_theta' in layout.numbers:
        values |= _rotary(said)
        meant |= {'rope_type': ('default',), 'partial_rotary_factor': (None, 1)}
    for name, allowed in meant.items():
        if name in values and values[name] not in allowed:
            raise InputError(
                f'config.json: {name} is {values[name]!r}, and no network here is so; it must be '
                f'{" or ".join(repr(value) for value in allowed)}'
            )


def _read_tensors(folder: Path, layout: Layout) -> Arrays:
    """By their names, with the layout's prefix, which those of a model without a head lack."""
    from safetensors import SafetensorError, safe_open

    names = ['model.safetensors']
    index = folder / 'model.safetensors.index.json'
    tensors = {}
    try:
        if index.is_file():
            names = sorted(set(json.loads(index.read_text())['weight_map'].values()))
        for path in (folder / name for name in names):
            if not path.is_file():
                raise InputError(
                    f'there is no {path.name}; weights in another format are converted once, with '
                    'torch and transformers: `AutoModelForCausalLM.from_pretrained(folder)'
                    '.save_pretrained(other)`'
                )
            with safe_open(path, framework='numpy') as file:
                for name in file.keys():  # noqa: SIM118
                    bare = name.removeprefix(layout.prefix)
                    if not _CONSTANT.fullmatch(bare):
                        full = name if name == HEAD else layout.prefix + bare
                        tensors[full] = _as_float32(name, file.get_tensor(name))
    except (SafetensorError, OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f'its weights cannot be read ({error})') from None
    return tensors


def _as_float32(name: str, array: np.ndarray) -> np.ndarray:
    if array.dtype.name not in _TYPES:
        raise InputError(f'{name} is of type {array.dtype.name}; use one of {", ".join(_TYPES)}')
    return array.astype(np.float32, copy=False)


def _read_params(layout: Layout, network: Transformer, tensors: Arrays) -> Tree:
    """The network's parameters; takes the tensors out of `tensors`."""
    tokens = jnp.zeros((1, 1), jnp.int32)
    shapes = nn.unbox(jax.eval_shape(network.init, jax.random.key(0), tokens)['params'])
    shapes = {name: leaf.shape for name, leaf in flatten_dict(shapes, sep='/').items()}
    flat = {}
    for name, parts in places(layout, network.num_layers, network.tied):
        if name not in tensors:
            raise InputError(f'its weights have no {name}, which its config.json calls for')
        array = tensors.pop(name)
        if layout.transposed and parts[0].endswith('/kernel'):
            array = array.T
        wanted = (*shapes[parts[0]][:-1], sum(shapes[part][-1] for part in parts))
        if array.shape != wanted:
            raise InputError(
                f'{name} has numbers for {list(array.shape)}; its config.json calls for '
                f'{list(wanted)}'
            )
        flat |= zip(parts, np.split(array, len(parts), -1), strict=True)
    head = tensors.pop(HEAD, None)  # a tied one may be there, too
    if head is not None and not np.array_equal(head, flat['tokens/embedding']):
        raise InputError(
            f'{HEAD} is another matrix than that of the tokens, and tie_word_embeddings of its '
            'config.json says that they are one; set that to false'
        )
    if tensors:
        raise InputError(f'its weights have {min(tensors)}, which no {layout.architecture} has')
    return unflatten_dict(flat, sep='/')
