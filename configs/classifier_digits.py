"""The classifier of `configs/ssvae_digits.py`, trained on its 10 labels of each digit alone.

    python launch.py --config=configs/classifier_digits.py

What images without a label are measured against: the same network, the same labeled images, moved
by a pixel too, and nothing else. A few seconds on two CPU cores.
"""

from configs import common, models

NUM_STEPS = 1000


def get_config(arg: str = ''):
    """The run; 'smoke' is its tiny version."""
    config = common.get_base()

    common.use_images(config, 'embedded', 'digits')
    config.data.labels_per_class = 10
    config.data.labeled_only = True

    config.networks.model = models.dense_classifier(widths=(256, 256), dropout=0.0)
    config.method = models.classifier(max_shift=1)
    config.optim.model = common.adamw(peak=3e-3, num_steps=NUM_STEPS)
    config.ema.decay = 0.99

    config.train.num_steps = NUM_STEPS
    config.train.log_every = 50
    config.train.evaluate_every = 50
    config.train.checkpoint_every = 500

    if arg == 'smoke':
        config.networks.model.widths = (16,)
    return common.finish(config, arg)
