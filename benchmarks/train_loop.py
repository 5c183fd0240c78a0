"""The training loop beside a bare jitted step: what all that surrounds a step costs.

    python benchmarks/train_loop.py [--config=ddpm_digits] [--steps=200] [--rounds=5]

The bare step is the least that trains this model: the loss's gradient, the optimizer, one average,
jitted with the state donated, on a batch that is on the device already. The loop is
`train.train` itself: fresh batches, random keys by step, metrics, the guard against numbers that
are not finite, the averages for other lengths, signals, rows on disk. Both take turns in one
process, segment after segment; the table has the medians over the rounds.

A second loop saves every `--save_every` steps. Its stall is how much longer the step at which it
saves takes than the others; what the thread that writes costs the steps after it, on a machine
whose cores they share, is in the sum over all steps from one save to the next.
"""

import argparse
import contextlib
import functools
import importlib
import io
import itertools
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # for `configs`, which is no installed package


def bare_step(run, config):
    """`(state, batch, key) -> (state, loss)` of a dict of params, opt_state and average."""
    import jax
    import optax

    (phase,) = run.method.phases
    player, optimizer = phase.player, run.optimizers[phase.player]

    def step(state, batch, key, trainer_state):
        def loss_of(own):
            loss, _ = phase.loss({player: own}, trainer_state, batch, key)
            return loss

        loss, gradient = jax.value_and_grad(loss_of)(state['params'])
        updates, opt_state = optimizer.update(gradient, state['opt_state'], state['params'])
        params = optax.apply_updates(state['params'], updates)
        average = optax.incremental_update(params, state['average'], 1 - config.ema.decay)
        return {'params': params, 'opt_state': opt_state, 'average': average}, loss

    return run.parallel.jit(step, donate_argnums=(0,))


def prepare_bare(config, steps: int):
    """A function that runs so many bare steps and returns the seconds of one."""
    import jax

    from gen_jax import parallel
    from gen_jax.data.dataset import training_batches
    from gen_jax.run import assemble, initialize, load_data

    run = assemble(config)
    full = initialize(run, config.seed)
    (phase,) = run.method.phases
    batches = training_batches(
        load_data(config).train, batch_size=config.data.batch_size, seed=config.seed
    )
    batch = parallel.place(run.parallel, next(batches))
    batches.close()
    step = bare_step(run, config)
    state = {
        'params': full.params[phase.player],
        'opt_state': full.opt_state[phase.player],
        'average': full.ema_params[phase.player],
    }
    # What the loss may read besides parameters.
    rest = full.replace(params={}, opt_state={}, ema_params={}, power_ema=())
    key = jax.random.key(0)
    held = {'state': step(state, batch, key, rest)[0]}

    def segment() -> float:
        state = held['state']
        jax.block_until_ready(state)
        started = time.perf_counter()
        for _ in range(steps):
            state, loss = step(state, batch, key, rest)
        jax.block_until_ready(loss)
        held['state'] = state
        return (time.perf_counter() - started) / steps

    return segment


def prepare_loop(config, workdir: Path, steps: int, log_every: int, save_every: int | None):
    """A function that trains on for so many steps; returns the seconds of each row's steps, and
    whether there was a save among them."""
    from gen_jax.train import train
    from gen_jax.writers import read_rows

    never = 10**9
    config = config.copy_and_resolve_references()
    config.train.update(
        log_every=log_every,
        checkpoint_every=save_every or never,
        evaluate_every=None,
        sample_every=None,
        score_every=None,
        best_by=None,
    )
    done = [0]

    def segment() -> list[tuple[float, bool]]:
        first, done[0] = done[0], done[0] + steps + log_every
        config.train.num_steps = done[0]
        with contextlib.redirect_stderr(io.StringIO()):
            train(config, workdir)
        rows = [row for row in read_rows(workdir / 'metrics.jsonl') if row['step'] > first + 1]
        # A row is written when its step has ended: a save after step n shows in the row after n.
        return [
            (
                (b['seconds'] - a['seconds']) / (b['step'] - a['step']),
                save_every is not None
                and any(s % save_every == 0 for s in range(a['step'], b['step'])),
            )
            for a, b in itertools.pairwise(rows)
        ]

    return segment


def _sums_between_saves(rows: list[tuple[float, bool]], calm: float) -> list[float]:
    """How much longer than calm the steps from one save to the next took together."""
    at = [i for i, (_, saves) in enumerate(rows) if saves]
    return [sum(seconds - calm for seconds, _ in rows[a:b]) for a, b in itertools.pairwise(at)]


def main() -> None:
    """Alternates, and prints the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument('--config', default='ddpm_digits')
    parser.add_argument('--steps', type=int, default=200)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--save_every', type=int, default=20)
    chosen = parser.parse_args()

    from gen_jax import runtime

    runtime.start()
    config = importlib.import_module(f'configs.{chosen.config}').get_config()
    times = {'bare': [], 'loop': [], 'saving': [], 'stall': [], 'sum': []}
    with tempfile.TemporaryDirectory() as folder:
        bare = prepare_bare(config, chosen.steps)
        make = functools.partial(prepare_loop, config, steps=chosen.steps)
        loop = make(Path(folder) / 'loop', log_every=10, save_every=None)
        saving = make(Path(folder) / 'saving', log_every=1, save_every=chosen.save_every)
        for number in range(chosen.rounds):
            times['bare'].append(bare())
            times['loop'].append(statistics.mean(seconds for seconds, _ in loop()))
            times['bare'].append(bare())
            rows = saving()
            calm = statistics.median(seconds for seconds, saves in rows if not saves)
            times['saving'].append(calm)
            times['stall'] += [seconds - calm for seconds, saves in rows if saves]
            times['sum'] += _sums_between_saves(rows, calm)
            print(f'round {number + 1} of {chosen.rounds}', file=sys.stderr)
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(f'{chosen.config}, batch {config.data.batch_size}; ms, medians of {chosen.rounds} rounds')
    print(f'bare jitted step          {1e3 * medians["bare"]:8.2f}')
    ratio = statistics.median(
        loop / statistics.mean(pair)
        for loop, pair in zip(
            times['loop'], zip(times['bare'][::2], times['bare'][1::2], strict=True), strict=True
        )
    )
    print(f'the whole loop            {1e3 * medians["loop"]:8.2f}   {ratio:.3f} of the bare step')
    print(
        f'a save stalls the loop by {1e3 * medians["stall"]:8.2f}   '
        f'{medians["stall"] / medians["saving"]:.2f} of a step, '
        f'at most {max(times["stall"]) / medians["saving"]:.2f}, {len(times["stall"])} saves'
    )
    print(
        f'until the next save, sum  {1e3 * medians["sum"]:8.2f}   '
        f'{medians["sum"] / medians["saving"]:.2f} of a step'
    )


if __name__ == '__main__':
    main()
