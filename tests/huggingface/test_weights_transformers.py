"""Against the models of `transformers` themselves: the same logits, and the same greedy tokens."""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from gen_jax.huggingface.weights import fitted, from_huggingface, to_huggingface
from gen_jax.networks.transformer import Transformer
from gen_jax.samplers import tokens as samplers

torch = pytest.importorskip('torch')
transformers = pytest.importorskip('transformers')

VOCAB, CONTEXT = 37, 24
SIZES = {'vocab_size': VOCAB, 'context': CONTEXT, 'width': 32, 'num_layers': 2, 'num_heads': 4}
LLAMA = {'positions': 'rotary', 'norm': 'rmsnorm', 'activation': 'swiglu', 'bias': False}
FORMS = {
    'gpt2': {},
    'gpt2 without biases, untied, scanned': {'bias': False, 'tied': False, 'scan': True},
    'llama, grouped, untied': {**LLAMA, 'num_kv_heads': 2, 'tied': False, 'hidden': 48},
    'llama, tied, scanned': {**LLAMA, 'rotary_base': 500.0, 'norm_epsilon': 0.1, 'scan': True},
    'mistral': {**LLAMA, 'window': 5, 'num_kv_heads': 1},
    # An epsilon so large that a norm with another one would be seen.
    'qwen3': {**LLAMA, 'qk_norm': True, 'norm_epsilon': 0.1, 'num_kv_heads': 2},
}
TOKENS = np.random.default_rng(2).integers(0, VOCAB, (3, CONTEXT))


@pytest.fixture(scope='module', params=FORMS)
def pair(request, tmp_path_factory):
    """A network with its parameters, and the model that `transformers` opens of it."""
    network = Transformer(**SIZES, **FORMS[request.param])
    generator = np.random.default_rng(1)  # so that no bias is zero, and no gain one
    params = jax.tree.map(
        lambda leaf: 0.3 * generator.normal(size=leaf.shape).astype(np.float32), shapes_of(network)
    )
    folder = tmp_path_factory.mktemp('ours')
    config, tensors = to_huggingface(network, params)
    (folder / 'config.json').write_text(json.dumps(config))
    save_file(tensors, folder / 'model.safetensors', metadata={'format': 'pt'})
    return network, params, opened(folder)


def shapes_of(network):
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32))
    return nn.unbox(shapes)['params']


def opened(folder):
    model, report = transformers.AutoModelForCausalLM.from_pretrained(
        folder, output_loading_info=True
    )
    assert not any(report.values()), report  # nothing missing, left over or of another shape
    assert model.dtype == torch.float32
    return model.eval()


def logits_of(model) -> np.ndarray:
    with torch.no_grad():
        return model(torch.tensor(TOKENS)).logits.numpy()


def check_logits(network, params, model):
    ours = np.asarray(jax.jit(network.apply)({'params': params}, jnp.asarray(TOKENS)))
    theirs = logits_of(model)
    assert theirs.std() > 0.3
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * max(1, np.abs(theirs).max()))


def test_our_network_has_the_same_logits_there(pair):
    check_logits(*pair)


def test_their_model_has_the_same_logits_here(pair, tmp_path):
    """Weights that `transformers` has drawn and saved, in a network of the same fields."""
    network, _, model = pair
    torch.manual_seed(3)
    theirs = type(model)(model.config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
        if not network.bias:
            for name, parameter in theirs.named_parameters():
                if name.endswith('.bias'):
                    parameter.zero_()
    theirs.save_pretrained(tmp_path)
    params = fitted(network, *from_huggingface(tmp_path))
    check_logits(network, params, theirs)


def test_what_transformers_saved_is_written_as_it_was(pair, tmp_path):
    """Its tensors bit for bit, and what its config says of the network."""
    _, _, model = pair
    model.save_pretrained(tmp_path)
    fields, params = from_huggingface(tmp_path)
    config, tensors = to_huggingface(Transformer(**fields), params)
    saved = model.state_dict()
    if fields['tied']:
        del saved['lm_head.weight']
    assert tensors.keys() == saved.keys()
    for name, array in tensors.items():
        assert array.tobytes() == saved[name].contiguous().numpy().tobytes(), name
    ours = transformers.AutoConfig.for_model(**config).to_dict()
    assert ours | {'_name_or_path': None} == model.config.to_dict() | {'_name_or_path': None}


@pytest.mark.parametrize('pair', ['gpt2', 'mistral'], indirect=True)
def test_greedy_tokens_are_the_same(pair):
    network, params, model = pair
    plain, own = network.for_decoding(params)

    def read(tokens, cache, start):
        return plain.apply({'params': own}, tokens, cache=cache, start=start)

    prompt = 4
    predictor = samplers.Predictor(read, plain.init_cache, plain.grow_cache, VOCAB, CONTEXT)
    known = jnp.broadcast_to(jnp.arange(CONTEXT) < prompt, TOKENS.shape)
    rules = samplers.Rules(temperature=0.0)
    ours = jax.jit(
        lambda tokens: samplers.generate(
            predictor, tokens, known, jax.random.key(0), rules, prefix=prompt
        )
    )(jnp.asarray(TOKENS, jnp.int32))
    theirs = model.generate(
        torch.tensor(TOKENS[:, :prompt]),
        attention_mask=torch.ones(3, prompt, dtype=torch.long),
        do_sample=False,
        max_length=CONTEXT,
    )
    np.testing.assert_array_equal(ours, theirs.numpy())


def test_gpt2_of_124_million_has_every_tensor_by_name_and_shape():
    network = Transformer(vocab_size=50257, context=1024)
    # One byte for each number: what it is does not matter.
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.int8), shapes_of(network))
    config, tensors = to_huggingface(network, params, start_token=50256)
    with torch.device('meta'):
        model = transformers.GPT2LMHeadModel(transformers.GPT2Config())
    wanted = {name: tuple(leaf.shape) for name, leaf in model.state_dict().items()}
    del wanted['lm_head.weight']  # the same matrix as that of the tokens
    assert {name: array.shape for name, array in tensors.items()} == wanted
    assert sum(array.size for array in tensors.values()) == 124_439_808
    ours, theirs = transformers.GPT2Config(**config).to_dict(), model.config.to_dict()
    different = {name for name in theirs if ours[name] != theirs[name]}
    # Dropout, which is the config's of the run to say, and n_inner, where None means 4 n_embd.
    dropouts = {'attn_pdrop', 'embd_pdrop', 'resid_pdrop'}
    assert different == dropouts | {'n_inner', 'architectures', 'dtype'}
