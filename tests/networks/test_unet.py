"""The U-Net: the published network's size and outputs, its shapes, labels and dropout."""

import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gen_jax import runtime
from gen_jax.errors import InputError
from gen_jax.networks.unet import UNet

TINY = {'channels': 16, 'channel_multipliers': (1, 2), 'num_blocks': 1, 'num_groups': 8}


def noisy(size: int, channels: int = 3, batch: int = 2):
    """Arguments x `[batch, size, size, channels]` and t `[batch]` for a U-Net."""
    x = jax.random.normal(jax.random.key(7), (batch, size, size, channels))
    return x, jnp.linspace(0.1, 0.9, batch)


def random_variables(unet: UNet, *arguments):
    """Variables of a U-Net drawn at random, so that no zero kernel hides the branch behind it."""
    shapes = jax.eval_shape(lambda: unet.init(jax.random.key(0), *arguments, train=False))
    generator = np.random.default_rng(3)
    return jax.tree.map(
        lambda s: 0.2 * generator.normal(size=s.shape).astype(s.dtype), nn.unbox(shapes)
    )


def test_default_size_is_the_published_one():
    x, t = jnp.zeros((1, 32, 32, 3)), jnp.zeros(1)
    shapes = jax.eval_shape(lambda key: UNet().init(key, x, t, train=False), jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 35_746_307


@pytest.mark.parametrize('size', [8, 14])  # 14 halves to 7 and 4, and comes back
def test_output_has_the_shape_of_its_input(size):
    unet = UNet(**{**TINY, 'channel_multipliers': (1, 1, 1)}, attention_resolutions=(4, 7))
    x, t = noisy(size)
    variables = random_variables(unet, x, t)
    out = jax.jit(lambda v: unet.apply(v, x, t, train=False))(variables)
    assert out.shape == x.shape and out.dtype == jnp.float32
    assert np.all(np.isfinite(out)) and np.std(out) > 0


def test_starts_at_zero_output():
    unet, (x, t) = UNet(**TINY), noisy(8)
    out, variables = jax.jit(
        lambda key: unet.init_with_output(key, x, t, train=False),
    )(jax.random.key(0))
    assert not np.any(out)
    params = nn.unbox(variables['params'])
    assert not np.any(params['down_0_block_0']['conv_1']['kernel'])
    assert not np.any(params['middle_attention']['out']['kernel'])
    # U(-a, a) with a^2 = 3 / mean(fan in, fan out) has the variance 1 / mean(fan in, fan out).
    kernel = params['middle_block_0']['conv_0']['kernel']
    np.testing.assert_allclose(np.var(kernel) * 9 * 32, 1, rtol=0.1)


def test_out_channels_may_differ_from_the_input():
    unet, (x, t) = UNet(**TINY, out_channels=6), noisy(8)
    out = jax.eval_shape(lambda: unet.init_with_output(jax.random.key(0), x, t, train=False)[0])
    assert out.shape == (2, 8, 8, 6)


def test_label_moves_the_output_and_none_is_the_last_row():
    unet, (x, t) = UNet(**TINY, num_classes=4), noisy(8)
    variables = random_variables(unet, x, t)
    assert variables['params']['label']['embedding'].shape == (5, 64)
    apply = jax.jit(lambda label=None: unet.apply(variables, x, t, label, train=False))
    nothing = apply()
    np.testing.assert_allclose(nothing, apply(jnp.array([4, 4])), rtol=1e-5, atol=1e-5)
    assert np.abs(nothing - apply(jnp.array([1, 1]))).max() > 1e-3


def test_label_without_a_table_is_refused():
    unet, (x, t) = UNet(**TINY), noisy(8)
    with pytest.raises(InputError, match='num_classes'):
        jax.eval_shape(lambda: unet.init(jax.random.key(0), x, t, jnp.array([0, 1]), train=False))


def test_dropout_acts_in_training_only_and_nothing_recompiles():
    unet, (x, t) = UNet(**TINY, dropout=0.5), noisy(8)
    variables = random_variables(unet, x, t)

    @functools.partial(jax.jit, static_argnames='train')
    def apply(variables, seed, train):
        rngs = {'dropout': jax.random.key(seed)}
        return unet.apply(variables, x, t, train=train, rngs=rngs)

    def run(seed, train):
        return apply(variables, jnp.uint32(seed), train)

    np.testing.assert_array_equal(run(0, False), run(1, False))
    np.testing.assert_array_equal(run(0, True), run(0, True))
    assert np.abs(run(0, True) - run(1, True)).max() > 1e-3
    assert apply._cache_size() == 2  # one program for each value of `train`


def test_the_training_program_has_only_convolutions_that_are_fast_on_a_cpu():
    """None in naive loops (see `convolution`), and none given to YNNPACK."""
    unet, (x, t) = UNet(**{**TINY, 'channel_multipliers': (1, 1)}), noisy(8)
    variables = random_variables(unet, x, t)
    rngs = {'dropout': jax.random.key(0)}
    loss = jax.grad(lambda v: jnp.sum(unet.apply(v, x, t, train=True, rngs=rngs)))
    options = runtime.compiler_options('cpu')
    program = jax.jit(loss, compiler_options=options).lower(variables).compile().as_text()
    assert ' convolution(' in program and 'rhs_reversal' not in program
    fused, entry = program.split('ENTRY')
    assert ' convolution(' in entry and ' convolution(' not in fused
    assert not options or '__ynn_fusion' in entry  # it does have the rest


# diffusers' name of each part and ours. It keeps downs and ups by order of use, we by level.
NAMES = {
    r'time_embedding\.linear_1': 'time_0',
    r'time_embedding\.linear_2': 'time_1',
    r'class_embedding': 'label',
    r'conv_norm_out': 'norm_out',
    r'down_blocks\.(\d)\.resnets\.(\d)': r'down_\1_block_\2',
    r'down_blocks\.(\d)\.attentions\.(\d)': r'down_\1_attention_\2',
    r'down_blocks\.(\d)\.downsamplers\.0\.conv': r'down_\1_downsample',
    r'mid_block\.resnets\.(\d)': r'middle_block_\1',
    r'mid_block\.attentions\.0': 'middle_attention',
    r'up_blocks\.(\d)\.resnets\.(\d)': r'up_\1_block_\2',
    r'up_blocks\.(\d)\.attentions\.(\d)': r'up_\1_attention_\2',
    r'up_blocks\.(\d)\.upsamplers\.0\.conv': r'up_\1_upsample',
    r'\.norm1': '.norm_0',
    r'\.norm2': '.norm_1',
    r'\.conv1': '.conv_0',
    r'\.conv2': '.conv_1',
    r'\.conv_shortcut': '.shortcut',
    r'\.time_emb_proj': '.embedding',
    r'\.group_norm': '.norm',
    r'\.to_q': '.query',
    r'\.to_k': '.key',
    r'\.to_v': '.value',
    r'\.to_out\.0': '.out',
}


def from_diffusers(state: dict, levels: int) -> dict:
    """The parameters of a diffusers UNet2DModel as those of our UNet."""
    params = {}
    for name, value in state.items():
        for theirs, ours in NAMES.items():
            name = re.sub(theirs, ours, name)
        name = re.sub(r'^up_(\d)', lambda match: f'up_{levels - 1 - int(match[1])}', name)
        *modules, leaf = name.split('.')
        value = np.asarray(value)
        if leaf == 'weight' and modules[-1] == 'label':
            leaf = 'embedding'
        elif leaf == 'weight':
            leaf = 'scale' if value.ndim == 1 else 'kernel'
        value = value.transpose(*range(2, value.ndim), 1, 0) if value.ndim > 1 else value
        if leaf == 'embedding':
            value = value.T
        node = params
        for module in modules:
            node = node.setdefault(module, {})
        node[leaf] = value
    return params


@pytest.mark.parametrize('num_classes', [None, 4])
def test_equals_diffusers_with_the_same_weights(num_classes):
    torch = pytest.importorskip('torch')
    diffusers = pytest.importorskip('diffusers')
    torch.manual_seed(0)
    theirs = diffusers.UNet2DModel(
        sample_size=16,
        block_out_channels=(16, 32, 32),
        layers_per_block=2,
        down_block_types=('DownBlock2D', 'AttnDownBlock2D', 'DownBlock2D'),
        up_block_types=('UpBlock2D', 'AttnUpBlock2D', 'UpBlock2D'),
        num_class_embeds=None if num_classes is None else num_classes + 1,
        # As in google/ddpm-cifar10-32: sines first, TensorFlow's padding, one head.
        flip_sin_to_cos=False,
        freq_shift=1,
        downsample_padding=0,
        attention_head_dim=None,
        norm_num_groups=8,
        norm_eps=1e-6,
    ).eval()
    ours = UNet(
        channels=16,
        channel_multipliers=(1, 2, 2),
        attention_resolutions=(8,),
        num_groups=8,
        num_classes=num_classes,
    )
    x, t = noisy(16)
    label = None if num_classes is None else jnp.array([1, 4])
    params = from_diffusers(theirs.state_dict(), levels=3)
    shapes = jax.eval_shape(lambda: ours.init(jax.random.key(0), x, t, label, train=False))
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, nn.unbox(shapes['params']))
    with torch.no_grad():
        expected = theirs(
            torch.from_numpy(np.array(x)).permute(0, 3, 1, 2),
            torch.from_numpy(1000 * np.array(t)),
            None if label is None else torch.from_numpy(np.array(label)),
        ).sample.permute(0, 2, 3, 1)
    out = jax.jit(lambda p: ours.apply({'params': p}, x, t, label, train=False))(params)
    np.testing.assert_allclose(out, expected.numpy(), atol=1e-4)
    assert expected.std() > 0.1
