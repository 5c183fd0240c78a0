"""The turns of a GAN's players: equations (1) to (5) of `gan.py` as losses of phases."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gen_jax.augmentations.augmentation import next_strength, scheduled_strength
from gen_jax.losses import penalties
from gen_jax.methods.gan_players import AUGMENTATION, DISCRIMINATOR, GENERATOR, Players
from gen_jax.types import Array, Batch, Key

# The entry of `model_state` with the running mean of path lengths, and how slowly it moves.
PATH_LENGTH, _PATH_DECAY = 'path_length', 0.99
# Of the running mean of the sign that an augmentation adapts to.
_SIGN_DECAY = 0.9

Turn = tuple[Array, tuple[dict, dict]]


class Weights(NamedTuple):
    """Of what the discriminator is asked besides its game; see `losses/penalties.py`. Over `steps`
    they go along half a period of a cosine to `final` times what they are; 0 steps: they stay."""

    r1: float = 0.0
    r2: float = 0.0
    gradient_penalty: float = 0.0
    final: float = 1.0
    steps: int = 0

    @property
    def any(self) -> bool:
        """Whether anything is asked."""
        return bool(self.r1 or self.r2 or self.gradient_penalty)

    def factor(self, step: Array) -> Array:
        """What they are multiplied by in a step."""
        share = jnp.minimum(step / max(self.steps, 1), 1.0)
        return self.final + (1 - self.final) * 0.5 * (1 + jnp.cos(jnp.pi * share))


class Shown(NamedTuple):
    """What a discriminator sees in a turn, and keys for what is done to each."""

    real: Array
    made: Array
    label: Array | None
    real_key: Key
    made_key: Key
    between_key: Key


def _shown(
    players: Players, turn: int, params: Mapping, model_state: Mapping, batch: Batch, key: Key
) -> Shown:
    real, label = players.part(batch, turn)
    draw_key, *keys = jax.random.split(key, 4)
    made, _ = players.make(params, model_state, draw_key, len(real), label, train=True)
    return Shown(real, jax.lax.stop_gradient(made), label, *keys)


def discriminator_turn(
    players: Players,
    weights: Weights,
    consistency: float,
    turn: int,
    params: Mapping,
    state,
    batch: Batch,
    key: Key,
) -> Turn:
    """Equation (2)."""
    model_state = state.model_state
    shown = _shown(players, turn, params, model_state, batch, key)
    game = players.of_plain(consistency)
    logits, after = [], model_state
    for x, x_key in ((shown.real, shown.real_key), (shown.made, shown.made_key)):
        answer, own = game.judge_augmented(params, after, shown.label, x_key)(x)
        after = {**after, DISCRIMINATOR: own} if own else after
        logits.append(answer)
    loss = jnp.mean(players.game.discriminator(*logits))
    values = _penalties(game, weights, params, model_state, shown)
    asked = _weighed(weights, values, state.step)
    if consistency:
        values['consistency'] = _consistency(players, params, model_state, shown)
        asked = asked + consistency * values['consistency']
    if AUGMENTATION in model_state:
        if turn == 0:
            after = {**after, AUGMENTATION: _moved(players, state, logits[0])}
        values['augmentation'] = after[AUGMENTATION]['strength']
    loss = loss + asked
    metrics = {
        'loss': loss,
        'logit_of_real': jnp.mean(logits[0]),
        'logit_of_made': jnp.mean(logits[1]),
        'told_apart': told_apart(*logits),
    }
    return loss, (after, metrics | values)


def told_apart(real: Array, made: Array) -> Array:
    """The share of pairs of a real and a made example, by logits `[B]` and `[B]`, in which the real
    one's is higher; equal ones count half."""
    return jnp.mean((1 + jnp.sign(real[:, None] - made)) / 2)


def penalty_turn(
    players: Players,
    weights: Weights,
    consistency: float,
    every: int,
    params: Mapping,
    state,
    batch: Batch,
    key: Key,
) -> Turn:
    """The lazy part of (2), which stands for those of all turns since the one before it."""
    shown = _shown(players, 0, params, state.model_state, batch, key)
    game = players.of_plain(consistency)
    values = _penalties(game, weights, params, state.model_state, shown)
    turns = every * players.discriminator_steps
    return turns * _weighed(weights, values, state.step), (state.model_state, values)


