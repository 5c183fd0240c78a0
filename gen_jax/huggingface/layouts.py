"""Classes of Hugging Face's `transformers`: which networks they can be, and where they have what.

GPT2LMHeadModel      positions 'learned', norm 'layernorm', activation 'gelu'
LlamaForCausalLM     positions 'rotary', norm 'rmsnorm', activation 'swiglu', no biases
MistralForCausalLM   Llama with a window
Qwen3ForCausalLM     Llama with `qk_norm`
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from gen_jax.errors import InputError
from gen_jax.networks.transformer import Transformer

HEAD = 'lm_head.weight'


class Layout(NamedTuple):
    """A class of `transformers`: which networks it can be, and where it has what.

    architecture, model_type: its name, and that of its kind.
    needs: fields of the network that must have this value.
    numbers: entries of config.json that are fields of the network.
    defaults: what those stand for that config.json may leave out.
    means: entries of config.json, with the values for which the network is the same; the first is
      written.
    writes: entries that are written, and make no difference to the network.
    prefix: of the names of all tensors but the head's.
    outside, inside: tensors outside of the blocks and in block {}, and the parameters in each: side
      by side along the last axis where they are several.
    transposed: whether a matrix is `[out, in]`.
    """

    architecture: str
    model_type: str
    needs: dict[str, Any]
    numbers: dict[str, str]
    defaults: dict[str, Any]
    means: dict[str, tuple]
    writes: dict[str, Any]
    prefix: str
    outside: dict[str, tuple[str, ...]]
    inside: dict[str, tuple[str, ...]]
    transposed: bool


def _affine(name: str, ours: str, gain: str = 'kernel') -> dict[str, tuple[str, ...]]:
    return {f'{name}.weight': (f'{ours}/{gain}',), f'{name}.bias': (f'{ours}/bias',)}


GPT2 = Layout(
    architecture='GPT2LMHeadModel',
    model_type='gpt2',
    needs={
        'positions': 'learned',
        'norm': 'layernorm',
        'activation': 'gelu',
        'qk_norm': False,
        'window': None,
        'period': None,
        'soft_cap': None,
    },
    numbers={
        'vocab_size': 'vocab_size',
        'n_positions': 'context',
        'n_embd': 'width',
        'n_layer': 'num_layers',
        'n_head': 'num_heads',
        'n_inner': 'hidden',
        'layer_norm_epsilon': 'norm_epsilon',
        'initializer_range': 'init_std',
        'embd_pdrop': 'dropout',
        'resid_pdrop': 'dropout',
        'tie_word_embeddings': 'tied',
    },
    defaults={
        'n_inner': None,
        'layer_norm_epsilon': 1e-5,
        'initializer_range': 0.02,
        'embd_pdrop': 0.1,
        'resid_pdrop': 0.1,
        'tie_word_embeddings': True,
    },
    means={
        'activation_function': ('gelu_new', 'gelu_pytorch_tanh'),
        'scale_attn_weights': (True,),
        'scale_attn_by_inverse_layer_idx': (False,),
        'add_cross_attention': (False,),
    },
    writes={'attn_pdrop': 0.0},
    prefix='transformer.',
    outside={
        'wte.weight': ('tokens/embedding',),
        'wpe.weight': ('positions/embedding',),
        **_affine('ln_f', 'norm_out', 'scale'),
    },
    inside={
        **_affine('h.{}.ln_1', 'norm_0', 'scale'),
        **{
            f'h.{{}}.attn.c_attn.{theirs}': tuple(f'attention/{part}/{ours}' for part in 'qkv')
            for theirs, ours in (('weight', 'kernel'), ('bias', 'bias'))
        },
        **_affine('h.{}.attn.c_proj', 'attention/out'),
        **_affine('h.{}.ln_2', 'norm_1', 'scale'),
        **_affine('h.{}.mlp.c_fc', 'in'),
        **_affine('h.{}.mlp.c_proj', 'out'),
    },
    transposed=False,
)

LLAMA = Layout(
    architecture='LlamaForCausalLM',
    model_type='llama',
    needs={
        'positions': 'rotary',
        'norm': 'rmsnorm',
        'activation': 'swiglu',
        'bias': False,
        'qk_norm': False,
        'window': None,
        'period': None,
        'soft_cap': None,
    },
    numbers={
        'vocab_size': 'vocab_size',
        'max_position_embeddings': 'context',
        'hidden_size': 'width',
        'num_hidden_layers': 'num_layers',
        'num_attention_heads': 'num_heads',
        'num_key_value_heads': 'num_kv_heads',
        'intermediate_size': 'hidden',
        'rms_norm_eps': 'norm_epsilon',
        'rope_theta': 'rotary_base',
        'initializer_range': 'init_std',
        'tie_word_embeddings': 'tied',
    },
    defaults={
        'num_key_value_heads': None,
        'head_dim': None,
        'rms_norm_eps': 1e-6,
        'rope_theta': 10_000.0,
        'initializer_range': 0.02,
        'tie_word_embeddings': False,
    },
    means={'hidden_act': ('silu', 'swish'), 'attention_bias': (False,), 'mlp_bias': (False,)},
    writes={'attention_dropout': 0.0},
    prefix='model.',
    outside={'embed_tokens.weight': ('tokens/embedding',), 'norm.weight': ('norm_out/scale',)},
    inside={
        'layers.{}.input_layernorm.weight': ('norm_0/scale',),
        **{
            f'layers.{{}}.self_attn.{part}_proj.weight': (f'attention/{part}/kernel',)
            for part in 'qkv'
        },
        'layers.{}.self_attn.o_proj.weight': ('attention/out/kernel',),
        'layers.{}.post_attention_layernorm.weight': ('norm_1/scale',),
        'layers.{}.mlp.gate_proj.weight': ('in/kernel',),
        'layers.{}.mlp.up_proj.weight': ('gate/kernel',),
        'layers.{}.mlp.down_proj.weight': ('out/kernel',),
    },
    transposed=True,
)

MISTRAL = LLAMA._replace(
    architecture='MistralForCausalLM',
    model_type='mistral',
    needs={name: value for name, value in LLAMA.needs.items() if name != 'window'},
    numbers=LLAMA.numbers | {'sliding_window': 'window'},
    defaults=LLAMA.defaults | {'num_key_value_heads': 8, 'sliding_window': 4096},
    means={'hidden_act': ('silu', 'swish')},
)

QWEN3 = LLAMA._replace(
    architecture='Qwen3ForCausalLM',
    model_type='qwen3',
    needs=LLAMA.needs | {'qk_norm': True},
    defaults=LLAMA.defaults | {'num_key_value_heads': 32, 'head_dim': 128},
    means={
        'hidden_act': ('silu', 'swish'),
        'attention_bias': (False,),
        'use_sliding_window': (False,),
    },
    inside=LLAMA.inside
    | {
        f'layers.{{}}.self_attn.{part}_norm.weight': (f'attention/{part}_norm/scale',)
        for part in 'qk'
    },
)

LAYOUTS = {layout.model_type: layout for layout in (GPT2, LLAMA, MISTRAL, QWEN3)}


def layout_of(network: Transformer) -> Layout:
    """The layout that can express this network.

    Raises:
      InputError: none can; it names the field, and what could be expressed.
    """
    if network.positions not in ('learned', 'rotary'):
        raise InputError(
            f'positions: {network.positions!r} is in no layout of Hugging Face that is known here; '
            "'learned' (GPT-2) and 'rotary' (Llama, Mistral, Qwen3) are"
        )
    layout = GPT2
    if network.positions == 'rotary':
        layout = MISTRAL if network.window is not None else LLAMA
        layout = QWEN3 if network.qk_norm else layout
    needs = dict(layout.needs)
    if layout is GPT2 and network.num_kv_heads is not None:
        needs['num_kv_heads'] = network.num_heads
    for field, value in needs.items():
        if getattr(network, field) != value:
            raise InputError(
                f'{field}: {getattr(network, field)!r} cannot be expressed in the layout of '
                f'{layout.architecture}, the nearest to this network; {value!r} can'
            )
    return layout


def places(layout: Layout, num_layers: int, tied: bool) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Every tensor, a weight before its bias, with the parameters in it."""
    for name, parts in layout.outside.items():
        yield layout.prefix + name, parts
    for i in range(num_layers):
        for name, parts in layout.inside.items():
            yield layout.prefix + name.format(i), tuple(f'block_{i}/{part}' for part in parts)
    if not tied:
        yield HEAD, ('head/embedding',)
