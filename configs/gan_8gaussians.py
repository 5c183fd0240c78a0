"""A GAN of points of the plane: eight Gaussians on a circle, the classic test of mode collapse.

    python launch.py --config=configs/gan_8gaussians.py
    python launch.py --config=configs/gan_8gaussians.py --mode=evaluate

The game and the penalties of R3GAN (Huang et al. 2024), with plain layers of ours. In evaluation
`modes` counts the centers that samples come near, `confident` is the share of samples within three
deviations of one. A minute and a half on a CPU core: all modes, 0.97 confident (docs/gan.md).
"""

from configs import common, models


def get_config(arg: str = '', num_steps: int = 15_000):
    """The run; 'smoke' is its tiny version."""
    config = common.get_base()

    config.data.modality = 'toy'
    config.data.source = 'synthetic'
    config.data.name = '8gaussians'
    config.data.batch_size = 256
    config.data.num_train = 100_000
    config.data.num_evaluation = 10_000

    models.play(config, 'gan_mlp', widths=(128, 128, 128), activation='relu', remat=False)
    # A steep penalty finds all modes, a slight one makes them narrow.
    config.method = models.gan(
        'adversarial.relativistic',
        latent_channels=8,
        r1=0.002,
        r2=0.002,
        penalty_final=0.02,
        penalty_steps=2 * num_steps // 3,
    )
    models.use_adam(config, 1e-3, num_steps=num_steps)
    config.ema.decay = 0.999

    config.train.num_steps = num_steps
    config.train.log_every = 100
    config.train.evaluate_every = num_steps // 5
    config.train.sample_every = num_steps // 30
    config.train.checkpoint_every = num_steps // 5

    config.evaluate.batch_size = 1000
    common.score_mixture(config)
    config.evaluate.scores.num_references = 10_000
    config.evaluate.scores.num = 10_000
    config.sample.num = 2000
    config.sample.batch_size = 2000
    config.sample.options = common.truncation()

    if arg == 'smoke':
        config.data.num_train, config.data.num_evaluation = 1000, 100
        models.shrink_gan(config, widths=(16,))
    return common.finish(config, arg)
