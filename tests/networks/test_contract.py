"""What every network that is trained here does: it computes in a precision, and anew if told to."""

import collections
import functools
from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from gen_jax.networks import dcgan, gan_mlp, r3gan, sngan, stylegan2, stylegan2_discriminator
from gen_jax.networks.discriminator import PatchDiscriminator
from gen_jax.networks.mlp import MLP
from gen_jax.networks.pixelcnn import PixelCNN
from gen_jax.networks.resnet import ResNet
from gen_jax.networks.transformer import Transformer
from gen_jax.networks.unet import UNet
from gen_jax.networks.vdvae import VDVAE

LEVELS = {'channels': 16, 'channel_multipliers': (1, 2), 'num_blocks': 1, 'num_groups': 8}
IMAGES = jax.random.normal(jax.random.key(7), (2, 8, 8, 3))
POINTS, TIMES = IMAGES[0, 0, :, :2], jnp.linspace(0.1, 0.9, 8)
GPT = {'vocab_size': 7, 'context': 9, 'width': 16, 'num_layers': 2, 'num_heads': 2}
MODERN = {
    'scan': True,
    'positions': 'rotary',
    'norm': 'rmsnorm',
    'activation': 'swiglu',
    'qk_norm': True,
    'tied': False,
}
R3GAN = {'widths': (16, 8), 'num_blocks': (1, 1), 'group_width': 8}
STYLEGAN2 = {'widths': (16, 8), 'num_mapping_layers': 1}
# What generators are called with, and their fields.
LATENTS = jax.random.normal(jax.random.key(9), (2, 6)), jnp.array([0, 2])
MAKES = {'shape': (8, 8, 3), 'latent_channels': 6, 'num_classes': 3}
TOKENS = jax.random.randint(jax.random.key(8), (2, 9), 0, 7)
# A network's class with some of its fields, what it is called with, and how many blocks it has:
# going down, in the middle, and going up; of a PixelCNN in both networks.
NETWORKS = {
    'unet': (functools.partial(UNet, **LEVELS, dropout=0.5), (IMAGES, TIMES[:2]), 2 + 3 + 4),
    'resnet': (functools.partial(ResNet, num_classes=3, **LEVELS, dropout=0.5), (IMAGES,), 2),
    'pixelcnn': (
        functools.partial(PixelCNN, out_channels=3, channels=8, num_blocks=1, num_levels=2),
        (IMAGES,),
        2 * (2 + 3),
    ),
    'vdvae': (
        functools.partial(
            VDVAE,
            shape=(8, 8, 3),
            latent_channels=4,
            out_channels=3,
            channels=16,
            levels=((8, 1, 1), (4, 1, 1)),
            dropout=0.5,
        ),
        (IMAGES,),
        2 + 2,
    ),
    'discriminator': (
        functools.partial(PatchDiscriminator, channels=8, num_levels=2, num_groups=4),
        (IMAGES,),
        3,
    ),
    'r3gan generator': (
        functools.partial(r3gan.Generator, **MAKES, **R3GAN),
        LATENTS,
        2,
    ),
    'r3gan discriminator': (
        functools.partial(r3gan.Discriminator, num_classes=3, **R3GAN),
        (IMAGES, LATENTS[1]),
        2,
    ),
    'stylegan2 generator': (
        functools.partial(stylegan2.Generator, **MAKES, style_channels=16, **STYLEGAN2),
        LATENTS,
        2,
    ),
    'stylegan2 discriminator': (
        functools.partial(
            stylegan2_discriminator.Discriminator,
            num_classes=3,
            architecture='residual',
            **STYLEGAN2,
        ),
        (IMAGES, LATENTS[1]),
        1,
    ),
    'dcgan generator': (functools.partial(dcgan.Generator, **MAKES, channels=8), LATENTS, 2),
    'dcgan discriminator': (
        functools.partial(dcgan.Discriminator, num_classes=3, channels=8),
        (IMAGES, LATENTS[1]),
        3,
    ),
    'sngan generator': (
        functools.partial(sngan.Generator, **MAKES, channels=8, num_levels=1),
        LATENTS,
        1,
    ),
    'sngan discriminator': (
        functools.partial(sngan.Discriminator, num_classes=3, channels=8, num_blocks=1),
        (IMAGES, LATENTS[1]),
        3,
    ),
    'vector generator': (functools.partial(gan_mlp.Generator, **MAKES, widths=(8, 8)), LATENTS, 2),
    'vector discriminator': (
        functools.partial(gan_mlp.Discriminator, num_classes=3, widths=(8, 8)),
        (IMAGES, LATENTS[1]),
        2,
    ),
    'mlp': (functools.partial(MLP, width=16, num_blocks=3, num_classes=3), (POINTS, TIMES), 3),
    'mlp scanned': (functools.partial(MLP, width=16, scan=True), (POINTS, TIMES), 1),
    'transformer': (functools.partial(Transformer, **GPT, dropout=0.5), (TOKENS,), 2),
    'transformer scanned': (functools.partial(Transformer, **GPT, **MODERN), (TOKENS,), 1),
}


