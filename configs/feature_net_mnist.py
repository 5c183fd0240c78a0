"""A classifier of MNIST, whose features samples of 28x28 digits are measured in.

    python launch.py --config=configs/feature_net_mnist.py
    python launch.py --config=configs/feature_net_mnist.py --mode=export

A residual network of ours. The second line writes the weights to one file, which other runs take as
`evaluate.scores.features.weights`; distances compare only where that file is the same.
"""

from configs import common, models


def get_config(arg: str = ''):
    """The run; 'smoke' is its tiny version."""
    config = common.get_base()

    common.use_images(config, 'tfds', 'mnist')

    config.networks.model = models.resnet(channels=32, channel_multipliers=(1, 2, 4), num_blocks=1)
    config.method = models.classifier(max_shift=2)
    config.optim.model = common.adamw(peak=2e-3, num_steps=4000)
    config.ema.decay = 0.998

    config.train.num_steps = 4000
    config.train.log_every = 50
    config.train.evaluate_every = 1000
    config.train.checkpoint_every = 500

    if arg == 'smoke':
        models.shrink_resnet(config)
    return common.finish(config, arg)
