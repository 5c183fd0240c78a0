"""The one idea: a generative method is a value, a few pure functions in a NamedTuple.

One trainer trains them all and never asks which family it holds. In each step it runs the phases
in order; a phase has the gradient of its loss with respect to `params[player]` alone, and that
player's optimizer applies it. A player that no phase names is frozen: it has no optimizer state,
yet it is in every checkpoint.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from gen_jax.errors import InputError
from gen_jax.types import Array, Batch, DataSpec, Key, Tree

# (params, state, batch, key) -> (scalar, (model_state, {name: scalar})).
# `params` holds every player; `state` is the whole TrainState, for its `step`, `ema_params` and
# `model_state`. The returned `model_state` keeps its structure, and its leaves are floats.
LossFn = Callable[[Mapping[str, Tree], Any, Batch, Key], tuple[Array, tuple[Tree, dict]]]


class Phase(NamedTuple):
    """One player's turn in a step.

    Metrics of turns of one player that have one name are those of the last of them.
    """

    player: str
    loss: LossFn
    every: int = 1  # runs on the steps divisible by this (lazy regularization)
    name: str | None = None  # stands before the names of its metrics


class Symptom(NamedTuple):
    """What a metric of training looks like when a run goes wrong though its numbers are finite."""

    metric: str  # '<player>/<name>'
    least: float  # below it something is wrong
    meaning: str  # what, and what may help


class Ratio(NamedTuple):
    """A column of evaluation whose mean is not over examples but over what they hold: the sum of
    `total` `[B]` divided by the sum of `count` `[B]`."""

    total: Array
    count: Array


class Perplexity(NamedTuple):
    """A column of evaluation: exp of the sum of `nats` `[B]` over the sum of `count` `[B]`."""

    nats: Array
    count: Array


class ActiveUnits(NamedTuple):
    """A column of evaluation: how many latent numbers say something of x. A number is active where
    its mean given x, of `means` `[B, D]`, has a variance above 0.01 over examples (Burda et al.
    2016)."""

    means: Array


class CodeUsage(NamedTuple):
    """A column of evaluation: the share of codes that occur in all examples together, of int32
    `codes` `[B, positions, depth]`, each below `num_codes` `[B]`, which is the same in all rows;
    the mean over the depth, whose codes are of codebooks of their own."""

    codes: Array
    num_codes: Array


class CodePerplexity(NamedTuple):
    """A column of evaluation: exp of the entropy of how often each code occurs in all examples
    together, of int32 `codes` `[B, positions, depth]`; the mean over the depth."""

    codes: Array


class ToldApart(NamedTuple):
    """A column of evaluation: the share of all pairs of a real and a made example in which the
    answer to the former, of `real` `[B]`, is higher than that to the latter, of `made` `[B]`; equal
    ones count half."""

    real: Array
    made: Array


Column = Array | Ratio | Perplexity | ActiveUnits | CodeUsage | CodePerplexity | ToldApart


class Codec(NamedTuple):
    """How a method turns examples into latents, and latents into examples.

    spec: of one example's latents: float32 of some shape, or tokens.
    encode: `(params, model_state, x, *, cond=None) -> z`, `[B, *spec.shape]`: the mean of q(z | x),
      or what a flow makes of the mean before it, or the only z that there is.
    draw: `(params, model_state, x, key, *, cond=None) -> (z, log q(z | x) [B])`, the latter 0 where
      z is tokens, and None where z is continuous and the only one that there is, so that it has no
      density and no bound follows from it.
    decode: `(params, model_state, z, *, cond=None) -> x`, what is shown for z.
    log_prob: `(params, model_state, x, z, *, cond=None) -> log p(x | z) [B]`, in nats.
    is_mass: whether `log_prob` is of discrete levels, or else a density.
    num_classes: the labels that all of them take as `cond`; None if they take none.
    vectors: where z is tokens, the same with the vectors that they are made of as z, which
      `decode` and `log_prob` quantize; None where there are none.
    """

    spec: DataSpec
    encode: Callable[..., Array]
    draw: Callable[..., tuple[Array, Array]]
    decode: Callable[..., Array]
    log_prob: Callable[..., Array]
    is_mass: bool
    num_classes: int | None = None
    vectors: 'Codec | None' = None


class LatentSpace(NamedTuple):
    """The latents that a method without an encoder draws examples from: `w`, `num_layers` vectors.

    draw: `(params, model_state, key, num, *, cond=None) -> w [num, num_layers, D]`, float32; `num`
      is static.
    decode: `(params, model_state, w, *, cond=None) -> x`, without anything random.
    mean: `(params, model_state) -> [num_layers, D]`, the mean of w.
    num_layers: how many vectors the decoder takes, from the coarsest to the finest; 1 where it has
      no styles.
    is_normal: whether w is drawn from N(0, I), so that nearly all of it lies near a sphere.
    num_classes: the labels that `draw` and `decode` take as `cond`; None if they take none.
    """

    draw: Callable[..., Array]
    decode: Callable[..., Array]
    mean: Callable[..., Array]
    num_layers: int
    is_normal: bool
    num_classes: int | None = None


class Method(NamedTuple):
    """A generative method.

    init: `(key, batch) -> (params: {player: tree}, model_state: dict)`.
    phases: run in order, once per step.
    sample: `(params, model_state, key, num, *, cond=None, **options) -> x`, `[num, ...]` of the
      data's spec; `num` and the options are static. None for a method that draws nothing. One that
      completes examples takes `given`, too: `(x, known)`, x `[num, ...]` and bool that broadcasts
      to it; what is known stays.
    evaluate: `(params, model_state, batch, key, **options) -> {name: Column}`: one value per
      example, `[B]`, whose mean is the number, or another kind of column.
    estimators: what each of evaluate's values is: 'exact', 'upper bound ...' or 'estimate ...'.
    averaged: the players that keep an exponential moving average of their parameters.
    num_classes: the labels that `sample` takes as `cond`; None if it takes none.
    nfe: `(**options of sample) -> int`, network evaluations for one sample; None where `sample` is.
    predictor: `(params) -> samplers.tokens.Predictor`, for a method that draws token after token,
      each given those before; None for others.
    networks: `{player: module}`, for a method whose networks can leave the house; see
      `huggingface/`.
    codec: of a method that encodes examples; None for others.
    latents: of a method that draws examples from latents and encodes none; None for others.
    learns_unlabeled: whether the label of an example that it trains on may be -1, unknown.
    symptoms: of training that goes wrong; see `symptoms.py`.
    batch_parts: in how many parts of as many examples its phases take a batch.
    """

    init: Callable[[Key, Batch], tuple[dict, dict]]
    phases: tuple[Phase, ...]
    sample: Callable[..., Array] | None
    evaluate: Callable[..., dict]
    estimators: Mapping[str, str]
    averaged: tuple[str, ...]
    num_classes: int | None = None
    nfe: Callable[..., int] | None = None
    predictor: Callable[..., Any] | None = None
    networks: Mapping[str, Any] | None = None
    codec: Codec | None = None
    latents: LatentSpace | None = None
    learns_unlabeled: bool = False
    symptoms: tuple[Symptom, ...] = ()
    batch_parts: int = 1

    @property
    def trained(self) -> tuple[str, ...]:
        """The players that some phase trains, in order of first appearance."""
        return tuple(dict.fromkeys(phase.player for phase in self.phases))

    def updates_per_step(self, player: str) -> float:
        """How often its parameters are updated in a step, on average."""
        return sum(1 / phase.every for phase in self.phases if phase.player == player)


def check_players(networks: Mapping[str, Any], players: tuple[str, ...]) -> None:
    """Raises InputError unless there is a network for each of a method's players and no other."""
    if set(networks) != set(players):
        raise InputError(
            f'networks: has sections for {sorted(networks)}, and this method plays with '
            f'{sorted(players)}'
        )


def check_numbers(spec: DataSpec) -> None:
    """Raises InputError for data of tokens, to a method that is for numbers."""
    if spec.vocab_size is not None:
        raise InputError(
            'method.name: this method is for numbers, such as those of images, and examples are '
            "tokens; use 'autoregressive.autoregressive'"
        )


def check_label(cond: Array | None, num_classes: int | None) -> None:
    """Raises InputError unless labels are given to a model that takes them, and only to one."""
    if (cond is None) != (num_classes is None):
        raise InputError(
            'label: this model was trained without labels'
            if num_classes is None
            else f'label: this model needs labels of its {num_classes} classes'
        )
