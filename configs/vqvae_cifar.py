"""A VQ-VAE of CIFAR-10 (van den Oord et al. 2017): 32x32 pixels as 8x8 codes of 512.

    python launch.py --config=configs/vqvae_cifar.py
    python launch.py --config=configs/vqvae_cifar.py --mode=evaluate

512 codes of 64 numbers, commitment 0.25 and a codebook that follows its averages, as in the paper;
the squared error is weighted like there, by about the variance of the pixels: a Gaussian of
deviation 0.35 where they go from -1 to 1. What differs: codes that nothing uses begin anew, and
the network is ours. It is sized for minutes on one GPU; `--config.train.num_steps=300` is a look on
a CPU. It reconstructs, and draws nothing: that takes a second stage, such as `vq_gpt_digits.py`.
"""

from configs import common, models


def get_config(arg: str = ''):
    """The run; 'smoke' is its tiny version."""
    config = common.get_base()

    common.use_images(config, 'tfds', 'cifar10')
    config.data.flip = True

    config.networks.autoencoder = models.conv_autoencoder(
        channels=32, channel_multipliers=(1, 2, 4), num_blocks=1, num_groups=8, vector=False
    )
    config.method = models.vqvae(
        quantizer=models.vq(512, 64),
        observation=common.section(name='observation.gaussian', sigma=0.35),
    )
    config.optim.autoencoder = common.adamw(1e-3, num_steps=20_000)
    config.ema.decay = 0.99

    config.train.num_steps = 20_000
    config.train.log_every = 100
    config.train.evaluate_every = 2000
    config.train.checkpoint_every = 2000

    if arg == 'smoke':
        models.shrink_vqvae(config)
    return common.finish(config, arg)
