"""Flow matching on what a VQ-GAN of CIFAR-10 makes its codes of: two commands.

    python launch.py --config=configs/vqgan_cifar.py
    python launch.py --config=configs/latent_flow_cifar.py
    python launch.py --config=configs/latent_flow_cifar.py --mode=evaluate

Latent diffusion with a quantized first stage (Rombach et al. 2022, 'VQ-reg'): a U-Net models the
8x8 vectors of 8 numbers before they are rounded, and the decoder rounds what it is given. Here
straight paths (Lipman et al. 2023), with labels. No bound on the likelihood of images follows; see
`methods/latent.py`. Another first stage is `--config.restore.autoencoder=WORKDIR`. The network is
ours, sized for one GPU.
"""

from configs import common, models, vqgan_cifar


def get_config(arg: str = ''):
    """The run; 'smoke' is its tiny version."""
    config = common.get_base()
    first = vqgan_cifar.get_config(arg)

    common.use_images(config, 'tfds', 'cifar10')
    config.data.flip = True

    config.networks.model = models.unet(
        channels=128,
        channel_multipliers=(1, 2),
        num_blocks=2,
        attention_resolutions=(8, 4),
        dropout=0.1,
    )
    models.use_autoencoder(config, first, workdir='runs/vqgan_cifar', vectors=True)
    config.method.inner = models.flow_matching(class_conditional=True)
    config.optim.model = common.section(
        name='adam', learning_rate=2e-4, warmup_steps=1000, clip_norm=1.0
    )
    config.ema.decay = 0.9999

    config.train.num_steps = 200_000
    config.train.log_every = 100
    config.train.evaluate_every = 20_000
    config.train.sample_every = 20_000
    config.train.checkpoint_every = 10_000

    config.evaluate.batch_size = 256
    config.evaluate.options = common.whole_bound()
    common.score_by_inception(config)
    config.sample.options = common.sampling('ddim', 50)

    if arg == 'smoke':
        config.networks.model.channels = 8
        config.networks.model.channel_multipliers = (1,)
        config.networks.model.num_blocks = 1
        config.networks.model.num_groups = 4
        config.evaluate.options.bound_terms = 8
        config.sample.options = common.sampling('ddim', 5)
    return common.finish(config, arg)
