"""A convolutional VAE here beside a plain twin in PyTorch on this machine's CPU: training steps.

    python benchmarks/vae_vs_torch.py [--quick] [--rounds=5] [--restarts=3]

How contenders take turns, and what the table says, is in `contenders.py`.

All run the same work on 128 images of 28 x 28: the encoder, one draw of the latents, the decoder,
the bound of black and white images, its gradient, clipping by global norm, Adam, an exponential
moving average. The twin has layers of the same sizes in the same order and the same number of
parameters. All GFLOP/s divide the same number, XLA's count for the plain program, by the time:
where a contender finds a way with fewer operations, as gen_jax does for convolutions of doubled
images, its own are fewer.
"""

import argparse
import functools

import contenders
from contenders import SGEMM

SIZE, BATCH, LATENTS = 28, 128, 64
FIELDS = {'channel_multipliers': (1, 2, 4), 'num_blocks': 1, 'num_groups': 8}
# Channels of the first level.
NETWORKS = {'small': 16, 'medium': 32, 'large': 64}
CONTENDERS = ('gen_jax', 'eager', 'compiled', 'eager tuned', 'compiled tuned')
LEARNING_RATE, CLIP, DECAY = 1e-3, 1.0, 0.999


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

    method, spec = vae(channels)
    optimizers = {
        'autoencoder': optim.optimizer('adam', learning_rate=LEARNING_RATE, clip_norm=CLIP)
    }
    batch = {'x': jnp.ones((BATCH, *spec.shape))}
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


def vae(channels: int):
    """The method, and what its data is like."""
    from gen_jax.losses import observation
    from gen_jax.methods.vae import vae
    from gen_jax.networks.autoencoder import ConvAutoencoder
    from gen_jax.types import DataSpec

    spec = DataSpec((SIZE, SIZE, 1), levels=2)
    networks = {'autoencoder': functools.partial(ConvAutoencoder, channels=channels, **FIELDS)}
    return vae(networks, spec, observation.bernoulli(spec), latent_channels=LATENTS), spec


def twin(channels: int):
    """The same layers in PyTorch: an encoder and a decoder."""
    from torch import nn

    groups = FIELDS['num_groups']
    widths = [channels * multiplier for multiplier in FIELDS['channel_multipliers']]
    lowest = SIZE // 2 ** (len(widths) - 1)

    class Block(nn.Module):
        def __init__(self, inputs: int, outputs: int):
            super().__init__()
            self.branch = nn.Sequential(
                nn.GroupNorm(groups, inputs),
                nn.SiLU(),
                nn.Conv2d(inputs, outputs, 3, padding=1),
                nn.GroupNorm(groups, outputs),
                nn.SiLU(),
                nn.Conv2d(outputs, outputs, 3, padding=1),
            )
            same = inputs == outputs
            self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1)

        def forward(self, x):
            return self.shortcut(x) + self.branch(x)

    encoder, width = [nn.Conv2d(1, widths[0], 3, padding=1)], widths[0]
    for level, outputs in enumerate(widths):
        if level > 0:
            encoder.append(nn.Conv2d(width, outputs, 3, stride=2, padding=1))
            width = outputs
        encoder.append(Block(width, outputs))
    size = lowest * lowest * width
    encoder += [nn.GroupNorm(groups, width), nn.SiLU(), nn.Flatten()]
    encoder.append(nn.Linear(size, 2 * LATENTS))
    decoder = [nn.Linear(LATENTS, size), nn.Unflatten(1, (width, lowest, lowest))]
    for level, outputs in reversed(list(enumerate(widths))):
        decoder.append(Block(width, outputs))
        width = outputs
        if level > 0:
            width = widths[level - 1]
            decoder += [nn.Upsample(scale_factor=2), nn.Conv2d(outputs, width, 3, padding=1)]
    decoder += [nn.GroupNorm(groups, width), nn.SiLU(), nn.Conv2d(width, 1, 3, padding=1)]
    return nn.ModuleList([nn.Sequential(*encoder), nn.Sequential(*decoder)])


def torch_jobs(channels: int, compiled: bool, tuned: bool) -> dict:
    """The twin in PyTorch, channels last; `tuned` adds fused Adam and our allocator setting."""
    if tuned:
        from gen_jax import runtime

        runtime.start()
    import torch
    from torch.nn import functional

    torch.manual_seed(0)
    halves = twin(channels).to(memory_format=torch.channels_last)
    parameters = list(halves.parameters())
    check_parameters(channels, sum(p.numel() for p in parameters))
    average = [p.detach().clone() for p in parameters]
    optimizer = torch.optim.Adam(parameters, lr=LEARNING_RATE, fused=tuned)
    encode, decode = (torch.compile(half) if compiled else half for half in halves)
    x = torch.ones(BATCH, 1, SIZE, SIZE).contiguous(memory_format=torch.channels_last)

    def train():
        mean, log_variance = encode(x).chunk(2, 1)
        z = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        logits = decode(z)
        rate = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(1)
        distortion = -functional.logsigmoid(logits * x).flatten(1).sum(1)
        loss = (rate + distortion).mean() / SIZE**2
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, CLIP)
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(average, parameters, 1 - DECAY)

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
    """GFLOP of one step's gradient, by XLA's count over the plain program."""
    import jax
    import jax.numpy as jnp

    from gen_jax.networks import convolution, layers, rearrange

    layers.conv = convolution.plain_conv
    layers.upsample_conv = lambda x, k, height, width: convolution.plain_conv(
        rearrange.upsample(x, height, width), k
    )
    method, spec = vae(NETWORKS[network])
    batch = {'x': jnp.ones((BATCH, *spec.shape))}
    key = jax.random.key(0)
    params = jax.eval_shape(lambda: method.init(key, batch)[0])
    (phase,) = method.phases

    class State:
        step, model_state = 0, {}

    gradient = jax.grad(lambda params: phase.loss(params, State, batch, key)[0])
    return jax.jit(gradient).lower(params).cost_analysis()['flops'] / 1e9


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
    plan = {'rounds': args.rounds, 'times': 3, 'restarts': args.restarts}
    networks, names = NETWORKS, args.contenders
    if args.quick:
        plan, networks, names = {'rounds': 2, 'times': 1, 'restarts': 1}, ('small',), names[:2]
    for network in networks:
        if args.network in (None, network):
            figures = contenders.measure(__file__, network, 'train', names, **plan)
            contenders.report(f'train, {network} network', gflop(network), figures)


if __name__ == '__main__':
    main()
