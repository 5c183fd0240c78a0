"""A transformer over the codes of digits: two commands (Esser et al. 2021).

    python launch.py --config=configs/fsq_digits.py
    python launch.py --config=configs/vq_gpt_digits.py
    python launch.py --config=configs/vq_gpt_digits.py --mode=sample --label=3

What `runs/fsq_digits` makes of an image, 4 codes of 240, is drawn one after the other, the class
first, and decoded. The bound on the likelihood of images is that of codes and decoder together.
Another first stage is `--config.restore.autoencoder=WORKDIR`. The network is ours, a minute on two
CPU cores.
"""

from configs import common, fsq_digits, models


def get_config(arg: str = ''):
    """The run; 'smoke' is its tiny version."""
    config = common.get_base()
    first = fsq_digits.get_config(arg)

    common.use_images(config, 'embedded', 'digits')
    config.data.batch_size = 64

    config.networks.model = models.modern_transformer(
        width=128, num_layers=4, num_heads=4, dropout=0.3
    )
    models.use_autoencoder(config, first, workdir='runs/fsq_digits')
    config.method.inner = models.autoregressive(class_conditional=True)
    config.optim.model = common.muon(num_steps=600)
    config.ema.decay = 0.99

    config.train.num_steps = 600
    config.train.log_every = 50
    config.train.evaluate_every = 100
    config.train.sample_every = 300
    config.train.checkpoint_every = 100
    config.train.best_by = 'loss'

    common.score_images(config, weights='digits')
    config.evaluate.scores.num = 10_000
    config.sample.num = 100
    config.sample.batch_size = 100
    config.sample.options = common.decoding()

    if arg == 'smoke':
        models.shrink_transformer(config)
    return common.finish(config, arg)
