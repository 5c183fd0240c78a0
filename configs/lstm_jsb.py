"""A recurrent network on Bach's chorales in four voices, for `gpt_jsb` to be compared with.

    python launch.py --config=configs/lstm_jsb.py --config.data.data_dir=jsb_chorales_16th.npz

The same data and half as many steps, each of which takes longer; the likelihood is exact, too.
"""

from configs import common, models


def get_config(arg: str = ''):
    """The run; 'smoke' is its tiny version."""
    config = common.get_base()

    common.use_music(config, context=256, transpose=3)
    config.data.batch_size = 16

    config.networks.model = common.section(name='lstm.LSTM', width=256, num_layers=2, dropout=0.2)
    config.method = models.autoregressive()
    config.optim.model = common.gpt_optimizer(peak=2e-3, num_steps=1500, warmup_steps=100)
    config.ema.decay = 0.99

    config.train.num_steps = 1500
    config.train.log_every = 50
    config.train.evaluate_every = 500
    config.train.sample_every = 1000
    config.train.checkpoint_every = 500

    config.sample.num = 4
    config.sample.batch_size = 4
    config.sample.options = common.decoding()

    if arg == 'smoke':
        config.networks.model.width = 16
        config.data.context = 16
    return common.finish(config, arg)
