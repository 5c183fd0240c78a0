"""Networks and methods as sections of a config, and what makes them small enough for `:smoke`."""

import ml_collections
from ml_collections.config_dict import placeholder

from configs.common import sampling, section


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
    config.networks.autoencoder = first.networks.autoencoder
    config.method = section(
        name='latent.latent',
        autoencoder=first.method,
        vectors=vectors,
        statistics_steps=100,
    )
    config.restore.autoencoder = workdir


def unet(**fields) -> ml_collections.ConfigDict:
    """A U-Net; its defaults are the paper's for CIFAR-10."""
    return section(name='unet.UNet', remat=False, **fields)


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
        gradient_draws=placeholder(int),  # of the num_samples of 'iwae' and 'dreg'; None: all
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


def gan(adversarial: str, **fields) -> ml_collections.ConfigDict:
    """A generative adversarial network; where `fields` say nothing nothing is asked of the players
    besides their game."""
    found = section(
        name='gan.gan',
        adversarial=section(name=adversarial),
        latent_channels=128,
        class_conditional=False,
        discriminator_steps=1,  # in each step, on as many parts of the batch
        r1=0.0,
        r2=0.0,
        gradient_penalty=0.0,
        penalty_every=1,  # above 1: a turn of its own in each so many steps
        penalty_final=1.0,  # what penalties are multiplied by at last,
        penalty_steps=0,  # and the step that is
        consistency=0.0,
        path_length=0.0,
        path_length_every=4,
        style_mixing=0.0,
    )
    found.update(fields)
    return found


def play(config: ml_collections.ConfigDict, room: str, **fields) -> None:
    """The networks of a file for both players, with fields that they share."""
    for player, name in (('generator', 'Generator'), ('discriminator', 'Discriminator')):
        config.networks[player] = section(name=f'{room}.{name}', **fields)


def use_adam(
    config: ml_collections.ConfigDict, rate: float, num_steps: int | None = None, **fields
) -> None:
    """Adam for both players, without momentum unless `fields` say so. With `num_steps` the rate
    falls along a cosine over so many."""
    options = {'b1': 0.0, 'b2': 0.99}
    if num_steps is not None:
        options |= {'schedule': 'cosine', 'decay_steps': num_steps}
    for player in ('generator', 'discriminator'):
        config.optim[player] = section(name='adam', learning_rate=rate, **options)
        config.optim[player].update(fields)


def play_wgan_gp(
    config: ml_collections.ConfigDict, channels: int, num_levels: int, num_steps: int
) -> None:
    """WGAN-GP of small images: residual networks, and a critic with two turns for each of the
    generator's, each on half of the batch."""
    config.data.batch_size = 2 * 64
    play(config, 'sngan', channels=channels, num_levels=num_levels, remat=False)
    config.networks.discriminator.update(num_blocks=1, spectral=False)
    config.method = gan(
        'adversarial.wasserstein',
        latent_channels=64,
        discriminator_steps=2,
        gradient_penalty=10.0,
    )
    use_adam(config, 1e-3, num_steps=num_steps, b2=0.9)
    config.train.num_steps = num_steps


def play_r3gan(
    config: ml_collections.ConfigDict,
    widths: tuple[int, ...],
    group_width: int,
    penalty: float,
    num_steps: int,
    rate: float = 2e-3,
    b2: float = 0.99,
) -> None:
    """R3GAN of small images: a block for each size, both penalties of this weight, which falls to a
    half, and Adam."""
    fields = {'widths': widths, 'num_blocks': (1,) * len(widths), 'expansion': 1}
    play(config, 'r3gan', **fields, group_width=group_width, remat=False)
    config.method = gan(
        'adversarial.relativistic',
        latent_channels=64,
        r1=penalty,
        r2=penalty,
        penalty_final=0.5,
        penalty_steps=num_steps,
    )
    use_adam(config, rate, num_steps=num_steps, b2=b2)
    config.train.num_steps = num_steps


def diff_augment() -> ml_collections.ConfigDict:
    """What both players' examples go through before the discriminator sees them."""
    return section(name='diff_augment.diff_augment', policies=('color', 'translation', 'cutout'))


def ada(steps: int, target: float | None = 0.6, p_max: float = 1.0) -> ml_collections.ConfigDict:
    """The same, as often as the discriminator's knowledge of real examples asks for; at the fastest
    from never to always in so many `steps`. Without a target along half a cosine."""
    return section(
        name='ada.ada',
        target=placeholder(float) if target is None else target,  # of the mean sign of its answers
        steps=steps,
        p_max=p_max,
        blit=True,
        geometry=True,
        color=True,
        xflip=True,  # False where mirrored images are others, as of letters
    )


def resnet(**fields) -> ml_collections.ConfigDict:
    """A network that names what is in an image."""
    return section(name='resnet.ResNet', num_groups=8, dropout=0.0, remat=False, **fields)


def dense_classifier(widths: tuple[int, ...], dropout: float) -> ml_collections.ConfigDict:
    """A network of plain layers that names what x is."""
    return section(name='dense_classifier.DenseClassifier', widths=widths, dropout=dropout)


def classifier(max_shift: int) -> ml_collections.ConfigDict:
    """Supervised training; images are moved by up to `max_shift` pixels."""
    return section(name='classifier.classifier', label_smoothing=0.0, max_shift=max_shift)


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
    """A U-Net and a chain small enough for `:smoke`; a level more would take twice as long."""
    config.networks.model.channels = 8
    config.networks.model.channel_multipliers = (1,)
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


def shrink_gan(config: ml_collections.ConfigDict, **fields) -> None:
    """Both networks with these fields, and few latents, for `:smoke`."""
    config.method.latent_channels = 4
    for player in ('generator', 'discriminator'):
        config.networks[player].update(fields)


def shrink_chain(config: ml_collections.ConfigDict) -> None:
    """A chain short enough for `:smoke`."""
    config.method.process.num_steps = 50
    config.evaluate.options.bound_terms = 49
    config.sample.options = sampling('ddim', 5)
