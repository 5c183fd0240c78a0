"""DCGAN on MNIST, 28x28 (Radford et al. 2016).

    python launch.py --config=configs/dcgan_mnist.py
    python launch.py --config=configs/dcgan_mnist.py --mode=evaluate \\
        --config.evaluate.scores.num=10000

As `configs/dcgan_digits.py`, with half of the channels, and both players are told which digit.
Scores are taken in the features of a net that `configs/feature_net_mnist.py` trains and
--mode=export writes: FD 1.71 over five seeds, six minutes each on a CPU core
(experiments/gans_mnist).
"""

from configs import common, dcgan_digits, models


def get_config(arg: str = ''):
    """The run; 'smoke' is its tiny version."""
    config = dcgan_digits.get_config()
    config.unlock()
    config.data.source, config.data.name = 'tfds', 'mnist'

    models.play(config, 'dcgan', channels=32, num_levels=2, remat=False)
    config.method.class_conditional = True
    config.train.score_every = None  # the net is not there before it has been trained
    common.score_images(config, weights='runs/feature_net_mnist/weights.safetensors')
    config.evaluate.scores.num_references = 10_000

    if arg == 'smoke':
        models.shrink_gan(config, channels=4)
    return common.finish(config, arg)
