"""Handwritten digits, 8x8, as 2x2 codes of 240 (finite scalar quantization, Mentzer et al. 2024).

    python launch.py --config=configs/fsq_digits.py
    python launch.py --config=configs/fsq_digits.py --mode=evaluate

The encoder's 3 numbers at each of 4 places are rounded to 8, 6 and 5 levels, the paper's for about
2^8 codes; there is neither codebook nor loss of codes. Each pixel is one of 17 levels. The network
is ours; about a minute on two CPU cores. `configs/vq_gpt_digits.py` models the codes.
"""

from configs import common, models


def get_config(arg: str = ''):
    """The run; 'smoke' is its tiny version."""
    config = common.get_base()

    common.use_images(config, 'embedded', 'digits')
    config.data.batch_size = 64

    config.networks.autoencoder = models.conv_autoencoder(
        channels=32,
        channel_multipliers=(1, 2, 2),
        num_blocks=1,
        num_groups=8,
        vector=False,
        dropout=0.2,
    )
    config.method = models.vqvae(
        quantizer=common.section(name='scalar.fsq', levels=(8, 6, 5)),
        observation=common.section(name='observation.logistic'),
    )
    config.optim.autoencoder = common.adamw(2e-3, num_steps=1500)
    config.ema.decay = 0.99

    config.train.num_steps = 1500
    config.train.log_every = 50
    config.train.evaluate_every = 500
    config.train.checkpoint_every = 500

    if arg == 'smoke':
        models.shrink_conv_autoencoder(config)
    return common.finish(config, arg)
