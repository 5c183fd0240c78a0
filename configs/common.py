"""What every config has: the sections, and the fields that a script may set on any of them."""

import ml_collections
from ml_collections.config_dict import placeholder

_OF_IMAGES = ('FD', 'KID', 'PRDC', 'IS', 'C2ST', 'memorization')


def get_base() -> ml_collections.ConfigDict:
    """Sections in order, with the fields that all runs share; a config file fills in the rest."""
    config = ml_collections.ConfigDict()
    config.seed = 0

    config.data = ml_collections.ConfigDict()
    config.data.modality = placeholder(str)
    config.data.source = placeholder(str)
    config.data.name = placeholder(str)
    config.data.data_dir = placeholder(str)  # None: TFDS_DATA_DIR, or the library's own default
    config.data.batch_size = 128  # of all devices together

    config.networks = ml_collections.ConfigDict()  # by player
    # By player, None or a folder: the weights that it begins with are those of another run's
    # workdir, or of a transformer of Hugging Face.
    config.restore = ml_collections.ConfigDict()
    config.method = ml_collections.ConfigDict()
    config.optim = ml_collections.ConfigDict()  # by player
    # What networks compute in: 'float32', 'bfloat16' or 'float16'. Parameters, norms, softmax and
    # losses are float32 always.
    config.precision = 'float32'

    config.ema = ml_collections.ConfigDict()
    config.ema.decay = 0.9999
    config.ema.snapshot_every = placeholder(int)  # None: averages of other lengths cannot be had
    config.ema.lengths = (0.05, 0.1)  # of the averages in the snapshots

    config.train = ml_collections.ConfigDict()
    config.train.num_steps = 1000
    config.train.accumulate = 1  # parts that a batch is taken in, one after the other
    config.train.stop_after_skipped = 10  # steps in a row whose loss or gradient is not finite
    config.train.log_every = 50
    config.train.evaluate_every = placeholder(int)  # None: never
    config.train.sample_every = placeholder(int)
    config.train.score_every = placeholder(int)  # scores of samples, by evaluate.scores
    config.train.score_num = 1000
    config.train.score_metrics = ('FD', 'KID')
    config.train.score_seconds = placeholder(float)  # left out where drawing takes longer
    config.train.checkpoint_every = 1000
    config.train.checkpoint_minutes = placeholder(float)  # also when the last one is this old
    config.train.keep_checkpoints = 3
    config.train.keep_every = placeholder(int)  # those of steps divisible by this stay for good
    config.train.best_by = placeholder(str)  # a number of the evaluations, to keep its best step

    config.evaluate = ml_collections.ConfigDict()
    config.evaluate.batch_size = 128
    config.evaluate.num_batches = placeholder(int)  # None: the whole split
    config.evaluate.options = ml_collections.ConfigDict()  # of --mode=evaluate, for the method
    config.evaluate.scores = scores(features('identity.identity'))

    config.sample = ml_collections.ConfigDict()
    config.sample.num = 64
    config.sample.batch_size = 64
    config.sample.options = ml_collections.ConfigDict()  # for the method

    config.parallel = ml_collections.ConfigDict()
    config.parallel.strategy = 'jit'
    config.parallel.data = -1  # one of the axes may be -1: the rest of the devices
    config.parallel.fsdp = 1
    config.parallel.tensor = 1
    return config


def finish(config: ml_collections.ConfigDict, arg: str) -> ml_collections.ConfigDict:
    """Applies a config's argument ('' or 'smoke'), gives each player its field in `restore`, and
    locks it.

    `smoke` is the same run in seconds on a CPU: synthetic data of the same spec, three steps of
    small batches, and nothing to begin with. The config itself has made its networks tiny.
    """
    for player in config.networks:
        folder = None if arg == 'smoke' else config.restore.to_dict().pop(player, None)
        if player in config.restore:
            del config.restore[player]
        config.restore[player] = placeholder(str)
        config.restore[player] = folder
    if arg == 'smoke':
        config.data.source = 'synthetic'
        config.data.batch_size = 8
        config.train.num_steps = 3
        config.train.log_every = 1
        config.train.evaluate_every = 3
        if config.train.sample_every is not None:  # a classifier draws nothing
            config.train.sample_every = 3
        config.train.checkpoint_every = 2
        config.evaluate.batch_size = 8
        config.evaluate.num_batches = 2
        if config.evaluate.scores.num is not None:
            config.evaluate.scores.num = config.train.score_num = 40
            config.evaluate.scores.num_references = 60
            config.train.score_every = 3
        if config.ema.snapshot_every is not None:
            config.ema.snapshot_every = 1
        config.sample.num = 8
        config.sample.batch_size = 8
    elif arg:
        raise ValueError(f"--config: no argument {arg!r}; ':smoke' is the only one")
    return config.lock()


