"""R3GAN on CIFAR-10, with labels (Huang et al. 2024).

    python launch.py --config=configs/r3gan_cifar.py
    python launch.py --config=configs/r3gan_cifar.py --mode=evaluate

The networks, the optimizer's rate, the penalties and the strength of the augmentation are those of
the authors' code, along their cosines. What differs: Adam's second decay and the average are those
of their end, where theirs begin at less, and of the augmentation's transforms theirs has cutout
too, and changes colors half as often. It is sized for many GPUs: 39,000 steps of 512 images are
where the cosines end.
"""

from configs import common, models

_STEPS = 39_000  # 2e7 images


def get_config(arg: str = ''):
    """The run; 'smoke' is its tiny version."""
    config = common.get_base()

    common.use_images(config, 'tfds', 'cifar10')
    config.data.batch_size = 512
    config.data.flip = True

    models.play(
        config,
        'r3gan',
        widths=(768, 768, 768, 768),
        num_blocks=(2, 2, 2, 2),
        expansion=2,
        group_width=16,
        remat=False,
    )
    config.method = models.gan(
        'adversarial.relativistic',
        latent_channels=64,
        class_conditional=True,
        r1=0.05,
        r2=0.05,
        penalty_final=0.1,
        penalty_steps=_STEPS,
    )
    config.method.augmentation = models.ada(steps=_STEPS, target=None, p_max=0.55)
    models.use_adam(config, 2e-4, num_steps=_STEPS, final_rate=0.25)
    config.ema.decay = 0.99993  # forgets half of 5e6 images

    config.train.num_steps = 2 * _STEPS
    config.train.log_every = 100
    config.train.evaluate_every = 5000
    config.train.sample_every = 1000
    config.train.checkpoint_every = 1000

    common.score_by_inception(config)
    config.sample.num = 100
    config.sample.batch_size = 100
    config.sample.options = common.truncation()

    if arg == 'smoke':
        models.shrink_gan(config, widths=(8, 8), num_blocks=(1, 1), group_width=8)
    return common.finish(config, arg)
