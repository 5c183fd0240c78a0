"""Which optimizer brings a small GPT furthest in the same number of tokens?"""

from gen_jax.sweeps.study import CONFIG, Study

FILE, RATE = 'experiments/gpt_optimizers/config.py', 'optim.model.learning_rate'
RATES = {
    'adamw': (1e-3, 3e-3, 1e-2),
    'lion': (1e-4, 3e-4, 1e-3),
    'muon': (6e-3, 2e-2, 6e-2),
    'schedule_free': (3e-3, 1e-2, 3e-2),
}


def sweep() -> Study:
    """Four optimizers, each at three rates around its usual one."""
    return Study(
        config=f'{FILE}:adamw',
        points=[
            {CONFIG: f'{FILE}:{name}', RATE: rate}
            for name, rates in RATES.items()
            for rate in rates
        ],
        seeds=3,
        metrics=('nats_per_char',),
        baseline={CONFIG: f'{FILE}:adamw', RATE: 3e-3},
    )