@pytest.fixture(scope='module', params=NETWORKS)
def case(request):
    """A network with parameters of which none are zero, which would hide what lies behind them.
    Of statistics, variances among them, all are one."""
    make, arguments, num_blocks = NETWORKS[request.param]
    shapes = shapes_of(make(), arguments)
    generator = np.random.default_rng(3)
    variables = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), shapes)
    variables['params'] = jax.tree.map(
        lambda leaf: 0.2 * generator.normal(size=leaf.shape).astype(leaf.dtype), shapes['params']
    )
    return SimpleNamespace(
        make=make, arguments=arguments, num_blocks=num_blocks, shapes=shapes, variables=variables
    )


def shapes_of(network, arguments):
    init = functools.partial(network.init, train=False)
    return nn.unbox(jax.eval_shape(init, jax.random.key(0), *arguments))


def outputs(case, **fields) -> list:
    """Everything that the network answers."""
    apply = functools.partial(case.make(**fields).apply, train=False)
    return jax.tree.leaves(jax.jit(apply)(case.variables, *case.arguments))


def equations(jaxpr):
    """Those of a program, and of the programs inside them."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jaxprs_in_params(equation.params):
            yield from equations(inner)


# Precision


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
def test_a_precision_rounds_what_is_computed_and_neither_parameters_nor_outputs(case, dtype):
    assert jax.tree.map(str, shapes_of(case.make(dtype=dtype), case.arguments)) == jax.tree.map(
        str, case.shapes
    )
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(case.shapes))
    for exact, rounded in zip(outputs(case), outputs(case, dtype=dtype), strict=True):
        assert exact.dtype == rounded.dtype == jnp.float32
        error = np.abs(rounded - exact).max() / np.abs(exact).max()
        assert 0.01 * jnp.finfo(dtype).eps < error < 10 * jnp.finfo(dtype).eps


def test_products_are_in_the_precision_and_statistics_softmax_and_sinusoids_in_float32(case):
    apply = functools.partial(case.make(dtype='bfloat16').apply, train=False)
    program = jax.make_jaxpr(apply)(case.variables, *case.arguments)
    types, products = {}, collections.Counter()
    for equation in equations(program.jaxpr):
        found = types.setdefault(equation.primitive.name, set())
        found.update(str(variable.aval.dtype) for variable in equation.outvars)
        if equation.primitive.name in ('conv_general_dilated', 'dot_general'):
            if equation.invars[0].aval.shape[0] == 1:
                continue  # one vector: a power iteration's, which is a statistic of a kernel
            # Sums of products may be kept in float32.
            (factors,) = {str(variable.aval.dtype) for variable in equation.invars}
            products[factors] += 1
    logits = [out.aval.ndim == 1 for out in program.jaxpr.outvars] == [True]
    assert products.keys() <= {'bfloat16', 'float32'} and products['bfloat16'] > 0
    assert products['float32'] == logits  # the one that makes logits, which live on differences
    for name in ('rsqrt', 'exp', 'sin', 'reduce_sum'):
        assert types.get(name, {'float32'}) == {'float32'}, name


# Computing anew


def loss_and_gradient(case, **fields):
    network = case.make(**fields)

    def loss(variables):
        rngs = {'dropout': jax.random.key(5), 'noise': jax.random.key(6)}
        answer = network.apply(variables, *case.arguments, train=True, rngs=rngs)
        rngs = {'dropout': jax.random.key(5)}
        # With the statistics that it updates, if there are any.
        answer = network.apply(
            variables, *case.arguments, train=True, rngs=rngs, mutable=['batch_stats']
        )
        return sum(jnp.mean(part**2) for part in jax.tree.leaves(answer))

    return jax.value_and_grad(loss)


def test_remat_changes_no_parameter_no_loss_and_no_gradient(case):
    """With dropout and noise: those of the recomputation must be those of the first pass."""
    assert shapes_of(case.make(remat=True), case.arguments) == case.shapes
    kept, anew = (
        jax.jit(loss_and_gradient(case, remat=remat))(case.variables) for remat in (False, True)
    )
    # Of all gradients, the largest: that of a key's bias is zero but for rounding.
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(kept))
    for a, b in zip(jax.tree.leaves(kept), jax.tree.leaves(anew), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * largest)


def test_remat_keeps_nothing_of_any_block(case):
    """By the program that JAX makes: on a CPU the compiler merges what is computed twice."""
    for remat, wanted in ((False, 0), (True, case.num_blocks)):
        network = case.make(remat=remat)
        program = jax.make_jaxpr(functools.partial(network.apply, train=False))
        found = equations(program(case.variables, *case.arguments).jaxpr)
        assert sum('remat' in equation.primitive.name for equation in found) == wanted


def test_remat_saves_memory():
    """In a loop, where the compiler cannot merge the two computations."""
    x, t = jnp.ones((256, 2)), jnp.ones(256)

    def work_space(remat: bool) -> int:
        network = MLP(width=32, num_blocks=8, scan=True, remat=remat)
        gradient = jax.jit(jax.grad(lambda v: network.apply(v, x, t, train=True).sum()))
        shapes = shapes_of(network, (x, t))
        return gradient.lower(shapes).compile().memory_analysis().temp_size_in_bytes

    assert work_space(remat=True) < 0.5 * work_space(remat=False)
