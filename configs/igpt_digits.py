"""An image transformer on handwritten digits, 8x8, pixel after pixel.

    python launch.py --config=configs/igpt_digits.py
    python launch.py --config=configs/igpt_digits.py --mode=sample --label=3
    python launch.py --config=configs/igpt_digits.py --mode=sample --given=held_out --keep=top

Chen et al. 2020 ('iGPT'): an image is its 64 pixels in raster order, each one of 17 levels, and the
likelihood is exact. The class stands before the first pixel. The network is ours, minutes on two
CPU cores; LOG.md has the figures.
"""

from configs import common, models


def get_config(arg: str = ''):
    """The run; 'smoke' is its tiny version."""
    config = common.get_base()

    common.use_images(config, 'embedded', 'digits')
    config.data.batch_size = 64

    config.networks.model = models.modern_transformer(
        width=128, num_layers=4, num_heads=4, dropout=0.3
    )
    config.method = models.autoregressive(class_conditional=True)
    config.optim.model = common.muon(num_steps=600)
    config.ema.decay = 0.99

    config.train.num_steps = 600
    config.train.log_every = 50
    config.train.evaluate_every = 200
    config.train.sample_every = 300
    config.train.checkpoint_every = 200
    config.train.best_by = 'loss'

    common.score_images(config, weights='digits')
    config.evaluate.scores.num = 10_000
    config.sample.num = 100
    config.sample.batch_size = 100
    config.sample.options = common.decoding()

    if arg == 'smoke':
        models.shrink_transformer(config)
    return common.finish(config, arg)
