"""DDPM on handwritten digits, 8x8, that ship with scikit-learn: nothing to download.

    python launch.py --config=configs/ddpm_digits.py
    python launch.py --config=configs/ddpm_digits.py --mode=sample --label=3

Ho et al. 2020 with the cosine schedule of Nichol & Dhariwal 2021, the v-prediction of Salimans & Ho
2022 and, so that a digit can be asked for, the labels of Ho & Salimans 2022. The network is ours.
Minutes on two CPU cores; LOG.md has the figures.
"""

from configs import common, models


def get_config(arg: str = ''):
    """The run; 'smoke' is its tiny version."""
    config = common.get_base()

    common.use_images(config, 'embedded', 'digits')
    config.data.batch_size = 64

    config.networks.model = models.unet(
        channels=32,
        channel_multipliers=(1, 2),
        num_blocks=1,
        attention_resolutions=(4,),
        dropout=0.1,
        num_groups=8,
    )
    config.method = common.section(
        name='diffusion.diffusion',
        process=common.section(name='gaussian.cosine', num_steps=1000),
        prediction='v',
        class_conditional=True,
        label_dropout=0.1,
    )
    config.optim.model = common.section(
        name='adam',
        learning_rate=2e-3,
        warmup_steps=200,
        schedule='cosine',
        decay_steps=3800,
        clip_norm=1.0,
    )
    config.ema.decay = 0.998
    config.ema.snapshot_every = 500

    config.train.num_steps = 4000
    config.train.log_every = 50
    config.train.evaluate_every = 1000
    config.train.sample_every = 1000
    config.train.score_every = 1000
    config.train.score_num = 500
    config.train.score_seconds = 60.0
    config.train.checkpoint_every = 500
    config.train.best_by = 'FD'

    config.evaluate.options = common.whole_bound()
    common.score_images(config, weights='digits')
    config.evaluate.scores.num = 10_000
    config.sample.num = 100
    config.sample.batch_size = 100
    config.sample.options = common.sampling('ddim', 100)

    if arg == 'smoke':
        models.shrink_unet(config)
    return common.finish(config, arg)
