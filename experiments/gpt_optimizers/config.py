"""The small GPT of `configs/gpt_shakespeare_char_cpu.py` with another optimizer, for 300 steps.

The argument is the optimizer: 'adamw', 'muon', 'lion' or 'schedule_free'. All but the last have a
warm-up of 50 steps; AdamW and Lion a cosine to a tenth, Muon the line of `configs/common.py`.
"""

from configs import common, gpt_shakespeare_char_cpu

NUM_STEPS = 300


def get_config(arg: str = 'adamw'):
    """The run with this optimizer."""
    config = gpt_shakespeare_char_cpu.get_config()
    config.unlock()
    adamw = common.gpt_optimizer(peak=3e-3, num_steps=NUM_STEPS, warmup_steps=50)
    if arg == 'adamw':
        config.optim.model = adamw
    elif arg == 'lion':
        config.optim.model = adamw
        config.optim.model.update(name='lion', learning_rate=3e-4, weight_decay=1.0)
    elif arg == 'muon':
        config.optim.model = common.muon(NUM_STEPS)
    elif arg == 'schedule_free':
        config.optim.model = common.section(
            name='schedule_free_adamw',
            learning_rate=1e-2,
            b1=0.9,
            b2=0.99,
            weight_decay=0.01,
            warmup_steps=50,
            clip_norm=1.0,
        )
    else:
        raise ValueError(f'no optimizer {arg!r}; choose from adamw, muon, lion, schedule_free')
    config.train.num_steps = NUM_STEPS
    config.train.evaluate_every = config.train.sample_every = None
    return config.lock()
