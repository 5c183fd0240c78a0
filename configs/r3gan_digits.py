"""R3GAN on handwritten digits, 8x8, that ship with scikit-learn (Huang et al. 2024).

    python launch.py --config=configs/r3gan_digits.py
    python launch.py --config=configs/r3gan_digits.py --mode=evaluate

Each made example is held against a real one, and the discriminator's slope is penalized at both.
The paper's networks with fewer channels; what differs besides is the size of everything.
"""

from configs import common, dcgan_digits, models


def get_config(arg: str = ''):
    """The run; 'smoke' is its tiny version."""
    config = dcgan_digits.get_config()
    config.unlock()

    models.play(
        config, 'r3gan', widths=(64, 64, 64), num_blocks=1, expansion=2, group_width=16, remat=False
    )
    config.method = models.gan(
        'adversarial.relativistic',
        latent_channels=64,
        r1=1.0,
        r2=1.0,
        penalty_final=0.1,
        penalty_steps=4000,
    )
    models.use_adam(config, 5e-4, num_steps=4000)
    config.train.num_steps = 4000

    if arg == 'smoke':
        models.shrink_gan(config, widths=(8, 8), group_width=8)
    return common.finish(config, arg)
