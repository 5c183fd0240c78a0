"""GPT here beside PyTorch on this machine's CPU: training steps, and decoding with a cache.

    python benchmarks/gpt_vs_torch.py [--rounds=5] [--restarts=3] [--network=small] [--job=train]

Training: the same transformer, plainly written in PyTorch below, with its fused attention and fused
AdamW, as it is ('eager') and by torch.compile ('compiled'); 'tuned' adds our allocator setting.
Decoding: 256 tokens from one token, sampled with a cache, beside `generate` of transformers on a
GPT-2 of the same size. How contenders take turns, and what the table says, is in `contenders.py`.

GFLOP count the products alone: 6 for each parameter of a matrix and token of training and 12 C T
L for its attention, of which causality would need half; in decoding 2 for each parameter.
"""

import argparse
import functools

import contenders
from contenders import SGEMM

NETWORKS = {
    'small': {'width': 128, 'layers': 4, 'heads': 4, 'context': 64, 'batch': 12},
    'medium': {'width': 384, 'layers': 6, 'heads': 6, 'context': 256, 'batch': 16},
}
VOCAB = 65
TRAINERS = ('gen_jax', 'eager', 'compiled', 'eager tuned', 'compiled tuned')
DECODERS = ('gen_jax', 'transformers')
JOBS = {'train': TRAINERS, 'decode1': DECODERS, 'decode16': DECODERS}
DECODED = 256
LEARNING_RATE, CLIP, BETAS, DECAY = 1e-3, 1.0, (0.9, 0.99), 0.1


# --- the contenders: each returns {job: function running it once, to the end} ---------------------


def jax_jobs(net: dict) -> dict:
    """gen_jax: its own train step, state donated, and its own sampler, one loop."""
    from gen_jax import runtime

    runtime.start()
    import flax.linen as nn
    import jax
    import jax.numpy as jnp

    from gen_jax import optim, parallel, step
    from gen_jax.methods.autoregressive import autoregressive
    from gen_jax.networks.transformer import Transformer
    from gen_jax.run import abstract_batch
    from gen_jax.samplers import tokens as samplers
    from gen_jax.state import init_state
    from gen_jax.types import DataSpec

    def method_of(context):
        spec = DataSpec((context,), 'int32', vocab_size=VOCAB, start_token=0)
        network = functools.partial(
            Transformer,
            width=net['width'],
            num_layers=net['layers'],
            num_heads=net['heads'],
            bias=False,
        )
        return autoregressive({'model': network}, spec), spec

    method, spec = method_of(net['context'])
    optimizers = {
        'model': optim.optimizer(
            'adamw',
            learning_rate=LEARNING_RATE,
            b1=BETAS[0],
            b2=BETAS[1],
            weight_decay=DECAY,
            clip_norm=CLIP,
        )
    }
    batch = {
        name: jnp.ones(leaf.shape, leaf.dtype)
        for name, leaf in abstract_batch(spec, net['batch']).items()
    }
    state = jax.jit(lambda: nn.unbox(init_state(method, optimizers, 0, batch)))()
    devices = parallel.lay_out(data=1, devices=jax.devices()[:1])
    train_step = parallel.compile_step(
        devices,
        functools.partial(step.train_step, method=method, optimizers=optimizers, ema_decay=0.0),
        parallel.state_shardings(devices, jax.eval_shape(lambda: state)),
    )

    def train():
        nonlocal state
        state, metrics = train_step(state, batch)
        jax.block_until_ready(metrics)

    decoder, _ = method_of(DECODED)
    weights = decoder.init(jax.random.key(0), batch)[0]

    @functools.partial(devices.jit, static_argnums=2)
    def decode(params, key, num):
        tokens = jnp.zeros((num, DECODED + 1), jnp.int32)
        known = jnp.zeros(tokens.shape, bool).at[:, 0].set(True)
        predictor = decoder.predictor(params)
        return samplers.generate(predictor, tokens, known, key, samplers.Rules())

    matrix = jnp.ones((SGEMM, SGEMM))
    matmul = devices.jit(jnp.matmul)
    weights, key = nn.unbox(weights), jax.random.key(1)
    return {
        'train': train,
        'decode1': lambda: decode(weights, key, 1).block_until_ready(),
        'decode16': lambda: decode(weights, key, 16).block_until_ready(),
        'sgemm': lambda: matmul(matrix, matrix).block_until_ready(),
    }


