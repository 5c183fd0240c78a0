"""`configs/gan_25gaussians.py` for a third as long, its penalty at one weight all along."""

from configs import gan_8gaussians


def get_config(arg: str = ''):
    """The run; 'smoke' is its tiny version."""
    config = gan_8gaussians.get_config(arg, num_steps=10_000)
    config.unlock()
    config.data.name = '25gaussians'
    config.method.penalty_final, config.method.penalty_steps = 1.0, 0
    if not arg:
        config.train.evaluate_every = config.train.sample_every = None
    return config.lock()