def section(**fields) -> ml_collections.ConfigDict:
    """A part of a config."""
    return ml_collections.ConfigDict(fields)


def scores(features: ml_collections.ConfigDict, *metrics: str) -> ml_collections.ConfigDict:
    """What samples are scored by; none are drawn until `num` says how many."""
    return section(
        num=placeholder(int),
        metrics=metrics,
        reference='train',  # or 'evaluation': what FD, KID, MMD, SW and PRDC compare with
        num_references=placeholder(int),  # examples of each split; None: all
        features=features,
    )


def features(name: str, weights: str | None = None) -> ml_collections.ConfigDict:
    """What samples are looked at with; None for what an extractor does not need."""
    found = section(name=name, weights=placeholder(str), width=placeholder(int))
    found.weights = weights
    return found


def score_points(config: ml_collections.ConfigDict) -> None:
    """Scores on the numbers themselves."""
    looks = features('identity.identity')
    config.evaluate.scores = scores(looks, 'SW', 'MMD', 'PRDC', 'C2ST', 'memorization')


def score_images(config: ml_collections.ConfigDict, weights: str) -> None:
    """Scores on the features of a net trained here: 'digits', or a file of --mode=export."""
    config.evaluate.scores = scores(features('feature_net.feature_net', weights), *_OF_IMAGES)


def score_by_inception(config: ml_collections.ConfigDict) -> None:
    """Scores on Inception's features, whose weights are not ours to ship."""
    config.evaluate.scores = scores(features('inception.inception'), *_OF_IMAGES)


def ddpm() -> ml_collections.ConfigDict:
    """The method of Ho et al. 2020: 1,000 steps, beta from 1e-4 to 0.02, the noise predicted."""
    return section(
        name='diffusion.diffusion',
        process=section(name='gaussian.linear', num_steps=1000, beta_min=0.1, beta_max=20.0),
        prediction='epsilon',
        class_conditional=False,
        label_dropout=0.0,
    )


def flow_matching(class_conditional: bool = False) -> ml_collections.ConfigDict:
    """Straight paths from noise to data, and the velocity along them."""
    return section(
        name='diffusion.diffusion',
        process=section(name='gaussian.straight'),
        prediction='velocity',
        class_conditional=class_conditional,
        label_dropout=0.1 if class_conditional else 0.0,
    )


def use_autoencoder(
    config: ml_collections.ConfigDict,
    first: ml_collections.ConfigDict,
    workdir: str,
    vectors: bool = False,
) -> None:
    """The autoencoder of another run, `first`, that was trained in `workdir`; the latents, or the
    vectors that its codes are made of, are what `config.method.inner` models."""
    config.networks.autoencoder = first.networks.autoencoder.copy_and_resolve_references()
    config.method = section(
        name='latent.latent',
        autoencoder=first.method.copy_and_resolve_references(),
        vectors=vectors,
        statistics_steps=100,
    )
    config.restore.autoencoder = workdir


def use_images(config: ml_collections.ConfigDict, source: str, name: str) -> None:
    """Images as data, with what can be asked of them."""
    config.data.modality = 'images'
    config.data.source = source
    config.data.name = name
    config.data.image_size = placeholder(int)  # None: that of the set; a folder needs one
    config.data.channels = placeholder(int)  # None: those of the set; 3 for a folder
    config.data.flip = False
    config.data.dequantize = False
    config.data.binarize = placeholder(str)  # 'threshold', 'static' or 'dynamic': black and white
    config.data.labels_per_class = placeholder(int)  # so many training images keep it; None: all
    config.data.labels_seed = 0  # of which these are
    config.data.labeled_only = False  # the others are left out


