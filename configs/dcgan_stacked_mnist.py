"""DCGAN on stacked MNIST: three digits on the channels of one image, 1,000 modes.

    python launch.py --config=configs/dcgan_stacked_mnist.py
    python launch.py --config=configs/dcgan_stacked_mnist.py --mode=evaluate

The test of mode collapse of Metz et al. 2017: of 26,000 samples, how many of the 1,000 numbers
occur, and how far their frequencies are from those of the data. What a sample is, a net of single
digits says, which `configs/feature_net_mnist.py` trains and --mode=export writes; give it as
`--config.evaluate.scores.features.weights=FILE`. The network is DCGAN's with fewer channels.
"""

from configs import common, models


def get_config(arg: str = ''):
    """The run; 'smoke' is its tiny version."""
    config = common.get_base()

    common.use_images(config, 'tfds', 'mnist')
    config.data.stacked = True
    config.data.batch_size = 64

    models.play(config, 'dcgan', channels=64, num_levels=2, remat=False)
    config.method = models.gan('adversarial.non_saturating', latent_channels=100)
    models.use_adam(config, 2e-4, b1=0.5, b2=0.999)
    config.ema.decay = 0.999

    config.train.num_steps = 25_000
    config.train.log_every = 100
    config.train.evaluate_every = 5000
    config.train.sample_every = 2500
    config.train.checkpoint_every = 2500

    common.score_stacked(config, weights=None)
    config.evaluate.scores.num_references = 10_000
    config.sample.num = 100
    config.sample.batch_size = 100
    config.sample.options = common.truncation()

    if arg == 'smoke':
        models.shrink_gan(config, channels=4)
    return common.finish(config, arg)
