"""The DDPM U-Net here beside diffusers' on this machine's CPU: training steps and sampling.

    python benchmarks/unet_vs_diffusers.py [--quick] [--rounds=7]

Every contender lives in a process of its own, since the allocator and the thread pools are
process-wide; they are asked in turn, round after round, so that all of them see the same machine.
The table gives medians over the rounds. All run the same work: noising, the U-Net forward and
backward, clipping by global norm, Adam, an exponential moving average; or DDIM of 64 images. All
GFLOP/s divide by the same number, XLA's count for the plain program.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

import numpy as np

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


def log_snr_tables(steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Signal and noise levels of the cosine schedule at `steps` + 1 times from 0 to 1, float32."""
    angle = np.linspace(0, 1, steps + 1, dtype=np.float32) * (np.pi / 2 * 0.999)
    return np.cos(angle), np.sin(angle)


# --- the contenders: each returns {job: function running it once, to the end} ---------------------


def jax_jobs(net: dict) -> dict:
    """gen_jax: one jitted step with the state donated; sampling is one scan."""
    from gen_jax import runtime

    runtime.start()
    import jax
    import jax.numpy as jnp
    import optax

    from gen_jax.networks.unet import UNet

    unet = UNet(**net['unet'])
    shape = (net['batch'], net['size'], net['size'], net['image_channels'])
    optimizer = optax.chain(optax.clip_by_global_norm(CLIP), optax.adam(LEARNING_RATE))
    options = runtime.compiler_options('cpu')

    def train_step(state, x, key):
        params, average, moments = state
        time_key, noise_key, dropout_key = jax.random.split(key, 3)
        t = jax.random.uniform(time_key, x.shape[:1])
        noise = jax.random.normal(noise_key, x.shape)
        angle = (t * jnp.pi / 2)[:, None, None, None]
        noisy = jnp.cos(angle) * x + jnp.sin(angle) * noise

        def loss(params):
            out = unet.apply(params, noisy, t, train=True, rngs={'dropout': dropout_key})
            return jnp.mean((out - noise) ** 2)

        value, grads = jax.value_and_grad(loss)(params)
        updates, moments = optimizer.update(grads, moments)
        params = optax.apply_updates(params, updates)
        average = optax.incremental_update(params, average, 1 - DECAY)
        return (params, average, moments), value

    def init(key):
        params = unet.init(key, jnp.zeros(shape), jnp.zeros(shape[0]), train=False)
        return params, jax.tree.map(jnp.copy, params), optimizer.init(params)

    def sample(params, x):
        signal, noise = (jnp.asarray(table) for table in log_snr_tables(SAMPLE_STEPS))

        def step(x, i):
            t = jnp.full(x.shape[0], i / SAMPLE_STEPS)
            eps = unet.apply(params, x, t, train=False)
            clean = (x - noise[i] * eps) / signal[i]
            return signal[i - 1] * clean + noise[i - 1] * eps, None

        return jax.lax.scan(step, x, jnp.arange(SAMPLE_STEPS, 0, -1))[0]

    state = jax.jit(init)(jax.random.key(0))
    check_parameters(net, sum(leaf.size for leaf in jax.tree.leaves(state[0])))
    train_step = jax.jit(train_step, donate_argnums=0, compiler_options=options)
    sample = jax.jit(sample, compiler_options=options)
    x, key = jnp.zeros(shape), jax.random.key(1)
    pure_noise = jnp.ones((SAMPLE_IMAGES, *shape[1:]))

    def train():
        nonlocal state
        state, value = train_step(state, x, key)
        value.block_until_ready()

    a = jnp.ones((2048, 2048))
    matmul = jax.jit(lambda a: a @ a, compiler_options=options)
    return {
        'train': train,
        'sample': lambda: sample(state[0], pure_noise).block_until_ready(),
        'sgemm': lambda: matmul(a).block_until_ready(),
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
    """diffusers in PyTorch, channels last; `tuned` adds the fused Adam and our allocator setting."""
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
        signal, noise = (torch.from_numpy(table) for table in log_snr_tables(SAMPLE_STEPS))
        x = pure_noise
        for i in range(SAMPLE_STEPS, 0, -1):
            eps = predict(x, torch.full((len(x),), 1000 * i / SAMPLE_STEPS)).sample
            clean = (x - noise[i] * eps) / signal[i]
            x = signal[i - 1] * clean + noise[i - 1] * eps

    a = torch.ones(2048, 2048)
    return {'train': train, 'sample': sample, 'sgemm': lambda: a @ a}


def check_parameters(net: dict, count: int) -> None:
    """Stops unless the network has the size that the table claims, within 1 %."""
    if abs(count / net['parameters'] - 1) > 0.01:
        raise SystemExit(f'{count} parameters where about {net["parameters"]:.3g} were meant')


# --- the worker: answers each line '<job> <times>' with the seconds it took -----------------------


def work(contender: str, network: str) -> None:
    """Serves one contender over standard input and output."""
    net = NETWORKS[network]
    if contender == 'gen_jax':
        jobs = jax_jobs(net)
    else:
        jobs = torch_jobs(net, 'compiled' in contender, 'tuned' in contender)
    for line in sys.stdin:
        job, times = line.split()
        begin = time.perf_counter()
        for _ in range(int(times)):
            jobs[job]()
        print(json.dumps((time.perf_counter() - begin) / int(times)), flush=True)


class Worker:
    """A contender's process."""

    def __init__(self, contender: str, network: str):
        self.contender = contender
        self.process = subprocess.Popen(
            [sys.executable, __file__, f'--worker={contender}', f'--network={network}'],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def seconds(self, job: str, times: int = 1) -> float:
        """Runs a job `times` times; the mean seconds of one."""
        self.process.stdin.write(f'{job} {times}\n')
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f'{self.contender} ended: see its message above')
        return json.loads(line)

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


# --- the table ------------------------------------------------------------------------------------


def gflop(network: str, job: str) -> float:
    """GFLOP of one job, by XLA's count over the plain program (convolutions as such)."""
    import jax
    import jax.numpy as jnp

    from gen_jax.networks import layers
    from gen_jax.networks.unet import UNet

    net = NETWORKS[network]
    layers.conv = layers.plain_conv
    unet = UNet(**net['unet'])
    batch = net['batch'] if job == 'train' else SAMPLE_IMAGES
    x = jnp.zeros((batch, net['size'], net['size'], net['image_channels']))
    t = jnp.zeros(batch)
    params = jax.eval_shape(lambda: unet.init(jax.random.key(0), x, t, train=False))

    def forward(params):
        return jnp.sum(unet.apply(params, x, t, train=False))

    program, times = (jax.grad(forward), 1) if job == 'train' else (forward, SAMPLE_STEPS)
    return jax.jit(program).lower(params).cost_analysis()['flops'] * times / 1e9


def compare(network: str, job: str, contenders, rounds: int, times: int) -> None:
    """Measures one job on all contenders in turn and prints its table."""
    workers = [Worker(contender, network) for contender in contenders]
    for worker in workers:
        worker.seconds(job)  # compiles
        worker.seconds(job)
    seconds = {worker.contender: [] for worker in workers}
    sgemm = {worker.contender: [] for worker in workers}
    for _ in range(rounds):
        for worker in workers:
            seconds[worker.contender].append(worker.seconds(job, times))
            sgemm[worker.contender].append(worker.seconds('sgemm', 5))
    for worker in workers:
        worker.close()

    work_done = gflop(network, job)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    best = min((median[name] for name in contenders if name != 'gen_jax'), default=None)
    print(f'\n{job}, {network} ({work_done:.0f} GFLOP), {rounds} rounds of {times}')
    print(f'{"":16}{"ms":>9}{"fastest":>9}{"slowest":>9}{"best peer / it":>16}', end='')
    print(f'{"GFLOP/s":>9}{"own sgemm":>11}')
    for name, value in median.items():
        low, high = min(seconds[name]), max(seconds[name])
        peak = 2 * 2048**3 / statistics.median(sgemm[name]) / 1e9
        ratio = best / value if best else float('nan')
        print(f'{name:16}{value * 1e3:9.0f}{low * 1e3:9.0f}{high * 1e3:9.0f}{ratio:15.2f}x', end='')
        print(f'{work_done / value:9.0f}{peak:11.0f}', flush=True)


def main() -> None:
    """Parses the command line; measures, or serves as a worker."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--quick', action='store_true', help='small network, training, 2 rounds')
    parser.add_argument('--rounds', type=int, default=7)
    parser.add_argument('--contenders', nargs='+', default=CONTENDERS, choices=CONTENDERS)
    parser.add_argument('--network', choices=NETWORKS, help='only this one')
    parser.add_argument('--job', choices=('train', 'sample'), help='only this one')
    parser.add_argument('--worker', choices=CONTENDERS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(args.worker, args.network)
        return
    if args.quick:
        compare('small', 'train', ('gen_jax', 'eager'), rounds=2, times=1)
        return
    for network, job, times in [
        ('small', 'train', 3),
        ('cifar', 'train', 2),
        ('small', 'sample', 1),
    ]:
        if args.network in (None, network) and args.job in (None, job):
            compare(network, job, args.contenders, args.rounds, times)


if __name__ == '__main__':
    main()
