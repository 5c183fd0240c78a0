"""A training step of DCGAN against the same in PyTorch, from the same weights and latents."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gen_jax.losses import adversarial
from gen_jax.methods.gan import gan
from gen_jax.networks.dcgan import Discriminator, Generator
from gen_jax.state import init_state
from gen_jax.step import train_step
from gen_jax.types import DataSpec

BATCH, LATENTS, RATE = 16, 6, 2e-4
SPEC = DataSpec((8, 8, 3), levels=256)
FIELDS = {'channels': 8, 'num_levels': 2}


def tensor(torch, array):
    return torch.tensor(np.ascontiguousarray(np.asarray(array)), dtype=torch.float32)


def to_torch(torch, params) -> dict:
    """The parameters by name, laid out as PyTorch's layers have them."""

    def convert(path, value):
        name = '/'.join(key.key for key in path)
        if value.ndim == 4:  # [rows, columns, in, out]; a transposed one is [in, out, rows, ...]
            up = name.startswith('generator')
            value = value.transpose((2, 3, 0, 1) if up else (3, 2, 0, 1))
        return tensor(torch, value).requires_grad_()

    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {'/'.join(key.key for key in path): convert(path, leaf) for path, leaf in leaves}


def twin(torch, p):
    """The generator and the discriminator as functions."""
    f = torch.nn.functional

    def norm(h, name):
        return f.batch_norm(h, None, None, p[f'{name}/scale'], p[f'{name}/bias'], training=True)

    def generate(z):
        h = (z @ p['generator/in/kernel']).reshape(-1, 2, 2, 16).permute(0, 3, 1, 2)
        h = f.relu(norm(h, 'generator/norm_in'))
        h = f.conv_transpose2d(h, p['generator/block_0/conv/kernel'], stride=2, padding=1)
        h = f.relu(norm(h, 'generator/block_0/norm'))
        out = p['generator/out/kernel'], p['generator/out/bias']
        return torch.tanh(f.conv_transpose2d(h, *out, stride=2, padding=1))

    def judge(x):
        first = (p[f'discriminator/block_0/conv/{name}'] for name in ('kernel', 'bias'))
        h = f.leaky_relu(f.conv2d(x, *first, stride=2, padding=1), 0.2)
        h = f.conv2d(h, p['discriminator/block_1/conv/kernel'], stride=2, padding=1)
        h = f.leaky_relu(norm(h, 'discriminator/block_1/norm'), 0.2)
        h = h.permute(0, 2, 3, 1).flatten(1)
        return (h @ p['discriminator/out/kernel'])[:, 0] + p['discriminator/out/bias']

    return generate, judge


def latents(key, phase: int):
    """z of a player's turn in the first step."""
    turn = jax.random.fold_in(jax.random.fold_in(key, 0), phase)
    draw = jax.random.split(turn, 4 if phase == 0 else 3)[0]
    return jax.random.normal(jax.random.split(draw, 3)[0], (BATCH, LATENTS))


def test_a_step_equals_its_twin():
    torch = pytest.importorskip('torch')
    networks = {
        'generator': functools.partial(Generator, **FIELDS),
        'discriminator': functools.partial(Discriminator, **FIELDS),
    }
    method = gan(networks, SPEC, adversarial.non_saturating(), latent_channels=LATENTS)
    optimizers = {player: optax.adam(RATE, b1=0.5) for player in method.trained}
    x = np.random.default_rng(0).uniform(-1, 1, (BATCH, *SPEC.shape)).astype(np.float32)
    batch = {'x': jnp.asarray(x)}
    start = nn.unbox(init_state(method, optimizers, 0, batch))
    # Ten times what they are, so that gradients are large beside their rounding.
    larger = jax.tree.map(lambda w: 10 * w, start.params)
    start = start.replace(params=larger)
    step = functools.partial(train_step, method=method, optimizers=optimizers, ema_decay=0.9)
    after, metrics = jax.jit(step)(start, batch)

    p = to_torch(torch, start.params)
    generate, judge = twin(torch, p)
    softplus, losses = torch.nn.functional.softplus, {}
    for phase, player in enumerate(('discriminator', 'generator')):
        own = [value for name, value in p.items() if name.startswith(player)]
        optimizer = torch.optim.Adam(own, lr=RATE, betas=(0.5, 0.999))
        made = generate(tensor(torch, latents(start.key, phase)))
        if player == 'discriminator':
            real = tensor(torch, x.transpose(0, 3, 1, 2))
            losses[player] = (softplus(-judge(real)) + softplus(judge(made.detach()))).mean()
        else:
            losses[player] = softplus(-judge(made)).mean()
        gradients = torch.autograd.grad(losses[player], own)
        for value, gradient in zip(own, gradients, strict=True):
            value.grad = gradient
        optimizer.step()

    for player, loss in losses.items():
        np.testing.assert_allclose(metrics[f'{player}/loss'], loss.item(), rtol=1e-4)
    for name, value in to_torch(torch, after.params).items():
        moved = np.abs((p[name] - value).detach().numpy()).max()
        assert moved < 1e-4, name
        before = to_torch(torch, start.params)[name]
        assert np.abs((value - before).detach().numpy()).max() > RATE / 2, name
