"""Generative adversarial networks: a generator x = G(z), z ~ N(0, I), and a discriminator D.

    (1) each player in turn descends the loss that the game gives it (`losses/adversarial.py`), the
        discriminator `discriminator_steps` times, each on its own part of the batch, and every turn
        on fresh latents                                               (Goodfellow et al. 2014)
    (2) the discriminator's loss is that of its game, and besides
            r1 R1 + r2 R2 + gradient_penalty GP + consistency C        (`losses/penalties.py`)
        R1, R2 and GP are part of its turns, or with `penalty_every` k > 1 a turn of their own, in
        each k-th step, with the weight of all turns of k steps: 'lazy'
        regularization                                                  (Karras et al. 2020). Their
        weights may fall to `penalty_final` times what they are, over `penalty_steps` steps
    (3) the generator's loss is that of its game; in each `path_length_every`-th step it has a turn
        of its own with `path_length` times so many path lengths        (Karras et al. 2020)
    (4) both see augmented examples, real and made ones alike (Zhao et al. 2020; Karras et al.
        2020a), an adaptive augmentation as strong as E sign D(x) over real examples asks for, or
        one as strong as a schedule says (Huang et al. 2024).
        With `consistency` the game is played on examples as they are, and C holds the answers to
        augmented ones to theirs, for real and made ones                (Zhao et al. 2021, bCR)
    (5) diversity = the mean distance of a made example to the nearest other one of its batch,
        divided by that of real ones: 1 where examples differ as real ones do, 0 where all are one

Samples are the averaged generator's. `truncation` brings them nearer to the mean: a generator with
styles makes w into mean + truncation (w - mean) (Karras et al. 2019); of another one no number of z
is further than `truncation` from 0 (Brock et al. 2019).

No likelihood of x follows, and none is reported. What the discriminator says of held-out examples
tells how much of the training set it knows by heart.
"""

import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from gen_jax.augmentations.augmentation import Augmentation
from gen_jax.errors import InputError, in_section
from gen_jax.losses.adversarial import Adversarial
from gen_jax.methods import gan_turns
from gen_jax.methods.gan_players import AUGMENTATION, DISCRIMINATOR, GENERATOR, Players
from gen_jax.methods.gan_turns import PATH_LENGTH, Weights
from gen_jax.methods.method import (
    Column,
    LatentSpace,
    Method,
    Phase,
    Symptom,
    ToldApart,
    check_label,
    check_numbers,
    check_players,
)
from gen_jax.types import Array, Batch, DataSpec, Key

ESTIMATORS = {
    'discriminator_loss': "estimate (the discriminator's game, held-out examples beside samples)",
    'logit_of_real': 'estimate (mean answer of the discriminator to held-out examples)',
    'logit_of_made': 'estimate (the same to samples, one for each held-out example)',
    'told_apart': 'estimate (share of pairs of a held-out example and a sample in which the '
    'discriminator answers more to the former; 1/2 where it tells nothing)',
}
SYMPTOMS = (
    Symptom(
        f'{GENERATOR}/diversity',
        0.25,
        'samples of a batch lie much nearer to each other than real examples do: the generator '
        'collapses onto few of them. A penalty (method.r1), a lower optim.generator.learning_rate '
        'or a larger data.batch_size may help',
    ),
)


