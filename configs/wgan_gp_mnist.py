"""WGAN-GP on MNIST, 28x28 (Gulrajani et al. 2017).

    python launch.py --config=configs/wgan_gp_mnist.py
    python launch.py --config=configs/wgan_gp_mnist.py --mode=evaluate \\
        --config.evaluate.scores.num=10000

As `configs/wgan_gp_digits.py`, with a level more, fewer channels, and one turn of the critic on
small batches, which learn faster on a CPU. Scores are taken in the features of a net that
`configs/feature_net_mnist.py` trains and --mode=export writes: FD 0.13 after 59 minutes on a CPU
core beside other programs (seed 0, LOG.md).
"""

from configs import common, dcgan_mnist, models


def get_config(arg: str = ''):
    """The run; 'smoke' is its tiny version."""
    config = dcgan_mnist.get_config()
    config.unlock()
    models.play_wgan_gp(config, channels=32, num_levels=2, num_steps=26_000)
    config.data.batch_size = 16
    config.method.discriminator_steps = 1
    config.ema.decay = 0.999
    config.train.update(log_every=500, evaluate_every=6500)
    config.train.update(sample_every=2000, checkpoint_every=2000)

    if arg == 'smoke':
        models.shrink_gan(config, channels=8)
    return common.finish(config, arg)
