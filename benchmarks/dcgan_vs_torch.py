"""A DCGAN here beside a plain twin in PyTorch on this machine's CPU: training steps.

    python benchmarks/dcgan_vs_torch.py [--quick] [--rounds=5] [--restarts=3]

How contenders take turns, and what the table says, is in `contenders.py`.

All run the same work on 64 images of 32 x 32 x 3: the discriminator's loss of real images and made
ones, its gradient, Adam; the generator's loss of images of fresh noise, its gradient, Adam, an
exponential moving average of the generator. Norms take the statistics of each batch that they see,
real or made, and update their running ones. The twin has layers of the same sizes in the same order
and the same number of parameters. All GFLOP/s divide the same number, XLA's count for the plain
program, by the time.
"""

import argparse
import functools
import itertools

import contenders
from contenders import SGEMM

SIZE, BATCH, LATENTS, LEVELS = 32, 64, 100, 3
# Channels of the layer next to the image; 'medium' has 1,732,292 parameters.
NETWORKS = {'small': 32, 'medium': 64, 'large': 128}
CONTENDERS = ('gen_jax', 'eager', 'compiled', 'eager tuned', 'compiled tuned')
LEARNING_RATE, BETA, DECAY = 2e-4, 0.5, 0.999


# --- the contenders: each returns {job: function running it once, to the end} ---------------------


def jax_jobs(channels: int) -> dict:
    """gen_jax: its own train step, state donated."""
    from gen_jax import runtime

    runtime.start()
    import flax.linen as nn
    import jax
    import jax.numpy as jnp

    from gen_jax import optim, parallel, step
    from gen_jax.state import count_parameters, init_state

    method, spec = dcgan(channels)
    optimizers = {
        player: optim.optimizer('adam', learning_rate=LEARNING_RATE, b1=BETA)
        for player in ('generator', 'discriminator')
    }
    batch = {'x': jax.random.uniform(jax.random.key(0), (BATCH, *spec.shape), minval=-1)}
    state = jax.jit(lambda: nn.unbox(init_state(method, optimizers, 0, batch)))()
    check_parameters(channels, count_parameters(state.params))
    devices = parallel.lay_out(data=1, devices=jax.devices()[:1])
    train_step = parallel.compile_step(
        devices,
        functools.partial(step.train_step, method=method, optimizers=optimizers, ema_decay=DECAY),
        parallel.state_shardings(devices, jax.eval_shape(lambda: state)),
    )
    matrix = jnp.ones((SGEMM, SGEMM))
    matmul = devices.jit(jnp.matmul)

    def train():
        nonlocal state
        state, metrics = train_step(state, batch)
        jax.block_until_ready(metrics)

    return {'train': train, 'sgemm': lambda: matmul(matrix, matrix).block_until_ready()}


def dcgan(channels: int):
    """The method, and what its data is like."""
    from gen_jax.losses import adversarial
    from gen_jax.methods.gan import gan
    from gen_jax.networks.dcgan import Discriminator, Generator
    from gen_jax.types import DataSpec

    spec = DataSpec((SIZE, SIZE, 3), levels=256)
    fields = {'channels': channels, 'num_levels': LEVELS}
    networks = {
        'generator': functools.partial(Generator, **fields),
        'discriminator': functools.partial(Discriminator, **fields),
    }
    return gan(networks, spec, adversarial.non_saturating(), latent_channels=LATENTS), spec


def twin(channels: int):
    """The same layers in PyTorch: a generator and a discriminator."""
    from torch import nn

    lowest = SIZE // 2**LEVELS
    widths = [channels * 2**level for level in range(LEVELS)]
    generator = [nn.ConvTranspose2d(LATENTS, widths[-1], lowest, bias=False)]
    for width, outputs in itertools.pairwise(reversed(widths)):
        generator += [nn.BatchNorm2d(width), nn.ReLU()]
        generator.append(nn.ConvTranspose2d(width, outputs, 4, 2, 1, bias=False))
    generator += [nn.BatchNorm2d(channels), nn.ReLU()]
    generator += [nn.ConvTranspose2d(channels, 3, 4, 2, 1), nn.Tanh()]
    discriminator = [nn.Conv2d(3, channels, 4, 2, 1), nn.LeakyReLU(0.2)]
    for width, outputs in itertools.pairwise(widths):
        discriminator.append(nn.Conv2d(width, outputs, 4, 2, 1, bias=False))
        discriminator += [nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2)]
    discriminator += [nn.Conv2d(widths[-1], 1, lowest), nn.Flatten(0)]
    players = nn.ModuleList([nn.Sequential(*generator), nn.Sequential(*discriminator)])
    for name, parameter in players.named_parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, 0, 0.02)
        elif name.endswith('weight'):
            nn.init.normal_(parameter, 1, 0.02)
        else:
            nn.init.zeros_(parameter)
    return players


