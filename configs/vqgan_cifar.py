"""A VQ-GAN of CIFAR-10 (Esser, Rombach & Ommer 2021): a VQ-VAE that a discriminator watches.

    python launch.py --config=configs/vqgan_cifar.py
    python launch.py --config=configs/vqgan_cifar.py --mode=evaluate

The paper's hinge loss, its weight of 0.8 and the adaptive one, and a discriminator of patches, of
two levels here since images are small. What differs: there is no perceptual term, which needs a
network trained on labels; the discriminator learns from the first step on, where the authors' code
lets it wait until it has a say; and the networks are ours. 8x8 codes of 1,024, of 8 numbers each;
`configs/latent_flow_cifar.py` models what they are made of. It is sized for one GPU.
"""

from configs import common, models


def get_config(arg: str = ''):
    """The run; 'smoke' is its tiny version."""
    config = common.get_base()

    common.use_images(config, 'tfds', 'cifar10')
    config.data.flip = True

    config.networks.autoencoder = models.conv_autoencoder(
        channels=64, channel_multipliers=(1, 2, 4), num_blocks=2, num_groups=8, vector=False
    )
    config.method = models.vqvae(
        quantizer=models.vq(1024, 8),
        observation=common.section(name='observation.gaussian', sigma=0.35),
    )
    models.use_discriminator(config, start=10_000, channels=64, num_levels=2, num_groups=8)
    config.optim.autoencoder = common.adamw(5e-4, num_steps=50_000)
    config.optim.discriminator = common.section(
        name='adam', learning_rate=2e-4, b1=0.5, b2=0.9, warmup_steps=100, clip_norm=1.0
    )
    config.ema.decay = 0.999

    config.train.num_steps = 50_000
    config.train.log_every = 100
    config.train.evaluate_every = 5000
    config.train.checkpoint_every = 5000

    if arg == 'smoke':
        models.shrink_vqvae(config)
        config.method.adversarial_start = 0
        config.networks.discriminator.channels = 8
        config.networks.discriminator.num_levels = 1
        config.networks.discriminator.num_groups = 4
    return common.finish(config, arg)
