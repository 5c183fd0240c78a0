"""R3GAN on MNIST, 28x28 (Huang et al. 2024).

    python launch.py --config=configs/r3gan_mnist.py
    python launch.py --config=configs/r3gan_mnist.py --mode=evaluate \\
        --config.evaluate.scores.num=10000

As `configs/r3gan_digits.py`, with three sizes, the larger the narrower, a discriminator whose last
blocks see a whole digit, a stronger penalty, for it is of a whole image's slope, and small batches,
which learn faster on a CPU; of these Adam's second moments must forget soon. Both players are told
which digit: of a latent alone many samples are between two (LOG.md). Scores are taken in the
features of a net that `configs/feature_net_mnist.py` trains and --mode=export writes: FD 0.19 over
five seeds, about 13 minutes each on a CPU core (experiments/gans_mnist).
"""

from configs import common, dcgan_mnist, models

_STEPS = 12_000


def get_config(arg: str = ''):
    """The run; 'smoke' is its tiny version."""
    config = dcgan_mnist.get_config()
    config.unlock()
    adam = {'rate': 4e-3, 'b2': 0.9}
    models.play_r3gan(config, (64, 32, 16), group_width=16, penalty=0.5, num_steps=_STEPS, **adam)
    config.method.class_conditional = True
    config.networks.generator.widths = (128, 64, 32)
    config.networks.discriminator.num_blocks = (3, 1, 1)
    config.data.batch_size = 8
    config.ema.decay = 0.999
    config.train.update(log_every=500, evaluate_every=_STEPS // 4)
    config.train.update(sample_every=1000, checkpoint_every=1000)

    if arg == 'smoke':
        models.shrink_gan(config, widths=(8, 8, 8), num_blocks=(1, 1, 1), group_width=8)
    return common.finish(config, arg)