def torch_jobs(channels: int, compiled: bool, tuned: bool) -> dict:
    """The twin in PyTorch, channels last; `tuned` adds fused Adam and our allocator setting."""
    if tuned:
        from gen_jax import runtime

        runtime.start()
    import torch
    from torch.nn.functional import softplus

    torch.manual_seed(0)
    players = twin(channels).to(memory_format=torch.channels_last)
    check_parameters(channels, sum(p.numel() for p in players.parameters()))
    weights = [list(player.parameters()) for player in players]
    average = [p.detach().clone() for p in weights[0]]
    for_generator, for_discriminator = (
        torch.optim.Adam(parameters, lr=LEARNING_RATE, betas=(BETA, 0.999), fused=tuned)
        for parameters in weights
    )
    generate, judge = (torch.compile(player) if compiled else player for player in players)
    x = 2 * torch.rand(BATCH, 3, SIZE, SIZE).contiguous(memory_format=torch.channels_last) - 1

    def noise():
        return torch.randn(BATCH, LATENTS, 1, 1)

    def train():
        with torch.no_grad():
            made = generate(noise())
        loss = softplus(-judge(x)).mean() + softplus(judge(made)).mean()
        for_discriminator.zero_grad()
        loss.backward()
        for_discriminator.step()
        # The generator's loss has no use for the gradients of the discriminator's weights.
        players[1].requires_grad_(False)
        loss = softplus(-judge(generate(noise()))).mean()
        for_generator.zero_grad()
        loss.backward()
        for_generator.step()
        players[1].requires_grad_(True)
        with torch.no_grad():
            torch._foreach_lerp_(average, weights[0], 1 - DECAY)

    matrix = torch.ones(SGEMM, SGEMM)
    return {'train': train, 'sgemm': lambda: matrix @ matrix}


def check_parameters(channels: int, count: int) -> None:
    """Stops unless the twins have the same number of parameters."""
    import torch

    with torch.device('meta'):
        meant = sum(p.numel() for p in twin(channels).parameters())
    if count != meant:
        raise SystemExit(f'{count} parameters where its twin has {meant}')


def work(contender: str, network: str) -> None:
    """Serves one contender over standard input and output."""
    channels = NETWORKS[network]
    if contender == 'gen_jax':
        contenders.serve(jax_jobs(channels))
    else:
        contenders.serve(torch_jobs(channels, 'compiled' in contender, 'tuned' in contender))


# --- the table ------------------------------------------------------------------------------------


def gflop(network: str) -> float:
    """GFLOP of one step's gradients, by XLA's count over the plain program."""
    from types import SimpleNamespace

    import jax
    import jax.numpy as jnp

    from gen_jax.networks import convolution, layers, transposed

    layers.conv = convolution.plain_conv
    transposed.conv_transpose = transposed.plain_conv_transpose
    method, spec = dcgan(NETWORKS[network])
    batch = {'x': jnp.ones((BATCH, *spec.shape))}
    key = jax.random.key(0)

    def gradient(params, model_state, phase):
        state = SimpleNamespace(step=0, model_state=model_state, ema_params=params)

        def loss(own):
            return phase.loss({**params, phase.player: own}, state, batch, key)[0]

        return jax.grad(loss)(params[phase.player])

    shapes = jax.eval_shape(lambda: method.init(key, batch))
    flops = 0.0
    for phase in method.phases:
        lowered = jax.jit(functools.partial(gradient, phase=phase)).lower(*shapes)
        flops += lowered.cost_analysis()['flops']
    return flops / 1e9


def main() -> None:
    """Parses the command line; measures, or serves as a worker."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--quick', action='store_true', help='the small network, 2 rounds')
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--restarts', type=int, default=3, help='of all processes')
    parser.add_argument('--contenders', nargs='+', default=CONTENDERS, choices=CONTENDERS)
    parser.add_argument('--network', choices=NETWORKS, help='only this one')
    parser.add_argument('--worker', choices=CONTENDERS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(args.worker, args.network)
        return
    plan = {'rounds': args.rounds, 'times': 5, 'restarts': args.restarts}
    networks, names = NETWORKS, args.contenders
    if args.quick:
        plan, networks, names = {'rounds': 2, 'times': 1, 'restarts': 1}, ('small',), names[:2]
    for network in networks:
        if args.network in (None, network):
            figures = contenders.measure(__file__, network, 'train', names, **plan)
            contenders.report(f'train, {network} network', gflop(network), figures)


if __name__ == '__main__':
    main()
