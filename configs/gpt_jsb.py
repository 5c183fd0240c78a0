"""A transformer on Bach's chorales in four voices.

    python launch.py --config=configs/gpt_jsb.py --config.data.data_dir=jsb_chorales_16th.npz
    python launch.py --config=configs/gpt_jsb.py --config.data.data_dir=jsb_chorales_16th.npz \
        --mode=sample --given=held_out --keep=soprano

A frame, a sixteenth, is four tokens: soprano, alto, tenor, bass. The data is an .npz file in the
layout of `gen_jax/data/voices.py`, split as by Boulanger-Lewandowski et al. 2012, or a folder of
MIDI files of four parts. Minutes on two CPU cores; LOG.md has the figures, and
experiments/chorales/README.md what simpler models reach.
"""

from configs import common, models


def get_config(arg: str = ''):
    """The run; 'smoke' is its tiny version."""
    config = common.get_base()

    common.use_music(config, context=256, transpose=3)
    config.data.batch_size = 16

    config.networks.model = models.modern_transformer(
        width=128, num_layers=4, num_heads=4, dropout=0.2, period=4
    )
    config.method = models.autoregressive()
    config.optim.model = common.muon(num_steps=1500)
    config.ema.decay = 0.99

    config.train.num_steps = 1500
    config.train.log_every = 50
    config.train.evaluate_every = 500
    config.train.sample_every = 500
    config.train.checkpoint_every = 500

    config.sample.num = 4
    config.sample.batch_size = 4
    config.sample.options = common.decoding()

    if arg == 'smoke':
        models.shrink_transformer(config)
        config.data.context = 16
    return common.finish(config, arg)
