"""R3GAN on MNIST, 28x28 (Huang et al. 2024).

    python launch.py --config=configs/r3gan_mnist.py
    python launch.py --config=configs/r3gan_mnist.py --mode=evaluate \\
        --config.evaluate.scores.num=10000

As `configs/r3gan_digits.py`, with three sizes, the larger the narrower, and a stronger penalty: it
is of a whole image's slope. Scores are taken in the features of a net that
`configs/feature_net_mnist.py` trains and --mode=export writes: FD 1.14 after 17 minutes on a CPU
core (seed 0, LOG.md), and still falling.
"""

from configs import common, dcgan_mnist, models


def get_config(arg: str = ''):
    """The run; 'smoke' is its tiny version."""
    config = dcgan_mnist.get_config()
    config.unlock()

    fields = {'widths': (64, 32, 16), 'num_blocks': 1, 'expansion': 1, 'group_width': 16}
    models.play(config, 'r3gan', **fields, remat=False)
    config.method = models.gan(
        'adversarial.relativistic',
        latent_channels=64,
        r1=0.5,
        r2=0.5,
        penalty_final=0.5,
        penalty_steps=3000,
    )
    models.use_adam(config, 2e-3, num_steps=3000)
    config.train.num_steps = 3000

    if arg == 'smoke':
        models.shrink_gan(config, widths=(8, 8, 8), group_width=8)
    return common.finish(config, arg)
