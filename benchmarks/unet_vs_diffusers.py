"""The DDPM U-Net here beside diffusers' on this machine's CPU: training steps and sampling.

    python benchmarks/unet_vs_diffusers.py [--quick] [--rounds=5] [--restarts=3]

How contenders take turns, and what the table says, is in `contenders.py`.

All run the same work: noising, the U-Net forward and backward, clipping by global norm, Adam, an
exponential moving average; or DDIM of 64 images. All GFLOP/s divide the same number, XLA's count
for the plain program, by the time: where a contender finds a way with fewer operations, as gen_jax
does for convolutions of doubled images, its own are fewer.
"""

import argparse
import functools

import contenders
import numpy as np
from contenders import SGEMM

# Peers' architecture in our terms; `size` and `image_channels` are of the data.
NETWORKS = {
    'cifar': {
        'size': 32,
        'image_channels': 3,
        'batch': 8,
        'unet': {},
        'parameters': 35_746_307,
    },
    'small': {
        'size': 28,
        'image_channels': 1,
        'batch': 64,
        'unet': {
            'channels': 32,
            'channel_multipliers': (1, 2, 4),
            'num_blocks': 1,
            'attention_resolutions': (7,),
            'num_groups': 8,
        },
        'parameters': 2_734_945,
    },
}
CONTENDERS = ('gen_jax', 'eager', 'compiled', 'eager tuned', 'compiled tuned')
SAMPLE_STEPS, SAMPLE_IMAGES = 50, 64
LEARNING_RATE, CLIP, DECAY = 2e-4, 1.0, 0.9999


