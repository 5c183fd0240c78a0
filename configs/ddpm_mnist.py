"""DDPM on MNIST, 28x28: a small U-Net for an afternoon on a CPU or minutes on a GPU.

    python launch.py --config=configs/ddpm_mnist.py

The method is that of Ho et al. 2020; the network is ours, 2.7M parameters. Images are left as they
are: a mirrored digit is another digit, so there are no flips.
"""

from configs import common, models


def get_config(arg: str = ''):
    """The run; 'smoke' is its tiny version."""
    config = common.get_base()

    common.use_images(config, 'tfds', 'mnist')

    config.networks.model = models.unet(
        channels=32,
        channel_multipliers=(1, 2, 4),
        num_blocks=1,
        attention_resolutions=(7,),
        dropout=0.0,
        num_groups=8,
    )
    config.method = models.ddpm()
    config.optim.model = common.section(
        name='adam', learning_rate=5e-4, warmup_steps=500, clip_norm=1.0
    )
    config.ema.decay = 0.999
    config.ema.snapshot_every = 2000

    config.train.num_steps = 20_000
    config.train.log_every = 50
    config.train.evaluate_every = 2000
    config.train.sample_every = 5000
    config.train.checkpoint_every = 1000

    config.evaluate.options = common.whole_bound()
    common.score_images(config, weights='runs/feature_net_mnist/weights.safetensors')
    config.sample.options = common.sampling('ancestral', 1000)

    if arg == 'smoke':
        models.shrink_unet(config)
    return common.finish(config, arg)