def unet(**fields) -> ml_collections.ConfigDict:
    """A U-Net; its defaults are the paper's for CIFAR-10."""
    return section(name='unet.UNet', remat=False, **fields)


def use_text(config: ml_collections.ConfigDict, source: str, context: int, tokenizer: str) -> None:
    """Text as data, in windows of `context` tokens."""
    config.data.modality = 'text'
    config.data.source = source
    config.data.context = context
    config.data.tokenizer = tokenizer  # 'bytes', 'characters', 'bpe' or a tokenizer.json
    config.data.vocab_size = placeholder(int)  # of 'bpe'
    config.data.evaluation_stride = placeholder(int)  # tokens between windows; None: their length
    config.data.held_out = 0.1


def use_music(config: ml_collections.ConfigDict, context: int, transpose: int) -> None:
    """Music of one's own as data, in windows of `context` tokens."""
    config.data.modality = 'music'
    config.data.source = 'folder'
    config.data.encoding = 'voices'  # or 'events'
    config.data.context = context
    config.data.evaluation_stride = placeholder(int)  # tokens between windows; None: their length
    config.data.transpose = transpose  # semitones, up and down
    config.data.evaluation_split = 'test'


def transformer(**fields) -> ml_collections.ConfigDict:
    """A transformer; where `fields` say nothing it is GPT-2's, of 124M parameters."""
    found = section(
        name='transformer.Transformer',
        width=768,
        num_layers=12,
        num_heads=12,
        num_kv_heads=placeholder(int),  # None: as many as heads
        hidden=placeholder(int),  # None: 4 width
        positions='learned',  # or 'rotary', 'alibi', 'none'
        norm='layernorm',  # or 'rmsnorm'
        activation='gelu',  # or 'relu2', 'swiglu'
        bias=True,
        qk_norm=False,
        tied=True,
        window=placeholder(int),  # None: all tokens before
        period=placeholder(int),  # of places with a meaning of their own, such as 4 voices
        soft_cap=placeholder(float),
        dropout=0.0,
        norm_epsilon=1e-5,
        rotary_base=10_000.0,
        init_std=0.02,
        remat=False,
        scan=False,
    )
    found.update(fields)
    return found


def modern_transformer(**fields) -> ml_collections.ConfigDict:
    """What came after GPT-2, in about as many parameters; `configs/gpt_modern_*.py` says what."""
    return transformer(
        positions='rotary',
        norm='rmsnorm',
        activation='relu2',
        qk_norm=True,
        bias=False,
        **fields,
    )


def autoregressive(class_conditional: bool = False) -> ml_collections.ConfigDict:
    """Token after token."""
    return section(
        name='autoregressive.autoregressive',
        class_conditional=class_conditional,
        separate_documents=False,  # True: no token sees documents before its own
    )


def decoding(**fields) -> ml_collections.ConfigDict:
    """How tokens are drawn; where `fields` say nothing, as the model's probabilities say."""
    found = section(
        temperature=1.0,  # 0: the likeliest always
        top_k=placeholder(int),
        top_p=placeholder(float),
        min_p=placeholder(float),
        repetition_penalty=1.0,
        num_beams=placeholder(int),  # None: drawn at random
        length_penalty=placeholder(float),  # of beams; None: 1
    )
    found.update(fields)
    return found


def gpt_optimizer(peak: float, num_steps: int, warmup_steps: int) -> ml_collections.ConfigDict:
    """AdamW as nanoGPT has it: a cosine to a tenth of the peak, decay of matrices alone."""
    return section(
        name='adamw',
        learning_rate=peak,
        b1=0.9,
        b2=0.99,
        weight_decay=0.1,
        decayed='matrices',
        warmup_steps=warmup_steps,
        schedule='cosine',
        decay_steps=num_steps - warmup_steps,
        final_rate=0.1,
        clip_norm=1.0,
    )


