"""A run's averaged weights in a folder of Hugging Face, whole or not at all."""

import importlib
import json
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from gen_jax import export as exports
from gen_jax.errors import InputError
from gen_jax.export import export
from gen_jax.huggingface.weights import fitted, from_huggingface
from gen_jax.run import assemble
from gen_jax.train import train

TEXT = 'The quick brown fox jumps over the lazy dog.\n\n  Größe, naïve: 漢字?\n' * 3
END = '<|endoftext|>'


@pytest.fixture(scope='module')
def trained(tokens_config, tokens_run):
    """A config, the folder it was trained in, and the last state."""
    return tokens_config(), *tokens_run


def tokenizer() -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=[END], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    made.train_from_iterator([TEXT], trainer)
    return made


def names_in(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_folder_holds_the_averaged_weights(trained, tmp_path):
    config, workdir, state = trained
    workdir = shutil.copytree(workdir, tmp_path / 'run')
    folder = export(config, workdir, format='huggingface')
    assert folder == workdir / 'huggingface'
    assert names_in(folder) == ['config.json', 'generation_config.json', 'model.safetensors']
    network = assemble(config).method.networks['model']
    found = fitted(network, *from_huggingface(folder))
    jax.tree.map(np.testing.assert_array_equal, found, jax.device_get(state.ema_params['model']))
    assert not np.array_equal(
        found['tokens']['embedding'], state.params['model']['tokens']['embedding']
    )
    # The token before an image is none that is drawn.
    generation = json.loads((folder / 'generation_config.json').read_text())
    assert generation['suppress_tokens'] == [17]


def with_tokenizer(monkeypatch, text: str):
    """Makes the run's data one with this tokenizer, as that of documents is."""

    def changed(config, spec):
        run = assemble(config, spec=spec)
        return run._replace(spec=run.spec._replace(tokenizer=text, start_token=0))

    monkeypatch.setattr(exports, 'assemble', changed)


def test_a_tokenizer_goes_with_it(trained, tmp_path, monkeypatch):
    config, workdir, _ = trained
    text = tokenizer().to_str()
    with_tokenizer(monkeypatch, text)
    folder = export(config, workdir, format='huggingface', out=str(tmp_path / 'new'))
    assert (folder / 'tokenizer.json').read_text() == text
    beside = json.loads((folder / 'tokenizer_config.json').read_text())
    assert beside['bos_token'] == beside['eos_token'] == END
    assert beside['model_max_length'] == 64
    for name in ('config.json', 'generation_config.json'):
        said = json.loads((folder / name).read_text())
        assert said['bos_token_id'] == said['eos_token_id'] == 0
    # One without a tokenizer, in the same place: nothing of the old one stays.
    monkeypatch.undo()
    export(config, workdir, format='huggingface', out=str(folder))
    assert not [name for name in names_in(folder) if name.startswith('tokenizer')]


def test_transformers_opens_it(trained, tmp_path, monkeypatch):
    torch = pytest.importorskip('torch')
    transformers = pytest.importorskip('transformers')
    config, workdir, state = trained
    made = tokenizer()
    with_tokenizer(monkeypatch, made.to_str())
    folder = export(config, workdir, format='huggingface', out=str(tmp_path / 'new'))
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    x = np.random.default_rng(0).integers(17, size=(2, 64))
    network = assemble(config).method.networks['model']
    ours = network.apply({'params': state.ema_params['model']}, jnp.asarray(x))
    with torch.no_grad():
        np.testing.assert_allclose(model(torch.tensor(x)).logits.numpy(), ours, atol=1e-5)
    drawn = model.generate(torch.tensor([[17]]), max_length=64, do_sample=True, eos_token_id=None)
    assert drawn.shape == (1, 64) and drawn[0, 1:].max() < 17
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    text = TEXT + END + ' un seen'
    assert theirs.encode(text) == made.encode(text).ids
    assert theirs.decode(theirs.encode(text)) == text
    assert theirs.eos_token_id == theirs.bos_token_id == made.token_to_id(END)
    assert len(theirs) == made.get_vocab_size()


@pytest.mark.parametrize('layout', ['llama', 'mistral', 'qwen3'])
def test_every_layout_reads_a_tokenizer_as_it_is(layout, tmp_path):
    """Some kinds of model have tokenizers of their own in `transformers`."""
    transformers = pytest.importorskip('transformers')
    from gen_jax.huggingface.tokenizer import tokenizer_config

    made = tokenizer()
    (tmp_path / 'tokenizer.json').write_text(made.to_str())
    beside = tokenizer_config(made.to_str(), 0, 64)
    (tmp_path / 'tokenizer_config.json').write_text(json.dumps(beside))
    (tmp_path / 'config.json').write_text(json.dumps({'model_type': layout}))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs.encode(TEXT) == made.encode(TEXT).ids
    assert theirs.decode(theirs.encode(TEXT)) == TEXT


def test_a_folder_of_somebody_else_stays_as_it_is(trained, tmp_path):
    config, workdir, _ = trained
    write = {'config': config, 'workdir': workdir, 'format': 'huggingface'}
    (tmp_path / 'notes.txt').write_text('mine')
    with pytest.raises(InputError, match=r'--out: there is something in .* wrote; name a new'):
        export(**write, out=str(tmp_path))
    (tmp_path / 'notes.txt').rename(tmp_path / 'model.safetensors')
    with pytest.raises(InputError, match='--out: there is something in'):
        export(**write, out=str(tmp_path))
    with pytest.raises(InputError, match='is a file; name a folder'):
        export(**write, out=str(tmp_path / 'model.safetensors'))
    with pytest.raises(InputError, match=r'no folder .* that can be written'):
        export(**write, out=str(tmp_path / 'no' / 'folder'))
    assert names_in(tmp_path) == ['model.safetensors']


@pytest.mark.parametrize(
    ('file', 'is_new'),
    [('model.safetensors', True), ('model.safetensors', False), ('config.json', False)],
)
def test_what_was_cut_short_is_no_model_and_is_written_again(
    file, is_new, trained, tmp_path, monkeypatch
):
    """Cut short after a file is written beside its place, and before it is moved there."""
    config, workdir, _ = trained
    out = tmp_path / 'out'
    write = {'config': config, 'workdir': workdir, 'format': 'huggingface', 'out': str(out)}
    if not is_new:
        export(**write)
    run, replace = assemble(config), os.replace
    monkeypatch.setattr(exports, 'assemble', lambda config, spec: run)  # which takes a second

    def killed(source, target):
        if target.name == file:
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, 'replace', killed)
        export(**write)
    with pytest.raises(InputError, match=r'no config.json'):
        from_huggingface(out)
    export(**write)
    from_huggingface(out)
    assert names_in(out) == ['config.json', 'generation_config.json', 'model.safetensors']


def test_what_is_no_transformer_is_refused(tokens_config, tmp_path):
    config = importlib.import_module('configs.ddpm_digits').get_config('smoke')
    with pytest.raises(InputError, match=r'--format: .* diffusion.diffusion has 0 of them'):
        export(config, tmp_path, format='huggingface')
    with pytest.raises(InputError, match=r"networks.model.positions: 'alibi' .* 'rotary'"):
        export(tokens_config(positions='alibi'), tmp_path, format='huggingface')


def test_a_codebook_is_exported_with_the_weights(tmp_path):
    from safetensors.numpy import load_file

    config = importlib.import_module('configs.vqgan_cifar').get_config('smoke')
    config.networks.autoencoder.channel_multipliers = (1,)
    config.train.update(num_steps=1, evaluate_every=None)
    state = train(config, tmp_path / 'run')
    path = export(config, tmp_path / 'run', out=str(tmp_path / 'weights.safetensors'))
    found = load_file(path)
    codebook = state.model_state['autoencoder']
    for name, leaf in codebook.items():
        np.testing.assert_array_equal(found[f'model_state/autoencoder/{name}'], leaf)
