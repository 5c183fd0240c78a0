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
    # Rows in a row that show a symptom, such as a GAN's collapse; None: there is only a warning.
    config.train.stop_after_symptoms = placeholder(int)
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
        reference='train',  # or 'evaluation': what FD, KID, MMD, SW, PRDC and class_kl compare with
        num_references=placeholder(int),  # examples of each split; None: all
        features=features,
    )


def features(name: str, weights: str | None = None) -> ml_collections.ConfigDict:
    """What samples are looked at with; None for what an extractor does not need."""
    found = section(
        name=name, weights=placeholder(str), width=placeholder(int), law=placeholder(str)
    )
    found.weights = weights
    return found


def score_points(config: ml_collections.ConfigDict) -> None:
    """Scores on the numbers themselves."""
    looks = features('identity.identity')
    config.evaluate.scores = scores(looks, 'SW', 'MMD', 'PRDC', 'C2ST', 'memorization')


def score_mixture(config: ml_collections.ConfigDict) -> None:
    """Scores on the numbers themselves, of points of a mixture whose centers are known."""
    looks = features('mixture.mixture')
    looks.law = config.data.get_ref('name').identity()  # the data's, unless another one is set
    config.evaluate.scores = scores(looks, 'modes', 'SW', 'MMD', 'PRDC', 'C2ST', 'memorization')


def score_images(config: ml_collections.ConfigDict, weights: str) -> None:
    """Scores on the features of a net trained here: 'digits', or a file of --mode=export."""
    looks = features('feature_net.feature_net', weights)
    config.evaluate.scores = scores(looks, 'modes', *_OF_IMAGES)


def score_stacked(config: ml_collections.ConfigDict, weights: str) -> None:
    """Scores of stacked images on the features of a net of single ones."""
    config.evaluate.scores = scores(features('stacked.stacked', weights), 'modes', *_OF_IMAGES)


def score_by_inception(config: ml_collections.ConfigDict) -> None:
    """Scores on Inception's features, whose weights are not ours to ship."""
    config.evaluate.scores = scores(features('inception.inception'), *_OF_IMAGES)


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
    config.data.stacked = False  # three gray images on the channels of one
    config.data.labels_per_class = placeholder(int)  # so many training images keep it; None: all
    config.data.labels_seed = 0  # of which these are
    config.data.labeled_only = False  # the others are left out


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


def sampling(sampler: str, num_steps: int) -> ml_collections.ConfigDict:
    """How a diffusion model is drawn from."""
    return section(
        sampler=sampler,
        num_steps=num_steps,
        guidance=1.0,  # 1: the conditional model itself
        eta=placeholder(float),  # of ddim; None: no noise
        variance=placeholder(str),  # of ancestral: 'large' or 'small'
    )


def truncation() -> ml_collections.ConfigDict:
    """How a GAN is drawn from."""
    return section(truncation=placeholder(float))  # None: from all latents; see methods/gan.py


def whole_bound() -> ml_collections.ConfigDict:
    """The variational bound with every term of a chain of 1,000 steps, as the paper reports it."""
    return section(bound_terms=999, variance='large')


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