def muon(num_steps: int) -> ml_collections.ConfigDict:
    """Muon for the matrices of blocks, AdamW for the rest: a short warm-up, a plateau, and a line
    to zero over the second half."""
    return section(
        name='muon',
        learning_rate=0.02,
        adam_learning_rate=5e-3,
        weight_decay=0.01,
        adam_b2=0.99,
        warmup_steps=50,
        schedule='linear',
        stable_steps=num_steps // 2 - 50,
        decay_steps=num_steps - num_steps // 2,
        clip_norm=1.0,
    )


def mlp_autoencoder(widths: tuple[int, ...], **fields) -> ml_collections.ConfigDict:
    """An encoder and a decoder of plain layers."""
    return section(
        name='autoencoder.MLPAutoencoder', widths=widths, activation='silu', dropout=0.0, **fields
    )


def conv_autoencoder(dropout: float = 0.0, **fields) -> ml_collections.ConfigDict:
    """An encoder and a decoder of convolutions."""
    return section(name='autoencoder.ConvAutoencoder', dropout=dropout, remat=False, **fields)


def vae(observation: str, **fields) -> ml_collections.ConfigDict:
    """A variational autoencoder; where `fields` say nothing it is that of Kingma & Welling."""
    found = section(
        name='vae.vae',
        observation=section(name=observation),
        prior=section(name='priors.Normal'),
        class_conditional=False,
        latent_channels=16,
        beta=1.0,
        warmup_steps=0,  # over which beta, or the capacity, rises
        free_bits=0.0,
        capacity=placeholder(float),
        gradient='elbo',  # or 'iwae', 'dreg'
        num_samples=1,
    )
    found.update(fields)
    return found


def vdvae(**fields) -> ml_collections.ConfigDict:
    """A very deep hierarchy of latents; where `fields` say nothing, the paper's for CIFAR-10."""
    found = section(
        name='vdvae.VDVAE',
        channels=384,
        bottleneck=4,  # a block's inner channels are so many times fewer
        # Resolution, blocks on the way up, blocks on the way down.
        levels=((32, 12, 22), (16, 7, 11), (8, 7, 6), (4, 4, 3), (1, 3, 1)),
        bias_up_to=64,
        dropout=0.0,
        remat=False,
    )
    found.update(fields)
    return found


def vqvae(
    quantizer: ml_collections.ConfigDict, observation: ml_collections.ConfigDict
) -> ml_collections.ConfigDict:
    """A vector-quantized autoencoder."""
    return section(name='vqvae.vqvae', quantizer=quantizer, observation=observation)


def vq(num_codes: int, channels: int, **fields) -> ml_collections.ConfigDict:
    """A learned codebook, or `depth` of them in a row."""
    found = section(
        name='codebook.vq',
        num_codes=num_codes,
        channels=channels,
        depth=1,
        decay=0.99,  # of the codebook's averages, in batches
        commitment=0.25,
        restart_below=0.05,  # of the fair share of use: what is used less begins anew
    )
    found.update(fields)
    return found


def hierarchical_vae(observation: ml_collections.ConfigDict, **fields) -> ml_collections.ConfigDict:
    """A hierarchical variational autoencoder; where `fields` say nothing it is that of Child."""
    found = section(
        name='hierarchical_vae.hierarchical_vae',
        observation=observation,
        latent_channels=16,
        class_conditional=False,
        warmup_steps=0,  # over which the weight of the rate rises
    )
    found.update(fields)
    return found


def semi_supervised_vae(observation: str, **fields) -> ml_collections.ConfigDict:
    """A classifier and an autoencoder that learn from few labels; see data.labels_per_class."""
    found = section(
        name='semi_supervised_vae.semi_supervised_vae',
        observation=section(name=observation),
        latent_channels=16,
        classification_weight=1.0,
        max_shift=0,
    )
    found.update(fields)
    return found


def use_discriminator(config: ml_collections.ConfigDict, start: int, **fields) -> None:
    """A discriminator of patches, whose say in the autoencoder's loss begins at step `start`."""
    config.networks.discriminator = section(
        name='discriminator.PatchDiscriminator', remat=False, **fields
    )
    config.method.adversarial = section(name='adversarial.hinge')
    config.method.adversarial_weight = 0.8
    config.method.adversarial_start = start
    config.method.adaptive_weight = True