def gan(
    networks: Mapping[str, Callable],
    spec: DataSpec,
    adversarial: Adversarial,
    augmentation: Augmentation | None = None,
    *,
    latent_channels: int = 128,
    class_conditional: bool = False,
    discriminator_steps: int = 1,
    r1: float = 0.0,
    r2: float = 0.0,
    gradient_penalty: float = 0.0,
    penalty_every: int = 1,
    penalty_final: float = 1.0,
    penalty_steps: int = 0,
    consistency: float = 0.0,
    path_length: float = 0.0,
    path_length_every: int = 4,
    style_mixing: float = 0.0,
) -> Method:
    """A GAN of data of this `spec`.

    Args:
      networks: `{'generator': factory, 'discriminator': factory}`; a generator is called as
        `(z, label, train=)`, a discriminator as `(x, label, train=)`.
      spec: of the data; its classes where `class_conditional`.
      adversarial: the game.
      augmentation: of (4); None for none.
      latent_channels: numbers of z.
      class_conditional: whether both players are told the label.
      discriminator_steps: of (1); it divides the batch.
      r1, r2, gradient_penalty, consistency: weights of (2).
      penalty_every, penalty_final, penalty_steps: of (2); 0 steps: the weights stay.
      path_length, path_length_every: of (3); for generators with styles.
      style_mixing: the share of made examples whose later layers are another latent's; for
        generators with styles                                          (Karras et al. 2019)

    Raises:
      InputError: options that do not go together, other players, or a value out of its range.
    """
    check_numbers(spec)
    check_players(networks, (GENERATOR, DISCRIMINATOR))
    if class_conditional and spec.num_classes is None:
        raise InputError('method.class_conditional: this data has no labels; set it to False')
    _check_ranges(
        weights={
            'r1': r1,
            'r2': r2,
            'gradient_penalty': gradient_penalty,
            'consistency': consistency,
            'path_length': path_length,
            'penalty_final': penalty_final,
            'penalty_steps': penalty_steps,
        },
        counts={
            'latent_channels': latent_channels,
            'discriminator_steps': discriminator_steps,
            'penalty_every': penalty_every,
            'path_length_every': path_length_every,
        },
        style_mixing=style_mixing,
    )
    num_classes = spec.num_classes if class_conditional else None
    decided = {'shape': spec.shape, 'latent_channels': latent_channels, 'num_classes': num_classes}
    players = Players(
        networks[GENERATOR](**decided),
        networks[DISCRIMINATOR](num_classes=num_classes),
        adversarial,
        augmentation,
        latent_channels,
        num_classes,
        style_mixing,
        discriminator_steps,
    )
    weights = Weights(r1, r2, gradient_penalty, penalty_final, penalty_steps)
    _check_parts(players, weights, penalty_every, consistency, path_length)
    return Method(
        init=functools.partial(_init, players, path_length > 0),
        phases=(
            *_discriminator_phases(players, weights, penalty_every, consistency),
            *_generator_phases(players, consistency, path_length, path_length_every),
        ),
        sample=functools.partial(_sample, players),
        evaluate=functools.partial(_evaluate, players),
        estimators=ESTIMATORS,
        averaged=(GENERATOR,),
        num_classes=num_classes,
        nfe=lambda **options: 1,
        latents=_latent_space(players),
        symptoms=SYMPTOMS,
        batch_parts=discriminator_steps,
    )


def _check_ranges(weights: Mapping, counts: Mapping, style_mixing: float) -> None:
    for name, value in weights.items():
        if not value >= 0:
            raise InputError(f'method.{name}: {value} must be at least 0')
    for name, value in counts.items():
        if value < 1:
            raise InputError(f'method.{name}: {value} must be at least 1')
    if not 0 <= style_mixing <= 1:
        raise InputError(f'method.style_mixing: {style_mixing} must be a share from 0 to 1')


def _check_parts(
    players: Players, weights: Weights, every: int, consistency: float, path_length: float
) -> None:
    """Raises InputError for options that do not go together."""
    for name, value in (('path_length', path_length), ('style_mixing', players.style_mixing)):
        if value and not players.has_styles:
            raise InputError(
                f'method.{name}: {value}, and the generator has no styles; set it to 0, or '
                "networks.generator.name to 'stylegan2.Generator'"
            )
    augmentation = players.augmentation
    rule = None if augmentation is None else augmentation.rule
    if consistency and (augmentation is None or rule is not None):
        raise InputError(
            f'method.consistency: {consistency}; it is of augmentations of one strength; set '
            "method.augmentation.name to 'diff_augment.diff_augment', or this to 0"
        )
    if rule is not None and rule.adapts and not players.game.has_level:
        raise InputError(
            f'method.augmentation.target: {rule.target} is of the sign of logits, which means '
            'nothing in a game of their differences; set it to None, for a schedule, or '
            'method.adversarial.name to a game with a level'
        )
    if every > 1 and not weights.any:
        raise InputError(
            f'method.penalty_every: {every} without a penalty; set r1, r2 or gradient_penalty, or '
            'this to 1'
        )
    if (weights.final == 1) != (weights.steps == 0) or (weights.steps and not weights.any):
        raise InputError(
            f'method.penalty_final, method.penalty_steps: {weights.final} and {weights.steps}; 1 '
            'and 0 where the weights stay or there are none, or neither'
        )