def torch_twin(net: dict):
    """The same transformer, as one would write it in PyTorch."""
    import torch
    from torch import nn

    width, heads, context = net['width'], net['heads'], net['context']

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm_0, self.norm_1 = (nn.LayerNorm(width, bias=False) for _ in range(2))
            self.qkv = nn.Linear(width, 3 * width, bias=False)
            self.out = nn.Linear(width, width, bias=False)
            self.mlp = nn.Sequential(
                nn.Linear(width, 4 * width, bias=False),
                nn.GELU(approximate='tanh'),
                nn.Linear(4 * width, width, bias=False),
            )

        def forward(self, h):
            qkv = self.qkv(self.norm_0(h)).view(*h.shape[:2], 3, heads, -1)
            q, k, v = qkv.permute(2, 0, 3, 1, 4)
            y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            h = h + self.out(y.transpose(1, 2).reshape(h.shape))
            return h + self.mlp(self.norm_1(h))

    class GPT(nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens = nn.Embedding(VOCAB, width)
            self.positions = nn.Embedding(context, width)
            self.blocks = nn.Sequential(*(Block() for _ in range(net['layers'])))
            self.norm = nn.LayerNorm(width, bias=False)
            for p in self.parameters():
                if p.ndim > 1:
                    nn.init.normal_(p, std=0.02)

        def forward(self, x):
            h = self.tokens(x) + self.positions(torch.arange(x.shape[1]))
            return self.norm(self.blocks(h)) @ self.tokens.weight.T

    return GPT()


def torch_jobs(net: dict, compiled: bool, tuned: bool) -> dict:
    """PyTorch with fused AdamW; `tuned` adds our allocator setting."""
    if tuned:
        from gen_jax import runtime

        runtime.start()
    import torch

    torch.manual_seed(0)
    gpt = torch_twin(net)
    parameters = list(gpt.parameters())
    optimizer = torch.optim.AdamW(
        parameters, lr=LEARNING_RATE, betas=BETAS, weight_decay=DECAY, fused=True
    )
    predict = torch.compile(gpt) if compiled else gpt
    x = torch.ones(net['batch'], net['context'], dtype=torch.long)

    def train():
        logits = predict(x)
        loss = torch.nn.functional.cross_entropy(logits.view(-1, VOCAB), x.view(-1))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, CLIP)
        optimizer.step()

    matrix = torch.ones(SGEMM, SGEMM)
    return {'train': train, 'sgemm': lambda: matrix @ matrix}


def transformers_jobs(net: dict) -> dict:
    """GPT-2 of transformers, decoding with its cache."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=VOCAB,
        n_positions=DECODED + 1,
        n_embd=net['width'],
        n_layer=net['layers'],
        n_head=net['heads'],
        bos_token_id=0,
        eos_token_id=None,
    )
    model = GPT2LMHeadModel(config).eval()

    @torch.inference_mode()
    def decode(num):
        start = torch.zeros(num, 1, dtype=torch.long)
        drawn = model.generate(
            start,
            attention_mask=torch.ones_like(start),
            do_sample=True,
            top_k=0,
            min_new_tokens=DECODED,
            max_new_tokens=DECODED,
            use_cache=True,
            pad_token_id=0,
        )
        if drawn.shape != (num, DECODED + 1):
            raise SystemExit(f'{drawn.shape} is not what was asked for')

    matrix = torch.ones(SGEMM, SGEMM)
    return {
        'decode1': lambda: decode(1),
        'decode16': lambda: decode(16),
        'sgemm': lambda: matrix @ matrix,
    }


def work(contender: str, network: str) -> None:
    """Serves one contender over standard input and output."""
    net = NETWORKS[network]
    if contender == 'gen_jax':
        contenders.serve(jax_jobs(net))
    elif contender == 'transformers':
        contenders.serve(transformers_jobs(net))
    else:
        contenders.serve(torch_jobs(net, 'compiled' in contender, 'tuned' in contender))


# --- the table ------------------------------------------------------------------------------------


def gflop(net: dict, job: str) -> float:
    """GFLOP of one job, as the docstring counts them."""
    width, layers = net['width'], net['layers']
    matrices = 12 * width**2 * layers + VOCAB * width
    if job == 'train':
        tokens = net['batch'] * net['context']
        return tokens * (6 * matrices + 12 * width * net['context'] * layers) / 1e9
    tokens = DECODED * int(job.removeprefix('decode'))
    return tokens * (2 * matrices + 4 * width * DECODED // 2 * layers) / 1e9


def main() -> None:
    """Parses the command line; measures, or serves as a worker."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--restarts', type=int, default=3, help='of all processes')
    parser.add_argument('--contenders', nargs='+', help='only these')
    parser.add_argument('--network', choices=NETWORKS, help='only this one')
    parser.add_argument('--job', choices=JOBS, help='only this one')
    parser.add_argument('--worker', choices=(*TRAINERS, *DECODERS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(args.worker, args.network)
        return
    for network, net in NETWORKS.items():
        for job, names in JOBS.items():
            if args.network in (None, network) and args.job in (None, job):
                times = 20 if (network, job) == ('small', 'train') else 1
                figures = contenders.measure(
                    __file__,
                    network,
                    job,
                    [n for n in names if n in (args.contenders or names)],
                    rounds=args.rounds,
                    times=times,
                    restarts=args.restarts,
                )
                contenders.report(f'{job}, {network} network', gflop(net, job), figures)


if __name__ == '__main__':
    main()
