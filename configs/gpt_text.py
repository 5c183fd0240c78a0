"""GPT on a text of one's own, over pieces of words that are learned from it.

    python launch.py --config=configs/gpt_text.py --workdir=runs/mine \
        --config.data.source=folder --config.data.data_dir=TEXTS
    python launch.py --config=configs/gpt_text.py --workdir=runs/mine \
        --config.data.source=folder --config.data.data_dir=TEXTS --mode=sample --prompt="Once"

TEXTS is a .txt file, a .jsonl file with an object {"text": ...} in each line, or a folder of such
files. Without these flags the text is Shakespeare's. The network is Llama's form (Touvron et al.
2023) at a size for a million characters; documents do not see each other. More text wants more of
everything: `networks.model.width` and `num_layers`, `data.context` and `vocab_size`, and
`train.num_steps`.
"""

from configs import common, models


def get_config(arg: str = ''):
    """The run; 'smoke' is its tiny version."""
    config = common.get_base()

    common.use_text(config, 'embedded', context=128, tokenizer='bpe')
    config.data.vocab_size = 1024
    config.data.batch_size = 16

    config.networks.model = models.transformer(
        width=192,
        num_layers=6,
        num_heads=6,
        num_kv_heads=2,
        hidden=512,
        positions='rotary',
        norm='rmsnorm',
        activation='swiglu',
        bias=False,
        dropout=0.1,
    )
    config.method = models.autoregressive()
    config.method.separate_documents = True
    config.optim.model = common.gpt_optimizer(peak=2e-3, num_steps=3000, warmup_steps=100)
    config.ema.decay = 0.99

    config.train.num_steps = 3000
    config.train.log_every = 50
    config.train.evaluate_every = 500
    config.train.sample_every = 500
    config.train.checkpoint_every = 500
    config.train.best_by = 'loss'

    config.sample.num = 4
    config.sample.batch_size = 4
    config.sample.options = common.decoding(temperature=0.8, top_p=0.95)

    if arg == 'smoke':
        models.shrink_transformer(config)
        config.data.context = 16
        config.data.vocab_size = 300
    return common.finish(config, arg)