def _discriminator_phases(
    players: Players, weights: Weights, every: int, consistency: float
) -> list[Phase]:
    """Equations (1) and (2)."""
    at_once = weights if every == 1 else Weights()
    phases = [
        Phase(
            DISCRIMINATOR,
            functools.partial(gan_turns.discriminator_turn, players, at_once, consistency, turn),
        )
        for turn in range(players.discriminator_steps)
    ]
    if every > 1:
        loss = functools.partial(gan_turns.penalty_turn, players, weights, consistency, every)
        phases.append(Phase(DISCRIMINATOR, loss, every, 'penalty'))
    return phases


def _generator_phases(
    players: Players, consistency: float, path_length: float, every: int
) -> list[Phase]:
    """Equations (1) and (3)."""
    phases = [Phase(GENERATOR, functools.partial(gan_turns.generator_turn, players, consistency))]
    if path_length:
        loss = functools.partial(gan_turns.path_length_turn, players, path_length * every)
        phases.append(Phase(GENERATOR, loss, every, 'path'))
    return phases


def _init(players: Players, has_paths: bool, key: Key, batch: Batch) -> tuple[dict, dict]:
    generator_key, discriminator_key, noise_key = jax.random.split(key, 3)
    x, label = jnp.zeros_like(batch['x']), players.label(batch)
    z = jnp.zeros((len(x), players.latent_channels))
    rngs = {'params': generator_key, 'noise': noise_key}
    made = {GENERATOR: players.generator.init(rngs, z, label, train=False)}
    with in_section(f'networks.{DISCRIMINATOR}'):  # which meets the examples' shape only now
        made[DISCRIMINATOR] = players.discriminator.init(discriminator_key, x, label, train=False)
    params = {player: variables['params'] for player, variables in made.items()}
    states = {
        player: {name: value for name, value in variables.items() if name != 'params'}
        for player, variables in made.items()
    }
    model_state = {player: state for player, state in states.items() if state}
    rule = None if players.augmentation is None else players.augmentation.rule
    if rule is not None:
        model_state[AUGMENTATION] = {'strength': jnp.float32(0)}
        if rule.adapts:
            model_state[AUGMENTATION]['sign'] = jnp.float32(0)
    if has_paths:
        model_state[PATH_LENGTH] = jnp.float32(0)
    return params, model_state


def _sample(
    players: Players,
    params: Mapping,
    model_state: Mapping,
    key: Key,
    num: int,
    *,
    cond: Array | None = None,
    truncation: float | None = None,
) -> Array:
    check_label(cond, players.num_classes)
    if truncation is None:
        return players.make(params, model_state, key, num, cond, train=False)[0]
    if not truncation > 0:
        raise InputError(f'truncation: {truncation} must be above 0, or None for none')
    z_key, noise_key = jax.random.split(key)
    options = {'train': False, 'rngs': {'noise': noise_key}}
    if players.has_styles:
        z, mean = players.latents(z_key, num), players.mean_style(model_state)
        w, _ = players.styles(params, model_state, z, cond, train=False)
        return players.synthesize(params, model_state, mean + truncation * (w - mean), **options)
    shape = (num, players.latent_channels)
    z = jax.random.truncated_normal(z_key, -truncation, truncation, shape)
    return players.generate(params, model_state, z, cond, **options)[0]


def _evaluate(
    players: Players, params: Mapping, model_state: Mapping, batch: Batch, key: Key
) -> dict[str, Column]:
    x, label = batch['x'], players.label(batch)
    made, _ = players.make(params, model_state, key, len(x), label, train=False)
    of_real, of_made = (
        players.judge(params, model_state, shown, label, train=False)[0] for shown in (x, made)
    )
    return {
        'discriminator_loss': players.game.discriminator(of_real, of_made),
        'logit_of_real': of_real,
        'logit_of_made': of_made,
        'told_apart': ToldApart(of_real, of_made),
    }


def _latent_space(players: Players) -> LatentSpace:
    """Of z as the only layer, or of w."""

    def draw(params, model_state, key, num, *, cond=None):
        z = players.latents(key, num)
        if not players.has_styles:
            return z[:, None]
        return players.styles(params, model_state, z, cond, train=False)[0]

    def decode(params, model_state, w, *, cond=None):
        if players.has_styles:
            return players.synthesize(params, model_state, w, train=False)
        return players.generate(params, model_state, w[:, 0], cond, train=False)[0]

    def mean(params, model_state):
        if not players.has_styles:
            return jnp.zeros((1, players.latent_channels))
        w = players.mean_style(model_state)
        return jnp.broadcast_to(w, (players.num_layers, len(w)))

    is_normal = not players.has_styles
    return LatentSpace(draw, decode, mean, players.num_layers, is_normal, players.num_classes)
