"""PixelCNN++ on handwritten digits, 8x8, that ship with scikit-learn: nothing to download.

    python launch.py --config=configs/pixelcnn_digits.py
    python launch.py --config=configs/pixelcnn_digits.py --mode=sample --label=3

Salimans et al. 2017 with labels, so that a digit can be asked for, at a size that two CPU cores
train in about three minutes. The likelihood is exact: docs/pixelcnn.md has the figures.
"""

from configs import common, models


def get_config(arg: str = ''):
    """The run; 'smoke' is its tiny version."""
    config = common.get_base()

    common.use_images(config, 'embedded', 'digits')
    config.data.batch_size = 64

    config.networks.model = common.section(
        name='pixelcnn.PixelCNN',
        channels=32,
        num_blocks=2,
        num_levels=2,
        num_mixtures=5,
        dropout=0.5,
        remat=False,
    )
    config.method = common.section(name='pixelcnn.pixelcnn', class_conditional=True)
    config.optim.model = common.section(
        name='adam',
        learning_rate=2e-3,
        warmup_steps=100,
        schedule='cosine',
        decay_steps=1100,
        clip_norm=1.0,
    )
    config.ema.decay = 0.995
    config.ema.snapshot_every = 200

    config.train.num_steps = 1200
    config.train.log_every = 50
    config.train.evaluate_every = 200
    config.train.sample_every = 400
    config.train.checkpoint_every = 200
    config.train.best_by = 'bits_per_dim'

    common.score_images(config, weights='digits')
    config.evaluate.scores.num = 10_000
    config.sample.num = 100
    config.sample.batch_size = 100
    config.sample.options = common.section(temperature=1.0)

    if arg == 'smoke':
        models.shrink_pixelcnn(config)
    return common.finish(config, arg)
