"""A very deep VAE on CIFAR-10 (Child 2021).

    python launch.py --config=configs/vdvae_cifar.py

The network of the published code, of 39M parameters: 384 channels, 33 blocks on the way up, 43 on
the way down with 16 numbers of z at each pixel; a mixture of 10 logistics; batches of 32, AdamW at
2e-4 with both moments at 0.9, EMA 0.9999, gradients clipped at a norm of 200 and left out above
400. The paper reports 2.87 bits/dim, a variational bound, from its own code.

Differences: the posteriors start at the priors, not at random; the last block of a resolution on
the way up is seen before it is pooled, not after; GELU in its form with tanh; kernels start as
those of Ho et al. 2020; no gain and bias in front of the last convolution, which has them.
"""

from configs import common, models


def get_config(arg: str = ''):
    """The run; 'smoke' is its tiny version."""
    config = common.get_base()

    common.use_images(config, 'tfds', 'cifar10')
    config.data.batch_size = 32

    config.networks.autoencoder = models.vdvae()
    config.method = models.hierarchical_vae(
        common.section(name='observation.logistic_mixture', num_mixtures=10)
    )
    config.optim.autoencoder = common.section(
        name='adamw',
        learning_rate=2e-4,
        b1=0.9,
        b2=0.9,
        weight_decay=0.01,
        warmup_steps=100,
        clip_norm=200.0,
        skip_above=400.0,
    )
    config.ema.snapshot_every = 100_000

    config.train.num_steps = 1_100_000
    config.train.log_every = 100
    config.train.evaluate_every = 20_000
    config.train.sample_every = 20_000
    config.train.checkpoint_every = 10_000
    config.train.best_by = 'bits_per_dim'

    config.evaluate.options = common.section(num_samples=1, chunk=1)
    common.score_by_inception(config)
    config.sample.options = common.section(temperature=1.0, output='sample')

    if arg == 'smoke':
        models.shrink_vdvae(config, size=32)
        config.method.observation.num_mixtures = 2
    return common.finish(config, arg)
