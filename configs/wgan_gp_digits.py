"""WGAN-GP on handwritten digits, 8x8, that ship with scikit-learn (Gulrajani et al. 2017).

    python launch.py --config=configs/wgan_gp_digits.py
    python launch.py --config=configs/wgan_gp_digits.py --mode=evaluate

A critic that takes two turns for each of the generator's, each on half of the batch, and whose
slope is held to 1. Residual networks, as the paper has them for CIFAR-10; no norm mixes examples
in the critic. What differs: the sizes, two turns instead of five, a faster rate, and samples are of
averaged weights. Nine minutes on a CPU core, FD 0.25 over five seeds (experiments/gans_digits).
"""

from configs import common, dcgan_digits, models


def get_config(arg: str = ''):
    """The run; 'smoke' is its tiny version."""
    config = dcgan_digits.get_config()
    config.unlock()
    models.play_wgan_gp(config, channels=48, num_levels=1, num_steps=6000)

    if arg == 'smoke':
        models.shrink_gan(config, channels=8)
    return common.finish(config, arg)
