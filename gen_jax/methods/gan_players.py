"""The two players of a GAN, and what they do; parameters and states come and go as arguments."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from gen_jax.augmentations.augmentation import Augmentation
from gen_jax.losses.adversarial import Adversarial
from gen_jax.types import Array, Batch, Key, Tree

GENERATOR, DISCRIMINATOR = 'generator', 'discriminator'
# The entry of `model_state` that says how strong an augmentation is by now.
AUGMENTATION = 'augmentation'


class Players(NamedTuple):
    """Networks, and what their answers mean.

    A network's collections besides 'params' (running statistics, the vectors of spectral norms, the
    mean style) are its state, `model_state[player]`.
    """

    generator: nn.Module
    discriminator: nn.Module
    game: Adversarial
    augmentation: Augmentation | None
    latent_channels: int
    num_classes: int | None
    style_mixing: float  # the share of examples that are made of two latents
    discriminator_steps: int

    @property
    def has_styles(self) -> bool:
        """Whether z becomes w, one for each layer, before it becomes an example."""
        return hasattr(self.generator, 'styles')

    @property
    def num_layers(self) -> int:
        """How many latents an example is made of."""
        return self.generator.num_styles if self.has_styles else 1

    def label(self, batch: Batch) -> Array | None:
        """What the networks are told of a batch."""
        return None if self.num_classes is None else batch['label']

    def part(self, batch: Batch, turn: int) -> tuple[Array, Array | None]:
        """The examples of one of the discriminator's turns and their labels: every n-th row of n
        turns, so that rows stay on their devices."""
        x, label = batch['x'], self.label(batch)

        def rows(array: Array) -> Array:
            return array.reshape(-1, self.discriminator_steps, *array.shape[1:])[:, turn]

        return rows(x), None if label is None else rows(label)

    def of_plain(self, consistency: float) -> 'Players':
        """These, or where their answers to augmented examples are held to those to examples as they
        are, the same without an augmentation: their game is of the latter (Zhao et al. 2021)."""
        return self._replace(augmentation=None) if consistency else self

    def latents(self, key: Key, num: int) -> Array:
        """z `[num, latent_channels]`."""
        return jax.random.normal(key, (num, self.latent_channels))

    def make(
        self,
        params: Mapping,
        model_state: Mapping,
        key: Key,
        num: int,
        label: Array | None,
        *,
        train: bool,
    ) -> tuple[Array, Tree]:
        """`num` examples of fresh latents, and the generator's state after them."""
        z_key, noise_key, mixing_key = jax.random.split(key, 3)
        z, rngs = self.latents(z_key, num), {'noise': noise_key}
        if not self.has_styles:
            return self.generate(params, model_state, z, label, train=train, rngs=rngs)
        w, state = self.styles(params, model_state, z, label, train=train)
        if train and self.style_mixing:
            w = self._mixed(params, model_state, w, label, mixing_key)
        return self.synthesize(params, model_state, w, train=train, rngs=rngs), state

    def generate(
        self, params: Mapping, model_state: Mapping, z: Array, label: Array | None, **options
    ) -> tuple[Array, Tree]:
        """Examples of z, and the generator's state after them."""
        return _apply(self.generator, params, model_state, GENERATOR, z, label, **options)

    def styles(
        self, params: Mapping, model_state: Mapping, z: Array, label: Array | None, *, train: bool
    ) -> tuple[Array, Tree]:
        """w `[B, layers, D]` of z, and the generator's state after it."""
        return self.generate(params, model_state, z, label, train=train, method='styles')

    def synthesize(
        self,
        params: Mapping,
        model_state: Mapping,
        w: Array,
        *,
        train: bool,
        rngs: Mapping | None = None,
    ) -> Array:
        """Examples of w; without a key for it no noise is added."""
        variables = {'params': params[GENERATOR], **model_state.get(GENERATOR, {})}
        return self.generator.apply(variables, w, train=train, rngs=rngs, method='synthesize')

    def mean_style(self, model_state: Mapping) -> Array:
        """The running mean of w: `[D]`."""
        return model_state[GENERATOR]['batch_stats']['w_mean']

    def judge(
        self, params: Mapping, model_state: Mapping, x: Array, label: Array | None, *, train: bool
    ) -> tuple[Array, Tree]:
        """Logits of x `[B]`, and the discriminator's state after them."""
        network = self.discriminator
        return _apply(network, params, model_state, DISCRIMINATOR, x, label, train=train)

    def judge_augmented(
        self, params: Mapping, model_state: Mapping, label: Array | None, key: Key
    ) -> Callable[[Array], tuple[Array, Tree]]:
        """`judge` of training, as a function of x, which it shows augmented."""

        def judge(x: Array) -> tuple[Array, Tree]:
            shown = self.augmented(model_state, x, key)
            return self.judge(params, model_state, shown, label, train=True)

        return judge

    def augmented(self, model_state: Mapping, x: Array, key: Key) -> Array:
        """x as the augmentation leaves it."""
        if self.augmentation is None:
            return x
        strength = jnp.float32(1)
        if self.augmentation.rule is not None:
            strength = model_state[AUGMENTATION]['strength']
        return self.augmentation.apply(x, key, strength)

    def _mixed(
        self, params: Mapping, model_state: Mapping, w: Array, label: Array | None, key: Key
    ) -> Array:
        """Some rows of w with another latent's from a layer on that is drawn for each."""
        z_key, which_key, layer_key = jax.random.split(key, 3)
        z = self.latents(z_key, len(w))
        other, _ = self.styles(params, model_state, z, label, train=False)
        mixes = jax.random.bernoulli(which_key, self.style_mixing, (len(w), 1))
        first = jax.random.randint(layer_key, (len(w), 1), 1, self.num_layers)
        taken = mixes & (jnp.arange(self.num_layers) >= first)
        return jnp.where(taken[..., None], other, w)


def _apply(
    network: nn.Module,
    params: Mapping,
    model_state: Mapping,
    player: str,
    *arguments,
    train: bool,
    **options,
) -> tuple[Array, Tree]:
    """What a player's network answers, and its state after it."""
    state = model_state.get(player, {})
    variables = {'params': params[player], **state}
    if not (train and state):
        return network.apply(variables, *arguments, train=train, **options), state
    return network.apply(variables, *arguments, train=train, mutable=list(state), **options)