def _penalties(
    players: Players, weights: Weights, params: Mapping, model_state: Mapping, shown: Shown
) -> dict[str, Array]:
    """R1, R2 and GP, those of them that have a weight."""

    def logits(key: Key):
        judge = players.judge_augmented(params, model_state, shown.label, key)
        return lambda x: judge(x)[0]

    values = {}
    if weights.r1:
        values['r1'] = penalties.zero_centered(logits(shown.real_key), shown.real)
    if weights.r2:
        values['r2'] = penalties.zero_centered(logits(shown.made_key), shown.made)
    if weights.gradient_penalty:
        keys = jax.random.split(shown.between_key)
        values['gradient_penalty'] = penalties.gradient_penalty(
            logits(keys[0]), shown.real, shown.made, keys[1]
        )
    return {name: jnp.mean(value) for name, value in values.items()}


def _weighed(weights: Weights, values: Mapping[str, Array], step: Array) -> Array:
    """The sum of penalties by their weights in a step."""
    total = sum((getattr(weights, name) * value for name, value in values.items()), jnp.float32(0))
    return weights.factor(step) * total


def _consistency(players: Players, params: Mapping, model_state: Mapping, shown: Shown) -> Array:
    """C of (2), of real examples and of made ones."""

    def logits(x: Array) -> Array:
        return players.judge(params, model_state, x, shown.label, train=True)[0]

    total = jnp.float32(0)
    for x, key in ((shown.real, shown.real_key), (shown.made, shown.made_key)):
        changed = players.augmented(model_state, x, key)
        total += jnp.mean(penalties.consistency(logits, x, changed))
    return total


def _moved(players: Players, state, real_logits: Array) -> dict[str, Array]:
    """Equation (4): how strong an augmentation is after a step's first batch of real examples."""
    before, rule = state.model_state[AUGMENTATION], players.augmentation.rule
    if not rule.adapts:
        return {'strength': scheduled_strength(state.step, rule)}
    sign = jnp.mean(jnp.sign(real_logits))
    sign = _SIGN_DECAY * before['sign'] + (1 - _SIGN_DECAY) * sign
    strength = next_strength(before['strength'], sign, rule)
    return jax.lax.stop_gradient({'strength': strength, 'sign': sign})


def generator_turn(
    players: Players,
    consistency: float,
    params: Mapping,
    state,
    batch: Batch,
    key: Key,
) -> Turn:
    """Equation (3) without path lengths, and (5)."""
    x, label = players.part(batch, 0)
    draw_key, real_key, made_key = jax.random.split(key, 3)
    model_state = state.model_state
    made, own = players.make(params, model_state, draw_key, len(x), label, train=True)
    game = players.of_plain(consistency)
    made_logits, _ = game.judge_augmented(params, model_state, label, made_key)(made)
    real_logits = None
    if players.game.is_relativistic:
        real_logits, _ = game.judge_augmented(params, model_state, label, real_key)(x)
    loss = jnp.mean(players.game.generator(made_logits, real_logits))
    after = {**model_state, GENERATOR: own} if own else model_state
    diversity = jnp.mean(nearest(made)) / jnp.mean(nearest(x))
    return loss, (after, {'loss': loss, 'diversity': diversity})


def nearest(x: Array) -> Array:
    """The distance of each example `[B, ...]` to the nearest other one: `[B]`."""
    flat = x.reshape(len(x), -1)
    flat = flat - flat.mean(0)  # what all have in common would round differences away
    squares = jnp.sum(flat**2, -1)
    distances = squares[:, None] + squares - 2 * flat @ flat.T
    others = jnp.where(jnp.eye(len(x), dtype=bool), jnp.inf, distances)
    return jnp.sqrt(jnp.maximum(jnp.min(others, -1), 0))


def path_length_turn(
    players: Players, weight: float, params: Mapping, state, batch: Batch, key: Key
) -> Turn:
    """The lazy part of (3), on half of what a turn has, as the paper has it: every other row, so
    that rows stay on their devices."""
    draw_key, noise_key, key = jax.random.split(key, 3)
    x, label = players.part(batch, 0)
    num = len(x[::2])
    label = None if label is None else label[::2]
    model_state = state.model_state
    z = players.latents(draw_key, num)
    w, _ = players.styles(params, model_state, z, label, train=False)

    def synthesize(w: Array) -> Array:
        rngs = {'noise': noise_key}
        return players.synthesize(params, model_state, w, train=True, rngs=rngs)

    lengths = penalties.path_lengths(synthesize, w, key)
    mean = _PATH_DECAY * model_state[PATH_LENGTH] + (1 - _PATH_DECAY) * jnp.mean(lengths)
    mean = jax.lax.stop_gradient(mean)
    loss = weight * jnp.mean((lengths - mean) ** 2)
    return loss, ({**model_state, PATH_LENGTH: mean}, {'length': jnp.mean(lengths)})