def noise_tables(steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Signal and noise levels of the cosine schedule at `steps` + 1 times from 0 to 1, float32."""
    angle = np.linspace(0, 1, steps + 1, dtype=np.float32) * (np.pi / 2 * 0.999)
    return np.cos(angle), np.sin(angle)


# --- the contenders: each returns {job: function running it once, to the end} ---------------------


def jax_jobs(net: dict) -> dict:
    """gen_jax: its own train step, state donated, and its own sampler, one scan."""
    from gen_jax import runtime

    runtime.start()
    import flax.linen as nn
    import jax
    import jax.numpy as jnp

    from gen_jax import optim, parallel, step
    from gen_jax.methods import diffusion
    from gen_jax.networks.unet import UNet
    from gen_jax.processes import gaussian
    from gen_jax.state import count_parameters, init_state
    from gen_jax.types import DataSpec

    spec = DataSpec((net['size'], net['size'], net['image_channels']))
    networks = {'model': functools.partial(UNet, **net['unet'])}
    method = diffusion.diffusion(networks, spec, gaussian.linear(num_steps=1000))
    optimizers = {
        'model': optim.optimizer('adam', learning_rate=LEARNING_RATE, clip_norm=CLIP),
    }
    batch = {'x': jnp.zeros((net['batch'], *spec.shape))}
    state = jax.jit(lambda: nn.unbox(init_state(method, optimizers, 0, batch)))()
    check_parameters(net, count_parameters(state.params))
    devices = parallel.lay_out(data=1, devices=jax.devices()[:1])
    train_step = parallel.compile_step(
        devices,
        functools.partial(step.train_step, method=method, optimizers=optimizers, ema_decay=DECAY),
        parallel.state_shardings(devices, jax.eval_shape(lambda: state)),
    )
    denoise = devices.jit(
        lambda params, key: method.sample(
            params, {}, key, SAMPLE_IMAGES, sampler='ddim', num_steps=SAMPLE_STEPS
        )
    )
    matrix = jnp.ones((SGEMM, SGEMM))
    matmul = devices.jit(jnp.matmul)

    def train():
        nonlocal state
        state, metrics = train_step(state, batch)
        jax.block_until_ready(metrics)

    return {
        'train': train,
        'sample': lambda: denoise(state.params, state.key).block_until_ready(),
        'sgemm': lambda: matmul(matrix, matrix).block_until_ready(),
    }


def diffusers_unet(net: dict):
    """diffusers' UNet2DModel of the same architecture."""
    from diffusers import UNet2DModel

    from gen_jax.networks.unet import UNet

    ours = UNet(**net['unet'])
    resolutions = [net['size'] // 2**i for i in range(len(ours.channel_multipliers))]
    attention = [size in ours.attention_resolutions for size in resolutions]
    return UNet2DModel(
        sample_size=net['size'],
        in_channels=net['image_channels'],
        out_channels=net['image_channels'],
        layers_per_block=ours.num_blocks,
        block_out_channels=tuple(ours.channels * m for m in ours.channel_multipliers),
        down_block_types=tuple('AttnDownBlock2D' if a else 'DownBlock2D' for a in attention),
        up_block_types=tuple('AttnUpBlock2D' if a else 'UpBlock2D' for a in attention[::-1]),
        dropout=ours.dropout,
        attention_head_dim=None,
        norm_num_groups=ours.num_groups,
        downsample_padding=0,
    )


def torch_jobs(net: dict, compiled: bool, tuned: bool) -> dict:
    """diffusers in PyTorch, channels last; `tuned` adds fused Adam and our allocator setting."""
    if tuned:
        from gen_jax import runtime

        runtime.start()
    import torch

    torch.manual_seed(0)
    unet = diffusers_unet(net).to(memory_format=torch.channels_last)
    check_parameters(net, sum(p.numel() for p in unet.parameters()))
    parameters = list(unet.parameters())
    average = [p.detach().clone() for p in parameters]
    optimizer = torch.optim.Adam(parameters, lr=LEARNING_RATE, fused=tuned)
    predict = torch.compile(unet) if compiled else unet

    def images(batch):
        x = torch.ones(batch, net['image_channels'], net['size'], net['size'])
        return x.contiguous(memory_format=torch.channels_last)

    x, pure_noise = images(net['batch']), images(SAMPLE_IMAGES)

    def train():
        unet.train()
        t = torch.rand(len(x))
        noise = torch.randn_like(x)
        angle = (t * torch.pi / 2)[:, None, None, None]
        out = predict(torch.cos(angle) * x + torch.sin(angle) * noise, 1000 * t).sample
        loss = torch.nn.functional.mse_loss(out, noise)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, CLIP)
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(average, parameters, 1 - DECAY)

    @torch.inference_mode()
    def sample():
        unet.eval()
        signal, noise = (torch.from_numpy(table) for table in noise_tables(SAMPLE_STEPS))
        x = pure_noise
        for i in range(SAMPLE_STEPS, 0, -1):
            eps = predict(x, torch.full((len(x),), 1000 * i / SAMPLE_STEPS)).sample
            clean = (x - noise[i] * eps) / signal[i]
            x = signal[i - 1] * clean + noise[i - 1] * eps

    matrix = torch.ones(SGEMM, SGEMM)
    return {'train': train, 'sample': sample, 'sgemm': lambda: matrix @ matrix}


def check_parameters(net: dict, count: int) -> None:
    """Stops unless the network has the size that the table claims, within 1 %."""
    if abs(count / net['parameters'] - 1) > 0.01:
        raise SystemExit(f'{count} parameters where about {net["parameters"]:.3g} were meant')


def work(contender: str, network: str) -> None:
    """Serves one contender over standard input and output."""
    net = NETWORKS[network]
    if contender == 'gen_jax':
        contenders.serve(jax_jobs(net))
    else:
        contenders.serve(torch_jobs(net, 'compiled' in contender, 'tuned' in contender))


# --- the table ------------------------------------------------------------------------------------


def gflop(network: str, job: str) -> float:
    """GFLOP of one job, by XLA's count over the plain program (convolutions as such)."""
    import jax
    import jax.numpy as jnp

    from gen_jax.networks import convolution, layers, rearrange
    from gen_jax.networks.unet import UNet

    net = NETWORKS[network]
    layers.conv = convolution.plain_conv
    layers.upsample_conv = lambda x, k, height, width: convolution.plain_conv(
        rearrange.upsample(x, height, width), k
    )
    unet = UNet(**net['unet'])
    batch = net['batch'] if job == 'train' else SAMPLE_IMAGES
    x = jnp.zeros((batch, net['size'], net['size'], net['image_channels']))
    t = jnp.zeros(batch)
    params = jax.eval_shape(lambda: unet.init(jax.random.key(0), x, t, train=False))

    def forward(params):
        return jnp.sum(unet.apply(params, x, t, train=False))

    program, times = (jax.grad(forward), 1) if job == 'train' else (forward, SAMPLE_STEPS)
    return jax.jit(program).lower(params).cost_analysis()['flops'] * times / 1e9


def compare(network: str, job: str, names, rounds: int, times: int, restarts: int) -> None:
    """Measures one job on all contenders in turn and prints its table."""
    figures = contenders.measure(
        __file__, network, job, names, rounds=rounds, times=times, restarts=restarts
    )
    contenders.report(f'{job}, {network} network', gflop(network, job), figures)


def main() -> None:
    """Parses the command line; measures, or serves as a worker."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--quick', action='store_true', help='small network, training, 2 rounds')
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--restarts', type=int, default=3, help='of all processes')
    parser.add_argument('--contenders', nargs='+', default=CONTENDERS, choices=CONTENDERS)
    parser.add_argument('--network', choices=NETWORKS, help='only this one')
    parser.add_argument('--job', choices=('train', 'sample'), help='only this one')
    parser.add_argument('--worker', choices=CONTENDERS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(args.worker, args.network)
        return
    if args.quick:
        compare('small', 'train', ('gen_jax', 'eager'), rounds=2, times=1, restarts=1)
        return
    for network, job, times in [
        ('small', 'train', 3),
        ('cifar', 'train', 2),
        ('small', 'sample', 1),
    ]:
        if args.network in (None, network) and args.job in (None, job):
            compare(network, job, args.contenders, args.rounds, times, args.restarts)


if __name__ == '__main__':
    main()
