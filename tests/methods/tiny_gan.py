"""GANs with networks so small that what the players do can be worked out by hand."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from gen_jax.augmentations.augmentation import Augmentation, Rule
from gen_jax.losses import adversarial
from gen_jax.methods.gan import gan
from gen_jax.state import init_state
from gen_jax.step import train_step
from gen_jax.types import DataSpec

SPEC = DataSpec((2,), num_classes=3)
GAME = adversarial.non_saturating()
X = np.random.default_rng(0).normal(size=(12, 2)).astype(np.float32)
BATCH = {'x': X, 'label': np.arange(12, dtype=np.int32) % 3}
IMAGE = DataSpec((1, 2, 1))
IMAGES = {'x': np.zeros((8, 1, 2, 1), np.float32)}


class Generator(nn.Module):
    """z and a shift for each class, through a matrix, with a running mean of what it made."""

    shape: tuple[int, ...]
    latent_channels: int
    num_classes: int | None = None

    @nn.compact
    def __call__(self, z, label=None, *, train):
        if self.num_classes is not None:
            z = z + nn.Embed(self.num_classes, self.latent_channels, name='label')(label)
        x = nn.Dense(self.shape[0], name='out')(z)
        seen = self.variable('batch_stats', 'mean', jnp.zeros, self.shape)
        if train and not self.is_initializing() and self.is_mutable_collection('batch_stats'):
            seen.value = x.mean(0)
        return x


class Styled(nn.Module):
    """An image of one row, whose layers show themselves: pixel i is the sum of layer i's w."""

    shape: tuple[int, ...]
    latent_channels: int
    num_classes: int | None = None
    num_styles: int = 2

    def setup(self):
        self.map = nn.Dense(4)
        self.gain = self.param('gain', nn.initializers.ones_init(), (2,))
        self.w_mean = self.variable('batch_stats', 'w_mean', jnp.zeros, 4)

    def styles(self, z, label=None, *, train):
        w = self.map(z)
        return jnp.stack([w, w], 1)

    def synthesize(self, w, *, train):
        return (self.gain * w.sum(-1)).reshape(-1, 1, 2, 1)

    def __call__(self, z, label=None, *, train):
        return self.synthesize(self.styles(z, label, train=train), train=train)


class Discriminator(nn.Module):
    """One product, and how often it was asked in training."""

    num_classes: int | None = None
    counts: bool = False
    curved: bool = False

    @nn.compact
    def __call__(self, x, label=None, *, train):
        flat = x.reshape(len(x), -1)
        if self.curved:
            flat = jnp.concatenate([flat, flat**2], -1)
        if self.counts:
            seen = self.variable('batch_stats', 'asked', jnp.zeros, ())
            if train and not self.is_initializing() and self.is_mutable_collection('batch_stats'):
                seen.value = seen.value + 1
        return nn.Dense(1, name='out')(flat)[:, 0]


def networks(generator=Generator, **fields):
    return {
        'generator': generator,
        'discriminator': functools.partial(Discriminator, **fields),
    }


def make(game=GAME, augmentation=None, *, fields=None, generator=Generator, spec=SPEC, **options):
    given = networks(generator, **(fields or {}))
    return gan(given, spec, game, augmentation, latent_channels=2, **options)


def run(method, num_steps: int = 1, batch=BATCH, rate: float = 0.1):
    """States and metrics of some steps of plain gradient descent."""
    optimizers = {player: optax.sgd(rate) for player in method.trained}
    step = jax.jit(
        functools.partial(train_step, method=method, optimizers=optimizers, ema_decay=0.5)
    )
    states, metrics = [init_state(method, optimizers, 0, batch)], []
    for _ in range(num_steps):
        state, found = step(states[-1], batch)
        states.append(state)
        metrics.append(found)
    return states, metrics


def losses_of(method, phase: int, state, key=None, batch=BATCH):
    """Loss, state and metrics of one turn."""
    key = jax.random.key(1) if key is None else key
    loss, (model_state, metrics) = method.phases[phase].loss(state.params, state, batch, key)
    return float(loss), model_state, metrics


def same(a, b) -> bool:
    return all(
        np.asarray(x).tobytes() == np.asarray(y).tobytes()
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def styled(**options):
    return make(generator=Styled, spec=IMAGE, **options)


def shift(rule: Rule | None = None) -> Augmentation:
    """All examples moved by the strength."""
    return Augmentation(lambda x, key, strength: x + strength, rule)
