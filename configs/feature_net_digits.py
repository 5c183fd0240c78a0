"""A classifier of the 8x8 digits, whose features samples of digits are measured in.

    python launch.py --config=configs/feature_net_digits.py
    python launch.py --config=configs/feature_net_digits.py --mode=export

A small residual network of ours, half a minute on two CPU cores. Its weights ship with the package,
as `gen_jax/features/digits.safetensors`: features trained anew on another machine would differ in
the last bits, and distances in them would be another score.
"""

from configs import common, models


def get_config(arg: str = ''):
    """The run; 'smoke' is its tiny version."""
    config = common.get_base()

    common.use_images(config, 'embedded', 'digits')

    config.networks.model = models.resnet(channels=32, channel_multipliers=(1, 2), num_blocks=1)
    config.method = models.classifier(max_shift=1)
    config.optim.model = common.adamw(peak=3e-3, num_steps=1500)
    config.ema.decay = 0.99

    config.train.num_steps = 1500
    config.train.log_every = 50
    config.train.evaluate_every = 500
    config.train.checkpoint_every = 500

    if arg == 'smoke':
        models.shrink_resnet(config)
    return common.finish(config, arg)
