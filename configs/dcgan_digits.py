"""DCGAN on handwritten digits, 8x8, that ship with scikit-learn (Radford et al. 2016).

    python launch.py --config=configs/dcgan_digits.py
    python launch.py --config=configs/dcgan_digits.py --mode=evaluate
    python launch.py --config=configs/dcgan_digits.py --mode=animate

The paper's layers, initialization and optimizer on smaller images. What differs: two levels instead
of four, and samples are of averaged weights. Two minutes on a CPU core, FD 0.59 over five seeds
(experiments/gans_digits).
"""

from configs import common, models


def get_config(arg: str = ''):
    """The run; 'smoke' is its tiny version."""
    config = common.get_base()

    common.use_images(config, 'embedded', 'digits')
    config.data.batch_size = 64

    models.play(config, 'dcgan', channels=64, num_levels=2, remat=False)
    config.method = models.gan('adversarial.non_saturating', latent_channels=64)
    models.use_adam(config, 2e-4, b1=0.5, b2=0.999)
    config.ema.decay = 0.995

    config.train.num_steps = 6000
    config.train.log_every = 100
    config.train.evaluate_every = 1000
    config.train.score_every = 1000
    config.train.sample_every = 500
    config.train.checkpoint_every = 1000

    common.score_images(config, weights='digits')
    config.evaluate.scores.num = 10_000
    config.sample.num = 100
    config.sample.batch_size = 500
    config.sample.options = common.truncation()

    if arg == 'smoke':
        models.shrink_gan(config, channels=4)
    return common.finish(config, arg)
