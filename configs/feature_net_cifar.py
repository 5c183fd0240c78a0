"""A classifier of CIFAR-10, whose features samples of 32x32 photographs are measured in.

    python launch.py --config=configs/feature_net_cifar.py
    python launch.py --config=configs/feature_net_cifar.py --mode=export

A residual network of ours, mirrored and shifted images. The published distance for CIFAR-10 is FID,
on Inception's features; this one needs no weights from elsewhere, and is not FID.
"""

from configs import common, models


def get_config(arg: str = ''):
    """The run; 'smoke' is its tiny version."""
    config = common.get_base()

    common.use_images(config, 'tfds', 'cifar10')
    config.data.flip = True

    config.networks.model = models.resnet(channels=64, channel_multipliers=(1, 2, 4), num_blocks=2)
    config.method = models.classifier(max_shift=4)
    config.optim.model = common.adamw(peak=1e-3, num_steps=20_000)
    config.ema.decay = 0.999

    config.train.num_steps = 20_000
    config.train.log_every = 100
    config.train.evaluate_every = 2000
    config.train.checkpoint_every = 1000

    if arg == 'smoke':
        models.shrink_resnet(config)
    return common.finish(config, arg)
