"""A variational autoencoder of binarized MNIST (Kingma & Welling 2014), whose prior is a flow.

    python launch.py --config=configs/vae_bmnist.py --config.data.data_dir=DIR
    python launch.py --config=configs/vae_bmnist.py --config.data.data_dir=DIR --mode=evaluate

Pixels are drawn once, black or white, in proportion to their gray ('static', see data/binary.py).
The prior is learned (Chen et al. 2017); that of the paper, N(0, I), is
`--config.method.prior.name=priors.Normal`.
What the latents cost counts in full after 10,000 steps only, so that more of them stay in use
(Sønderby et al. 2016). 18 minutes on one CPU core; 83.54 ± 0.22 nats, an upper bound of 5,000 draws
(docs/vae.md).
"""

from configs import common, models


def get_config(arg: str = ''):
    """The run; 'smoke' is its tiny version."""
    config = common.get_base()

    common.use_images(config, 'tfds', 'mnist')
    config.data.binarize = 'static'
    config.data.batch_size = 64

    config.networks.autoencoder = models.mlp_autoencoder(widths=(400, 400))
    config.method = models.vae('observation.bernoulli', latent_channels=40, warmup_steps=10_000)
    config.method.prior.name = 'priors.FlowPrior'
    config.optim.autoencoder = common.adamw(1e-3, num_steps=80_000)
    config.ema.decay = 0.999

    config.train.num_steps = 80_000
    config.train.log_every = 400
    config.train.evaluate_every = 10_000
    config.train.sample_every = 20_000
    config.train.checkpoint_every = 5000

    config.evaluate.options = common.section(num_samples=5000, chunk=50)
    config.sample.options = common.section(output='mean')

    if arg == 'smoke':
        models.shrink_mlp_autoencoder(config)
    return common.finish(config, arg)
