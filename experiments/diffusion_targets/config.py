"""A small diffusion model of digits in continuous time, for studies that need many of them.

As `configs/ddpm_digits.py`, with half of the channels, fewer steps, and no chain: time is
continuous, so that any process can stand in it. It is scored once, at the end.
"""

from configs import common, ddpm_digits


def get_config(arg: str = ''):
    """The run; 'smoke' is its tiny version."""
    config = ddpm_digits.get_config(arg)
    config.unlock()
    config.method.process = common.section(name='gaussian.cosine')
    config.evaluate.options = common.section()
    config.sample.options = common.sampling('ddim', 50)
    if not arg:
        config.networks.model.channels = 16
        config.optim.model.decay_steps = 700
        config.optim.model.warmup_steps = 100
        config.train.num_steps = 800
        config.train.evaluate_every = config.train.sample_every = config.train.score_every = None
        config.train.best_by = None
        config.ema.decay = 0.99
        config.ema.snapshot_every = None
        config.evaluate.scores.num = 1000
        config.evaluate.scores.metrics = ('FD', 'modes')
    return config.lock()
