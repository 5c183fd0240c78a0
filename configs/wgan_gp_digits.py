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
    config.data.batch_size = 2 * 64

    models.play(config, 'sngan', channels=48, num_levels=1, remat=False)
    config.networks.discriminator.update(num_blocks=1, spectral=False)
    config.method = models.gan(
        'adversarial.wasserstein',
        latent_channels=64,
        discriminator_steps=2,
        gradient_penalty=10.0,
    )
    models.use_adam(config, 1e-3, num_steps=6000, b2=0.9)
    config.train.num_steps = 6000

    if arg == 'smoke':
        models.shrink_gan(config, channels=8)
    return common.finish(config, arg)
