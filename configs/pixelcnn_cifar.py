"""PixelCNN++ on CIFAR-10 (Salimans, Karpathy, Chen & Kingma 2017).

    python launch.py --config=configs/pixelcnn_cifar.py

The paper's network and batch: 160 channels, 5 blocks on each of 3 levels, 10 components, dropout
0.5, 128 images; Adam with the moments of its published code, EMA 0.9995. The paper reports 2.92
bits/dim, from its own code on eight GPUs.

Differences: weights are plain, not normalized and first set by data, so the rate begins lower, at
4e-4, after a warm-up, and gradients are clipped; it falls along a cosine over 800k steps, where
the published code multiplies 1e-3 by 0.999995 after every step until it is stopped.
"""

from configs import common, models


def get_config(arg: str = ''):
    """The run; 'smoke' is its tiny version."""
    config = common.get_base()

    common.use_images(config, 'tfds', 'cifar10')

    config.networks.model = common.section(
        name='pixelcnn.PixelCNN',
        channels=160,
        num_blocks=5,
        num_levels=3,
        num_mixtures=10,
        dropout=0.5,
        remat=False,
    )
    config.method = common.section(name='pixelcnn.pixelcnn', class_conditional=False)
    config.optim.model = common.section(
        name='adam',
        learning_rate=4e-4,
        b1=0.95,
        b2=0.9995,
        warmup_steps=2000,
        schedule='cosine',
        decay_steps=798_000,
        clip_norm=1.0,
    )
    config.ema.decay = 0.9995
    config.ema.snapshot_every = 50_000

    config.train.num_steps = 800_000
    config.train.log_every = 100
    config.train.evaluate_every = 20_000
    config.train.sample_every = 20_000
    config.train.checkpoint_every = 10_000
    config.train.best_by = 'bits_per_dim'

    common.score_by_inception(config)
    config.sample.options = common.section(temperature=1.0)

    if arg == 'smoke':
        models.shrink_pixelcnn(config)
    return common.finish(config, arg)
