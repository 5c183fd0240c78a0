"""A hierarchical VAE of handwritten digits, 8x8, that ship with scikit-learn: nothing to download.

    python launch.py --config=configs/vdvae_digits.py
    python launch.py --config=configs/vdvae_digits.py --mode=sample --label=3

Child 2021 with labels, so that a digit can be asked for, at a size that two CPU cores train in a
few minutes. 1,500 images are soon known by heart: hence dropout, and more weight decay than the
paper's. docs/hierarchical_vae.md has the figures.
"""

from configs import common, models


def get_config(arg: str = ''):
    """The run; 'smoke' is its tiny version."""
    config = common.get_base()

    common.use_images(config, 'embedded', 'digits')
    config.data.batch_size = 32

    config.networks.autoencoder = models.vdvae(
        channels=64, bottleneck=2, levels=((8, 2, 4), (4, 2, 3), (1, 1, 1)), dropout=0.2
    )
    config.method = models.hierarchical_vae(
        common.section(name='observation.categorical'),
        latent_channels=8,
        class_conditional=True,
    )
    config.optim.autoencoder = common.section(
        name='adamw',
        learning_rate=2e-3,
        b2=0.99,
        weight_decay=0.1,
        warmup_steps=100,
        schedule='cosine',
        decay_steps=1900,
        clip_norm=5.0,
        skip_above=20.0,
    )
    config.ema.decay = 0.995
    config.ema.snapshot_every = 200

    config.train.num_steps = 2000
    config.train.log_every = 50
    config.train.evaluate_every = 200
    config.train.sample_every = 500
    config.train.checkpoint_every = 200
    config.train.best_by = 'bits_per_dim'

    common.score_images(config, weights='digits')
    config.evaluate.scores.num = 10_000
    config.evaluate.options = common.section(num_samples=100, chunk=10)
    config.sample.num = 100
    config.sample.batch_size = 100
    config.sample.options = common.section(temperature=1.0, output='sample')

    if arg == 'smoke':
        models.shrink_vdvae(config, size=8)
    return common.finish(config, arg)
