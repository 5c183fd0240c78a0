"""WGAN-GP on MNIST, 28x28 (Gulrajani et al. 2017).

    python launch.py --config=configs/wgan_gp_mnist.py
    python launch.py --config=configs/wgan_gp_mnist.py --mode=evaluate \\
        --config.evaluate.scores.num=10000

The game and the penalty of `configs/wgan_gp_digits.py` with the networks of
`configs/r3gan_mnist.py`: small ones without norms, which are told the digit, small batches, and one
turn of the critic. Scores are taken in the features of a net that `configs/feature_net_mnist.py`
trains and --mode=export writes: FD 0.29 over five seeds, about 12 minutes each on a CPU core
(experiments/gans_mnist).
"""

from configs import common, models, r3gan_mnist


def get_config(arg: str = ''):
    """The run; 'smoke' is its tiny version."""
    config = r3gan_mnist.get_config()
    config.unlock()
    config.method = models.gan(
        'adversarial.wasserstein',
        latent_channels=64,
        class_conditional=True,
        gradient_penalty=10.0,
    )
    models.use_adam(config, 2e-3, num_steps=config.train.num_steps, b2=0.9)

    if arg == 'smoke':
        models.shrink_gan(config, widths=(8, 8, 8), num_blocks=(1, 1, 1), group_width=8)
    return common.finish(config, arg)
