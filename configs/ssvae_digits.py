"""A classifier of digits that learns from 10 labels of each and 1,400 images without one.

    python launch.py --config=configs/ssvae_digits.py
    python launch.py --config=configs/ssvae_digits.py --mode=sample

The semi-supervised autoencoder M2 of Kingma et al. 2014 (arXiv:1406.5298), a minute on two CPU
cores. `configs/classifier_digits.py` is the same classifier with the same labels and no other
image; experiments/ssvae_digits has both, over five seeds. Which images have a label does not depend
on `seed`, but on `data.labels_seed`.

What differs from the paper: 8x8 digits, layers of 256 and 128 numbers; the classifier sees images
moved by a pixel; and p(x | y, z) is normal with the deviation 0.7, wide beside pixels in [-1, 1]. A
narrow one, or a law of the 17 levels, gives better likelihoods and worse classes: z then explains
what y should. The bound that evaluation gives is therefore one on a density, and no measure of how
well the levels are modeled.
"""

from configs import common, models

NUM_STEPS = 1500


def get_config(arg: str = ''):
    """The run; 'smoke' is its tiny version."""
    config = common.get_base()

    common.use_images(config, 'embedded', 'digits')
    config.data.labels_per_class = 10
    config.data.batch_size = 250

    config.networks.autoencoder = models.mlp_autoencoder(widths=(128, 128))
    config.networks.classifier = models.dense_classifier(widths=(256, 256), dropout=0.0)
    config.method = models.semi_supervised_vae(
        'observation.gaussian', latent_channels=8, classification_weight=15.0, max_shift=1
    )
    config.method.observation.sigma = 0.7
    config.optim.autoencoder = common.adamw(peak=6e-3, num_steps=NUM_STEPS)
    config.optim.classifier = common.adamw(peak=6e-3, num_steps=NUM_STEPS)
    config.ema.decay = 0.99

    config.train.num_steps = NUM_STEPS
    config.train.log_every = 50
    config.train.evaluate_every = 250
    config.train.sample_every = NUM_STEPS
    config.train.checkpoint_every = 500

    config.evaluate.options = common.section(num_samples=1)
    config.sample.options = common.section(output='mean')

    if arg == 'smoke':
        models.shrink_mlp_autoencoder(config)
        config.networks.classifier.widths = (16,)
        config.evaluate.options = common.section(num_samples=2)
    return common.finish(config, arg)
