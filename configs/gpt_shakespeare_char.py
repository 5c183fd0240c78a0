"""GPT on Shakespeare's characters, at the size for one GPU.

    python launch.py --config=configs/gpt_shakespeare_char.py
    python launch.py --config=configs/gpt_shakespeare_char.py --mode=sample --prompt="ROMEO:"

nanoGPT's recipe (Karpathy 2022): 6 layers, 6 heads, 384 wide, dropout 0.2, 5,000 steps of 64
windows of 256 characters. nanoGPT states a loss of 1.4697 nats per character on the last tenth of
the text, at the best of its evaluations; so the best is kept here, too. What differs: the loss here
is over that whole tenth, each character once, in windows of 256, where nanoGPT draws some windows;
gelu is in its tanh form; and the vocabulary holds the end of a document besides the 65 characters.
"""

from configs import common, models


def get_config(arg: str = ''):
    """The run; 'smoke' is its tiny version."""
    config = common.get_base()

    common.use_text(config, 'embedded', context=256, tokenizer='characters')
    config.data.batch_size = 64

    config.networks.model = models.transformer(
        width=384, num_layers=6, num_heads=6, bias=False, dropout=0.2
    )
    config.method = models.autoregressive()
    config.optim.model = common.gpt_optimizer(peak=1e-3, num_steps=5000, warmup_steps=100)
    config.ema.decay = 0.0

    config.train.num_steps = 5000
    config.train.log_every = 50
    config.train.evaluate_every = 250
    config.train.sample_every = 1000
    config.train.checkpoint_every = 1000
    config.train.best_by = 'loss'

    config.sample.num = 4
    config.sample.batch_size = 4
    config.sample.options = common.decoding(temperature=0.8)

    if arg == 'smoke':
        models.shrink_transformer(config)
        config.data.context = 16
    return common.finish(config, arg)
