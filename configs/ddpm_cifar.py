"""DDPM on CIFAR-10 (Ho, Jain & Abbeel 2020, Denoising Diffusion Probabilistic Models).

    python launch.py --config=configs/ddpm_cifar.py

The paper's run: 35.7M parameters, 800k steps of 128 images, Adam at 2e-4 after 5,000 steps of
warm-up, gradients clipped at norm 1, dropout 0.1, random flips, EMA 0.9999. The paper reports FID
3.17 and a bound of 3.75 bits/dim, from its own code on a TPU v3-8.

Differences: none meant. Evaluation sums the bound over all 1,000 steps, as the paper does.
"""

from configs import common, models


def get_config(arg: str = ''):
    """The run; 'smoke' is its tiny version."""
    config = common.get_base()

    common.use_images(config, 'tfds', 'cifar10')
    config.data.flip = True

    config.networks.model = models.unet(
        channels=128,
        channel_multipliers=(1, 2, 2, 2),
        num_blocks=2,
        attention_resolutions=(16,),
        dropout=0.1,
    )
    config.method = models.ddpm()
    config.optim.model = common.section(
        name='adam', learning_rate=2e-4, warmup_steps=5000, clip_norm=1.0
    )
    config.ema.decay = 0.9999
    config.ema.snapshot_every = 50_000

    config.train.num_steps = 800_000
    config.train.log_every = 100
    config.train.evaluate_every = 50_000
    config.train.sample_every = 50_000
    config.train.checkpoint_every = 10_000

    config.evaluate.batch_size = 256
    config.evaluate.options = common.whole_bound()
    common.score_by_inception(config)
    config.sample.options = common.sampling('ancestral', 1000)

    if arg == 'smoke':
        models.shrink_unet(config)
    return common.finish(config, arg)
