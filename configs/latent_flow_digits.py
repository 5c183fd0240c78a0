"""Flow matching on the latents of a variational autoencoder of digits: two commands.

    python launch.py --config=configs/vae_digits.py
    python launch.py --config=configs/latent_flow_digits.py
    python launch.py --config=configs/latent_flow_digits.py --mode=sample --label=3

Straight paths (Lipman et al. 2023; Liu, Gong & Liu 2023) between noise and what the encoder of
`runs/vae_digits` makes of images (Rombach et al. 2022), with labels. Another first stage is
`--config.restore.autoencoder=WORKDIR`. The network is ours.
"""

from configs import common, models, vae_digits


def get_config(arg: str = ''):
    """The run; 'smoke' is its tiny version."""
    config = common.get_base()
    first = vae_digits.get_config(arg)

    common.use_images(config, 'embedded', 'digits')
    config.data.batch_size = 128

    config.networks.model = common.section(
        name='mlp.MLP', width=256, num_blocks=4, remat=False, scan=False
    )
    models.use_autoencoder(config, first, workdir='runs/vae_digits')
    config.method.inner = models.flow_matching(class_conditional=True)
    config.optim.model = common.section(
        name='adam',
        learning_rate=1e-3,
        warmup_steps=100,
        schedule='cosine',
        decay_steps=3900,
        clip_norm=1.0,
    )
    config.ema.decay = 0.998

    config.train.num_steps = 4000
    config.train.log_every = 100
    config.train.evaluate_every = 1000
    config.train.sample_every = 2000
    config.train.checkpoint_every = 1000

    config.evaluate.options = common.whole_bound()
    common.score_images(config, weights='digits')
    config.evaluate.scores.num = 10_000
    config.sample.num = 100
    config.sample.batch_size = 100
    config.sample.options = common.sampling('ddim', 50)

    if arg == 'smoke':
        config.networks.model.width = 16
        config.networks.model.num_blocks = 1
        config.evaluate.options.bound_terms = 8
        config.sample.options = common.sampling('ddim', 5)
    return common.finish(config, arg)
