"""What came after GPT-2, on the budget of `gpt_shakespeare_char_cpu`: as much of the same text.

    python launch.py --config=configs/gpt_modern_shakespeare_char_cpu.py

As many parameters, too; but rotary positions (Su et al. 2021), RMSNorm (Zhang & Sennrich 2019),
squared ReLU (So et al. 2021), normalized queries and keys (Henry et al. 2020), and Muon for the
matrices (Jordan et al. 2024), with a plateau before the decay. LOG.md has the figures.
"""

from configs import common, models


def get_config(arg: str = ''):
    """The run; 'smoke' is its tiny version."""
    config = common.get_base()

    common.use_text(config, 'embedded', context=64, tokenizer='characters')
    config.data.batch_size = 12

    config.networks.model = models.modern_transformer(width=128, num_layers=4, num_heads=4)
    config.method = models.autoregressive()
    config.optim.model = common.muon(num_steps=2000)
    config.ema.decay = 0.0

    config.train.num_steps = 2000
    config.train.log_every = 50
    config.train.evaluate_every = 500
    config.train.sample_every = 500
    config.train.checkpoint_every = 500

    config.sample.num = 4
    config.sample.batch_size = 4
    config.sample.options = common.decoding(temperature=0.8)

    if arg == 'smoke':
        models.shrink_transformer(config)
        config.data.context = 16
    return common.finish(config, arg)
