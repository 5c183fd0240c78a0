"""SNGAN on CIFAR-10: a discriminator whose layers have a slope of 1 (Miyato et al. 2018).

    python launch.py --config=configs/sngan_cifar.py
    python launch.py --config=configs/sngan_cifar.py --mode=evaluate

The paper's residual networks, hinge loss, five turns of the discriminator for each of the
generator's, and Adam, whose rate falls along a line. What differs: 64 examples in all turns, where
the paper's generator has 128, samples are of averaged weights, and without labels. It is sized for
one GPU.
"""

from configs import common, models


def get_config(arg: str = ''):
    """The run; 'smoke' is its tiny version."""
    config = common.get_base()

    common.use_images(config, 'tfds', 'cifar10')
    config.data.batch_size = 5 * 64
    config.data.flip = True

    models.play(config, 'sngan', remat=False)
    config.networks.generator.update(channels=256, num_levels=3)
    config.networks.discriminator.update(channels=128, num_levels=2, num_blocks=2, spectral=True)
    config.method = models.gan('adversarial.hinge', discriminator_steps=5)
    models.use_adam(config, 2e-4, num_steps=100_000, b2=0.9, schedule='linear')
    config.ema.decay = 0.9999

    config.train.num_steps = 100_000
    config.train.log_every = 100
    config.train.evaluate_every = 5000
    config.train.sample_every = 2500
    config.train.checkpoint_every = 2500

    common.score_by_inception(config)
    config.sample.num = 100
    config.sample.batch_size = 100
    config.sample.options = common.truncation()

    if arg == 'smoke':
        models.shrink_gan(config, channels=8)
        config.method.discriminator_steps = 2
        config.networks.discriminator.num_blocks = 1
    return common.finish(config, arg)
