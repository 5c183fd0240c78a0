"""`--mode=plan`: what a run would be, found by compiling it on shapes alone.

Nothing is read, trained or written: the same step is lowered and compiled for this machine's
devices, and the compiler is asked for its operations and its memory.
"""

import time

from gen_jax import parallel
from gen_jax.run import abstract_batch, assemble, compile_step, data_options, modality
from gen_jax.state import count_parameters


def plan(config) -> dict:
    """Prints and returns the plan of a run.

    Returns:
      `parameters` by player; `flops_per_step` of the global batch, counted before the compiler
      rewrites anything; `peak_bytes` on each device (state, batch and work space); and
      `compile_seconds`.

    Raises:
      InputError: bad config.
    """
    run = assemble(config)
    size, parts = config.data.batch_size, config.train.accumulate
    parallel.check_batch_size(run.parallel, size, 'data.batch_size', parts)
    batch = parallel.abstract_for_step(run.parallel, abstract_batch(run.spec, size))
    lowered = compile_step(run, config).lower(run.template, batch)
    started = time.perf_counter()
    compiled = lowered.compile()
    seconds = time.perf_counter() - started
    memory = compiled.memory_analysis()
    facts = {
        'parameters': {
            player: count_parameters(tree) for player, tree in run.template.params.items()
        },
        'flops_per_step': flops_of(lowered, run.parallel),
        'peak_bytes': peak_bytes(memory),
        'compile_seconds': seconds,
    }
    show(config, facts, run.parallel)
    return facts


def flops_of(lowered, layout: parallel.Parallel) -> float | None:
    """Operations for the global batch; None where the compiler does not count them."""
    flops = (lowered.cost_analysis() or {}).get('flops')
    # Under pmap the program that is lowered is that of one device.
    return flops * layout.batch_devices if flops and layout.strategy == 'pmap' else flops


def peak_bytes(memory) -> int:
    """Bytes on one device at the fullest: arguments, results and work space; shared once."""
    return (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        + memory.temp_size_in_bytes
        - memory.alias_size_in_bytes
    )


def show(config, facts: dict, layout: parallel.Parallel) -> None:
    """Prints the facts, and what data would be read."""
    rows = []
    for player, number in facts['parameters'].items():
        rows.append((f'parameters of {player}', f'{number:,}'))
    flops = facts['flops_per_step']
    rows.append(('batch', f'{config.data.batch_size} examples'))
    rows.append(('operations per step', f'{flops / 1e9:,.1f} GFLOP' if flops else 'not counted'))
    rows.append(('peak memory per device', f'{facts["peak_bytes"] / 2**20:,.0f} MiB'))
    rows.append(('compile time', f'{facts["compile_seconds"]:.1f} s'))
    devices = layout.mesh.devices
    rows.append(('devices', f'{devices.size} x {devices.flat[0].device_kind}, {layout.strategy}'))
    rows.append(('steps', f'{config.train.num_steps:,}'))
    for line in modality(config).describe(**data_options(config)).lines:
        rows.append(('data', line))
    width = max(len(name) for name, _ in rows) + 2
    for name, value in rows:
        print(f'{name:{width}}{value}')
