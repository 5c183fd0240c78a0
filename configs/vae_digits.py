"""A variational autoencoder of handwritten digits, 8x8, that ship with scikit-learn.

    python launch.py --config=configs/vae_digits.py
    python launch.py --config=configs/vae_digits.py --mode=evaluate

Kingma & Welling 2014 with convolutions, each pixel one of 17 levels. The network is ours. What it
makes of an image, 16 numbers, is also what `configs/latent_flow_digits.py` models.
"""

from configs import common, models


def get_config(arg: str = ''):
    """The run; 'smoke' is its tiny version."""
    config = common.get_base()

    common.use_images(config, 'embedded', 'digits')
    config.data.batch_size = 64

    config.networks.autoencoder = models.conv_autoencoder(
        channels=32, channel_multipliers=(1, 2), num_blocks=1, num_groups=8, vector=True
    )
    config.method = models.vae('observation.logistic', latent_channels=16)
    config.optim.autoencoder = common.adamw(2e-3, num_steps=1500)
    config.ema.decay = 0.995

    config.train.num_steps = 1500
    config.train.log_every = 50
    config.train.evaluate_every = 250
    config.train.sample_every = 500
    config.train.checkpoint_every = 500

    config.evaluate.options = common.section(num_samples=500, chunk=50)
    common.score_images(config, weights='digits')
    config.evaluate.scores.num = 10_000
    config.sample.num = 100
    config.sample.batch_size = 100
    config.sample.options = common.section(output='mean')

    if arg == 'smoke':
        models.shrink_conv_autoencoder(config)
    return common.finish(config, arg)
