"""Diffusion of points of the plane: eight Gaussians on a circle, whose density is known.

    python launch.py --config=configs/ddpm_8gaussians.py
    python launch.py --config=configs/ddpm_8gaussians.py --mode=evaluate

Ho et al. 2020 with the v-prediction of Salimans & Ho 2022 and a small network of ours.
Any law of `gen_jax/data/toy.py` can be had by `--config.data.name`. Evaluation reports the bound on
-log p beside the exact value, on the same points: `excess_nats_per_dim` is what the model and the
bound lose together, and has no other cause: 0.032 nats a dimension after minutes on two CPU cores
(LOG.md).
"""

from configs import common, models


def get_config(arg: str = ''):
    """The run; 'smoke' is its tiny version."""
    config = common.get_base()

    config.data.modality = 'toy'
    config.data.source = 'synthetic'
    config.data.name = '8gaussians'
    config.data.batch_size = 512
    config.data.num_train = 100_000
    config.data.num_evaluation = 10_000

    config.networks.model = common.section(
        name='mlp.MLP', width=256, num_blocks=4, remat=False, scan=False
    )
    config.method = common.section(
        name='diffusion.diffusion',
        process=common.section(name='gaussian.cosine', num_steps=1000),
        prediction='v',
        class_conditional=False,
        label_dropout=0.0,
    )
    config.optim.model = common.section(
        name='adam',
        learning_rate=1e-3,
        warmup_steps=200,
        schedule='cosine',
        decay_steps=9800,
        clip_norm=1.0,
    )
    config.ema.decay = 0.999
    config.ema.snapshot_every = 500

    config.train.num_steps = 10_000
    config.train.log_every = 200
    config.train.evaluate_every = 2500
    config.train.sample_every = 2500
    config.train.checkpoint_every = 2500

    config.evaluate.batch_size = 1000
    config.evaluate.options = common.whole_bound()
    common.score_points(config)
    config.evaluate.scores.num_references = 10_000
    config.evaluate.scores.num = 10_000
    config.sample.num = 2000
    config.sample.batch_size = 2000
    config.sample.options = common.sampling('ancestral', 1000)

    if arg == 'smoke':
        config.data.num_train, config.data.num_evaluation = 1000, 100
        config.networks.model.width = 16
        config.networks.model.num_blocks = 1
        models.shrink_chain(config)
    return common.finish(config, arg)
