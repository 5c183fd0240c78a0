"""draft"""

from configs import common


def get_config(arg: str = ''):
    """The run; 'smoke' is its tiny version."""
    config = common.get_base()

    common.use_images(config, 'embedded', 'digits')
    config.data.labels_per_class = 10

    config.networks.autoencoder = common.mlp_autoencoder(widths=(256, 256))
    config.networks.classifier = common.resnet(
        channels=32, channel_multipliers=(1, 2), num_blocks=1
    )
    config.method = common.semi_supervised_vae(
        'observation.logistic', latent_channels=8, classification_weight=1.5, max_shift=1
    )
    config.optim.autoencoder = common.adamw(1e-3, num_steps=3000)
    config.optim.classifier = common.adamw(1e-3, num_steps=3000)
    config.ema.decay = 0.99

    config.train.num_steps = 3000
    config.train.log_every = 100
    config.train.evaluate_every = 500
    config.train.sample_every = 3000
    config.train.checkpoint_every = 1000

    config.sample.options = common.section(output='mean')

    if arg == 'smoke':
        common.shrink_resnet(config, 'classifier')
        common.shrink_mlp_autoencoder(config)
        config.evaluate.options = common.section(num_samples=2)
    return common.finish(config, arg)
