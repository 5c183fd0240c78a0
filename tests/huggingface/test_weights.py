"""Folders of Hugging Face, written and read without its libraries: what goes out comes back."""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from gen_jax.errors import InputError
from gen_jax.huggingface.weights import fitted, from_huggingface, to_huggingface
from gen_jax.networks.transformer import Transformer

LLAMA = {'positions': 'rotary', 'norm': 'rmsnorm', 'activation': 'swiglu', 'bias': False}
FORMS = {
    'gpt2': {'dropout': 0.1},
    'gpt2 scanned, untied': {'scan': True, 'tied': False, 'hidden': 24},
    'gpt2 without biases': {'bias': False},
    'llama': {**LLAMA, 'num_kv_heads': 2, 'tied': False, 'rotary_base': 500.0},
    'mistral': {**LLAMA, 'window': 3},
    'qwen3 scanned': {**LLAMA, 'qk_norm': True, 'norm_epsilon': 1e-6, 'scan': True},
}
SIZES = {'vocab_size': 11, 'context': 8, 'width': 16, 'num_layers': 2, 'num_heads': 4}


def make(**fields) -> tuple[Transformer, dict]:
    """A small network, and parameters of which none are what they are at the start."""
    network = Transformer(**SIZES | fields)
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32))
    generator = np.random.default_rng(1)
    params = jax.tree.map(
        lambda leaf: generator.normal(size=leaf.shape).astype(np.float32), nn.unbox(shapes)
    )
    return network, params['params']


def write(folder, config, tensors):
    """A folder of Hugging Face with this in it."""
    folder.mkdir(exist_ok=True)
    (folder / 'config.json').write_text(json.dumps(config))
    save_file(tensors, folder / 'model.safetensors', metadata={'format': 'pt'})
    return folder


