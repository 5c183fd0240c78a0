"""K runs of other seeds in one compiled step beside the same runs one after the other.

    python benchmarks/train_together.py [--configs=ddpm_8gaussians,gan_8gaussians] [--members=8]

Alone: K steps of the compiled step of one run, a state and a batch of its own each. Together: one
step of `together.compile_together`. Both take turns in one process; the table has the medians of
the milliseconds in which all K runs take a step, and the seconds of the first call, with compiling:
alone each of K processes has them, but for what it finds in the cache.
"""

import argparse
import importlib
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # for `configs`, which is no installed package


def prepare(name: str, members: int) -> dict:
    """By contender, a function that takes a step of all runs, and the seconds of its first call."""
    import jax
    import numpy as np

    from gen_jax import parallel
    from gen_jax.run import abstract_batch, assemble, compile_step, initialize
    from gen_jax.together import compile_together

    config = importlib.import_module(f'configs.{name}').get_config()
    run = assemble(config)
    rng = np.random.default_rng(0)

    def batch():
        return parallel.place_for_step(
            run.parallel,
            {
                name: rng.integers(0, 2, leaf.shape).astype(leaf.dtype)
                for name, leaf in abstract_batch(run.spec, config.data.batch_size).items()
            },
        )

    batches = [batch() for _ in range(members)]
    alone = compile_step(run, config)
    together = compile_together([config] * members, run, {})
    states = {kind: [initialize(run, seed) for seed in range(members)] for kind in ('a', 't')}

    def step_alone():
        for i in range(members):
            states['a'][i], metrics = alone(states['a'][i], batches[i])
        jax.block_until_ready(metrics)

    def step_together():
        after = together(tuple(states['t']), tuple(batches))
        states['t'] = [state for state, _ in after]
        jax.block_until_ready(after[-1][1])

    found = {}
    for contender, step in (('alone', step_alone), ('together', step_together)):
        since = time.perf_counter()
        step()
        found[contender] = (step, time.perf_counter() - since)
    return found


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--configs', default='ddpm_8gaussians,gan_8gaussians')
    parser.add_argument('--members', type=int, default=8)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--steps', type=int, default=5)
    flags = parser.parse_args()
    from gen_jax import runtime

    runtime.start()
    print(f'{flags.members} runs, {flags.rounds} rounds of {flags.steps} steps of all of them')
    print(f'{"":28}{"alone":>10}{"together":>10}{"ratio":>8}   {"first call, s":>14}')
    for name in flags.configs.split(','):
        contenders = prepare(name, flags.members)
        times = {contender: [] for contender in contenders}
        for _ in range(flags.rounds):
            for contender, (step, _) in contenders.items():
                since = time.perf_counter()
                for _ in range(flags.steps):
                    step()
                times[contender].append((time.perf_counter() - since) / flags.steps)
        alone, together = (1000 * statistics.median(times[c]) for c in ('alone', 'together'))
        first = ', '.join(f'{seconds:.1f}' for _, seconds in contenders.values())
        print(
            f'{name:28}{alone:10.1f}{together:10.1f}{alone / together:8.2f}   {first:>14}',
            flush=True,
        )


if __name__ == '__main__':
    main()