def sampling(sampler: str, num_steps: int) -> ml_collections.ConfigDict:
    """How a diffusion model is drawn from."""
    return section(
        sampler=sampler,
        num_steps=num_steps,
        guidance=1.0,  # 1: the conditional model itself
        eta=placeholder(float),  # of ddim; None: no noise
        variance=placeholder(str),  # of ancestral: 'large' or 'small'
    )


def whole_bound() -> ml_collections.ConfigDict:
    """The variational bound with every term of a chain of 1,000 steps, as the paper reports it."""
    return section(bound_terms=999, variance='large')


def resnet(**fields) -> ml_collections.ConfigDict:
    """A network that names what is in an image."""
    return section(name='resnet.ResNet', num_groups=8, dropout=0.0, remat=False, **fields)


def dense_classifier(widths: tuple[int, ...], dropout: float) -> ml_collections.ConfigDict:
    """A network of plain layers that names what x is."""
    return section(name='dense_classifier.DenseClassifier', widths=widths, dropout=dropout)


def classifier(max_shift: int) -> ml_collections.ConfigDict:
    """Supervised training; images are moved by up to `max_shift` pixels."""
    return section(name='classifier.classifier', label_smoothing=0.0, max_shift=max_shift)


def adamw(peak: float, num_steps: int) -> ml_collections.ConfigDict:
    """Decoupled weight decay, a short warm-up, and a cosine to zero over `num_steps`."""
    return section(
        name='adamw',
        learning_rate=peak,
        weight_decay=0.01,
        warmup_steps=100,
        schedule='cosine',
        decay_steps=num_steps - 100,
        clip_norm=1.0,
    )


def shrink_transformer(config: ml_collections.ConfigDict) -> None:
    """A transformer small enough for `:smoke`."""
    config.networks.model.width = 16
    config.networks.model.num_layers = 2
    config.networks.model.num_heads = 2


def shrink_resnet(config: ml_collections.ConfigDict) -> None:
    """A network small enough for `:smoke`."""
    config.networks.model.channels = 8
    config.networks.model.channel_multipliers = (1, 2)
    config.networks.model.num_blocks = 1


def shrink_unet(config: ml_collections.ConfigDict) -> None:
    """A U-Net and a chain small enough for `:smoke`."""
    config.networks.model.channels = 8
    config.networks.model.channel_multipliers = (1, 2)
    config.networks.model.num_blocks = 1
    config.networks.model.num_groups = 4
    shrink_chain(config)


def shrink_pixelcnn(config: ml_collections.ConfigDict) -> None:
    """A PixelCNN small enough for `:smoke`."""
    config.networks.model.channels = 8
    config.networks.model.num_blocks = 1
    config.networks.model.num_levels = 2
    config.networks.model.num_mixtures = 2


def shrink_mlp_autoencoder(config: ml_collections.ConfigDict) -> None:
    """Layers and bounds small enough for `:smoke`."""
    config.networks.autoencoder.widths = (16,)
    config.evaluate.options = section(num_samples=4, chunk=2)


def shrink_conv_autoencoder(config: ml_collections.ConfigDict) -> None:
    """A network small enough for `:smoke`."""
    config.networks.autoencoder.channels = 8
    config.networks.autoencoder.channel_multipliers = (1, 2)
    config.networks.autoencoder.num_groups = 4


def shrink_vdvae(config: ml_collections.ConfigDict, size: int) -> None:
    """A hierarchy for images of this size, and bounds, small enough for `:smoke`."""
    config.networks.autoencoder.channels = 8
    config.networks.autoencoder.levels = ((size, 1, 1), (4, 1, 1), (1, 1, 1))
    config.method.latent_channels = 2
    config.evaluate.options = section(num_samples=4, chunk=2)


def shrink_vqvae(config: ml_collections.ConfigDict) -> None:
    """A network and a codebook small enough for `:smoke`."""
    shrink_conv_autoencoder(config)
    config.method.quantizer.num_codes = 16


def shrink_chain(config: ml_collections.ConfigDict) -> None:
    """A chain short enough for `:smoke`."""
    config.method.process.num_steps = 50
    config.evaluate.options.bound_terms = 49
    config.sample.options = sampling('ddim', 5)
