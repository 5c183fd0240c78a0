"""StyleGAN2 with adaptive augmentation on CIFAR-10, with labels (Karras et al. 2020, 2020a).

    python launch.py --config=configs/stylegan2_ada_cifar.py
    python launch.py --config=configs/stylegan2_ada_cifar.py --mode=evaluate
    python launch.py --config=configs/stylegan2_ada_cifar.py --mode=sample --edit=mix

The authors' settings for this set: 512 channels at every size, two layers between z and w and eight
behind the discriminator's label, neither mixed styles nor path lengths, a discriminator without
residual connections, R1 in every 16th step, images as they are and not mirrored.
What differs: Adam's rate and decays are the same in those turns as in others, and the average has
one decay from the beginning. It is sized for one GPU, for days: 1,560,000 steps of 64 images.
"""

from configs import common, models


def get_config(arg: str = ''):
    """The run; 'smoke' is its tiny version."""
    config = common.get_base()

    common.use_images(config, 'tfds', 'cifar10')
    config.data.batch_size = 64

    shared = {'widths': (512, 512, 512, 512), 'remat': False}
    config.networks.generator = common.section(
        name='stylegan2.Generator', style_channels=512, num_mapping_layers=2, **shared
    )
    config.networks.discriminator = common.section(
        name='stylegan2_discriminator.Discriminator',
        architecture='plain',
        mbstd_group=32,
        num_mapping_layers=8,
        **shared,
    )
    config.method = models.gan(
        'adversarial.non_saturating',
        latent_channels=512,
        class_conditional=True,
        r1=0.01,
        penalty_every=16,
    )
    config.method.augmentation = models.ada(steps=7_800)
    models.use_adam(config, 2.5e-3)
    config.ema.decay = 0.9999

    config.train.num_steps = 1_560_000
    config.train.log_every = 160
    config.train.evaluate_every = 5000
    config.train.sample_every = 2500
    config.train.checkpoint_every = 2500

    common.score_by_inception(config)
    config.sample.num = 100
    config.sample.batch_size = 100
    config.sample.options = common.truncation()

    if arg == 'smoke':
        models.shrink_gan(config, widths=(8, 8), num_mapping_layers=1)
        config.networks.generator.style_channels = 8
        config.networks.discriminator.mbstd_group = 4
        config.method.penalty_every = 2
    return common.finish(config, arg)