def same(a, b) -> bool:
    """Whether two trees are equal, bit for bit."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(x.dtype == y.dtype and x.tobytes() == y.tobytes() for x, y in pairs)


@pytest.mark.parametrize('form', FORMS)
def test_what_is_written_is_read_bit_for_bit(form, tmp_path):
    network, params = make(**FORMS[form])
    config, tensors = to_huggingface(network, params, start_token=10)
    fields, found = from_huggingface(write(tmp_path, config, tensors))
    assert same(fitted(network, fields, found), params)
    again, same_tensors = to_huggingface(Transformer(**fields), found, start_token=10)
    assert again == config and same(same_tensors, tensors)
    assert config['bos_token_id'] == config['eos_token_id'] == 10


def test_matrices_lie_as_each_layout_has_them():
    network, params = make()
    _, tensors = to_huggingface(network, params)
    fused = tensors['transformer.h.1.attn.c_attn.weight']
    parts = [params['block_1']['attention'][part]['kernel'] for part in 'qkv']
    np.testing.assert_array_equal(fused, np.concatenate(parts, 1))
    network, params = make(**LLAMA)
    _, tensors = to_huggingface(network, params)
    # silu is of what Llama calls the gate, which is not what is called so here.
    gate = tensors['model.layers.0.mlp.gate_proj.weight']
    np.testing.assert_array_equal(gate, params['block_0']['in']['kernel'].T)


def test_older_files_in_other_forms_are_read(tmp_path):
    """A base model's names, masks among the tensors, a head that is there twice, several files,
    and entries of config.json left out."""
    network, params = make()
    config, tensors = to_huggingface(network, params)
    for name in ('n_inner', 'layer_norm_epsilon', 'tie_word_embeddings', 'add_cross_attention'):
        del config[name]
    tensors = {name.removeprefix('transformer.'): array for name, array in tensors.items()}
    tensors['h.0.attn.bias'] = np.ones((1, 1, 8, 8), np.bool_)
    tensors['h.1.attn.masked_bias'] = np.float32([-1e4])
    tensors['lm_head.weight'] = tensors['wte.weight']
    parts = ('a.safetensors', 'b.safetensors')
    places = {name: parts[i % 2] for i, name in enumerate(tensors)}
    for part in parts:
        mine = {name: array for name, array in tensors.items() if places[name] == part}
        save_file(mine, tmp_path / part)
    (tmp_path / 'config.json').write_text(json.dumps(config))
    index = {'metadata': {}, 'weight_map': places}
    (tmp_path / 'model.safetensors.index.json').write_text(json.dumps(index))
    assert same(fitted(network, *from_huggingface(tmp_path)), params)


def test_half_precision_is_read_as_the_same_numbers(tmp_path):
    network, params = make(**LLAMA)
    half = jax.tree.map(lambda leaf: np.asarray(jnp.asarray(leaf, 'bfloat16')), params)
    config, tensors = to_huggingface(network, half)
    _, found = from_huggingface(write(tmp_path, config | {'torch_dtype': 'bfloat16'}, tensors))
    assert same(found, jax.tree.map(lambda leaf: leaf.astype(np.float32), half))


@pytest.mark.parametrize(
    ('rotary', 'base'),
    [
        ({'rope_theta': 7.0}, 7.0),
        ({'rope_parameters': {'rope_theta': 7.0, 'rope_type': 'default'}}, 7.0),
        ({'rope_theta': 7.0, 'rope_scaling': None}, 7.0),
        ({}, 10_000.0),
    ],
)
def test_the_base_of_rotary_positions_is_found_wherever_it_is(rotary, base, tmp_path):
    config, tensors = to_huggingface(*make(**LLAMA))
    del config['rope_theta']
    fields, _ = from_huggingface(write(tmp_path, config | rotary, tensors))
    assert fields['rotary_base'] == base


def test_a_shorter_context_is_fine_where_positions_need_no_table(tmp_path):
    network, params = make(**LLAMA)
    folder = write(tmp_path, *to_huggingface(network, params))
    assert same(fitted(network.clone(context=5), *from_huggingface(folder)), params)
    with pytest.raises(InputError, match='context is 9 here and 8 there'):
        fitted(network.clone(context=9), *from_huggingface(folder))


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        ({'positions': 'alibi'}, "positions: 'alibi' .* 'learned' .* 'rotary'"),
        ({'positions': 'none'}, "positions: 'none' .* 'learned' .* 'rotary'"),
        ({'norm': 'rmsnorm'}, "norm: 'rmsnorm' .* GPT2LMHeadModel.*'layernorm' can"),
        ({'activation': 'relu2'}, "activation: 'relu2' .* 'gelu' can"),
        ({'num_kv_heads': 2}, 'num_kv_heads: 2 .* 4 can'),
        ({'qk_norm': True}, 'qk_norm: True .* False can'),
        ({'window': 4}, 'window: 4 .* None can'),
        ({'soft_cap': 30.0}, 'soft_cap: 30.0 .* None can'),
        ({'period': 4}, 'period: 4 .* None can'),
        (LLAMA | {'bias': True}, 'bias: True .* LlamaForCausalLM.* False can'),
        (LLAMA | {'norm': 'layernorm'}, "norm: 'layernorm' .* 'rmsnorm' can"),
        (LLAMA | {'qk_norm': True, 'window': 4}, 'window: 4 .* Qwen3ForCausalLM.* None can'),
    ],
)
def test_what_no_layout_can_express_is_named(fields, message):
    with pytest.raises(InputError, match=message):
        to_huggingface(*make(**fields))


def test_another_network_is_refused_with_every_field_that_differs(tmp_path):
    folder = write(tmp_path, *to_huggingface(*make()))
    other = {'width': 32, 'vocab_size': 12, 'context': 4, 'norm_epsilon': 1e-6, 'tied': False}
    with pytest.raises(InputError) as error:
        fitted(Transformer(**SIZES | other), *from_huggingface(folder))
    for difference in ('width is 32 here and 16', 'vocab_size is 12 here and 11', 'tied is False'):
        assert difference in str(error.value)
    # What changes no answer may be another: it is the config's to say.
    free = {'dropout': 0.5, 'init_std': 1.0, 'remat': True, 'dtype': 'bfloat16', 'hidden': 64}
    fitted(Transformer(**SIZES | free), *from_huggingface(folder))


def test_biases_that_are_not_zero_need_a_network_with_biases(tmp_path):
    folder = write(tmp_path, *to_huggingface(*make()))
    with pytest.raises(InputError, match='bias is False here and True there'):
        fitted(Transformer(**SIZES, bias=False), *from_huggingface(folder))


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'model_type': 'bloom'}, "model_type 'bloom'; there are gpt2, llama, mistral, qwen3"),
        ({'hidden_size': 'big'}, "hidden_size is 'big'; it must be a number"),
        ({'num_attention_heads': 3}, 'num_heads: 3 do not divide'),
        ({'head_dim': 8}, 'head_dim is 8, .* must be None or 4'),
        ({'hidden_act': 'gelu'}, "hidden_act is 'gelu', .* must be 'silu' or 'swish'"),
        ({'attention_bias': True}, 'attention_bias is True'),
        ({'rope_scaling': {'rope_type': 'yarn', 'factor': 4.0}}, "rope_type is 'yarn'"),
        ({'rope_scaling': {'type': 'linear', 'factor': 2.0}}, "rope_type is 'linear'"),
        ({'partial_rotary_factor': 0.5}, 'partial_rotary_factor is 0.5'),
        ({'vocab_size': 12}, r'embed_tokens.weight has numbers for \[11, 16\]; .* \[12, 16\]'),
        ({'num_hidden_layers': 3}, 'have no model.layers.2.input_layernorm.weight'),
        ({'num_hidden_layers': 1}, 'have model.layers.1.input_layernorm.weight, which no Llama'),
        ({'tie_word_embeddings': False}, 'have no lm_head.weight'),
    ],
)
def test_a_config_that_means_something_else_is_refused(changes, message, tmp_path):
    config, tensors = to_huggingface(*make(**LLAMA))
    with pytest.raises(InputError, match=message):
        from_huggingface(write(tmp_path, config | changes, tensors))


def test_files_that_cannot_be_read_are_named(tmp_path):
    config, tensors = to_huggingface(*make())
    with pytest.raises(InputError, match=r'no config.json'):
        from_huggingface(tmp_path)
    (tmp_path / 'config.json').write_text('{')
    with pytest.raises(InputError, match=r'config.json cannot be read'):
        from_huggingface(tmp_path)
    (tmp_path / 'config.json').write_text(json.dumps(config))
    with pytest.raises(InputError, match=r'no model.safetensors; .*save_pretrained'):
        from_huggingface(tmp_path)
    (tmp_path / 'model.safetensors').write_bytes(b'torch')
    with pytest.raises(InputError, match='weights cannot be read'):
        from_huggingface(tmp_path)
    name = 'transformer.wte.weight'
    write(tmp_path, config, tensors | {name: tensors[name].astype(np.int8)})
    with pytest.raises(InputError, match=r'wte.weight is of type int8'):
        from_huggingface(tmp_path)
    write(tmp_path, config, tensors | {'lm_head.weight': tensors[name] + 1})
    with pytest.raises(InputError, match=r'lm_head.weight is another matrix'):
        from_huggingface(tmp_path)
