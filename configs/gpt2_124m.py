"""GPT-2, the smallest: 124,439,808 parameters, for a GPU and a large text.

    python launch.py --config=configs/gpt2_124m.py --config.data.source=folder \
        --config.data.data_dir=TEXTS --config.data.tokenizer=tokenizer.json \
        --config.data.vocab_size=None

Radford et al. 2019 in the recipe of nanoGPT (Karpathy 2022): 600,000 steps of 480 windows of 1,024
tokens, in bfloat16. TEXTS are files of one's own, and tokenizer.json is GPT-2's, of 50,257 tokens.
Without these flags the text is Shakespeare's, which serves to measure speed and no more. A batch is
taken in 15 parts of 32 windows, for a GPU of 80 GB.
"""

from configs import common, models


def get_config(arg: str = ''):
    """The run; 'smoke' is its tiny version."""
    config = common.get_base()

    common.use_text(config, 'embedded', context=1024, tokenizer='bpe')
    config.data.vocab_size = 50_257
    config.data.batch_size = 480

    config.networks.model = models.transformer()
    config.method = models.autoregressive()
    config.optim.model = common.gpt_optimizer(peak=6e-4, num_steps=600_000, warmup_steps=2000)
    config.optim.model.b2 = 0.95
    config.precision = 'bfloat16'
    config.ema.decay = 0.0

    config.train.num_steps = 600_000
    config.train.accumulate = 15
    config.train.log_every = 50
    config.train.evaluate_every = 2000
    config.train.sample_every = 10_000
    config.train.checkpoint_every = 2000

    config.evaluate.batch_size = 32
    config.sample.num = 4
    config.sample.batch_size = 4
    config.sample.options = common.decoding(top_k=50)

    if arg == 'smoke':
        models.shrink_transformer(config)
        config.data.context = 16
        config.data.vocab_size = 300
        config.train.accumulate = 1
    return common.finish(config, arg)
