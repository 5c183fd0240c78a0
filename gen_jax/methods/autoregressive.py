"""Autoregressive models: a sequence is predicted token after token, so its likelihood is exact.

    (1) log p(x) = sum_t log p(x_t | x_<t)
    (2) loss = -log p, in nats per token

Text and music come as windows of documents. A token is then given those before it in its window,
and the one that stood before the window; the sum of (1) over windows that cover a text once is a
likelihood of the text by a model that sees no further back. Images become one token for each level
of each pixel's channels, row after row, and (1) is the likelihood of the whole image.

What stands before the first token is the start token of documents; for images, and for tokens that
are the codes of something, one that no example has, or one for each class where the model is told
the class (Chen et al. 2020).
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from gen_jax.errors import InputError
from gen_jax.losses import likelihood
from gen_jax.methods.method import Method, Perplexity, Phase, Ratio, check_label, check_players
from gen_jax.samplers import tokens as samplers
from gen_jax.samplers.beam_search import beam_search, check_search
from gen_jax.types import Array, Batch, DataSpec, Key


def autoregressive(
    networks: Mapping[str, Callable],
    spec: DataSpec,
    *,
    class_conditional: bool = False,
    separate_documents: bool = False,
) -> Method:
    """An autoregressive model of data of this `spec`: tokens, or images of few levels.

    Args:
      networks: `{'model': factory}`; the factory's module is called as
        `(tokens, segments=, cache=, start=, train=)`; see `networks/transformer.py`.
      spec: tokens `[L]`, or images with levels.
      class_conditional: whether images, or tokens that are of no documents, are given their label.
      separate_documents: whether a token is kept from seeing documents before its own, where
        several share a window; then each sample is one document, or its beginning.

    Raises:
      InputError: data that is not made of tokens or levels, or an option that it has no use for.
    """
    is_tokens = spec.vocab_size is not None
    if not is_tokens and (spec.levels is None or spec.dequantized):
        raise InputError(
            'method: an autoregressive model needs tokens, or images whose pixels are levels; '
            'this data is continuous' + '; set data.dequantize to False' * spec.dequantized
        )
    if class_conditional and (spec.num_classes is None or spec.start_token is not None):
        raise InputError('method.class_conditional: this data has no labels; set it to False')
    if separate_documents and spec.start_token is None:
        raise InputError('method.separate_documents: this data has no documents; set it to False')
    check_players(networks, ('model',))
    vocab_size = spec.vocab_size if is_tokens else spec.levels
    num_classes = spec.num_classes if class_conditional else None
    num_starts = 0 if spec.start_token is not None else (num_classes or 1)
    length = int(np.prod(spec.shape))
    network = networks['model'](vocab_size=vocab_size + num_starts, context=length)
    model = Model(network, spec, vocab_size, length, num_classes, separate_documents)
    return Method(
        init=functools.partial(_init, model),
        phases=(Phase('model', functools.partial(_loss, model)),),
        sample=functools.partial(_sample, model),
        evaluate=functools.partial(_evaluate, model),
        estimators=estimators(model),
        averaged=('model',),
        num_classes=num_classes,
        nfe=lambda **options: length,
        predictor=functools.partial(predictor, model),
        networks={'model': network},
    )


class Model(NamedTuple):
    """A network and what its tokens are; parameters come and go as arguments."""

    network: nn.Module
    spec: DataSpec
    vocab_size: int  # of the data: the network's own has a row for each start besides
    length: int
    num_classes: int | None  # None: the network is told no labels
    separate_documents: bool

    def tokens(self, x: Array) -> Array:
        """Examples `[B, ...]` as tokens int32 `[B, L]`."""
        if self.spec.vocab_size is not None:
            return x
        levels = jnp.round((x + 1) / 2 * (self.spec.levels - 1)).astype(jnp.int32)
        return levels.reshape(len(x), self.length)

    def examples(self, tokens: Array) -> Array:
        """The inverse of `tokens`."""
        if self.spec.vocab_size is not None:
            return tokens
        x = tokens.astype(jnp.float32) / (self.spec.levels - 1) * 2 - 1
        return x.reshape(len(tokens), *self.spec.shape)

    def starts(self, num: int, label: Array | None) -> Array:
        """What stands before the first tokens of `num` examples: int32 `[num]`."""
        if self.spec.start_token is not None:
            return jnp.full((num,), self.spec.start_token, jnp.int32)
        if self.num_classes is None:
            return jnp.full((num,), self.vocab_size, jnp.int32)
        return self.vocab_size + label.astype(jnp.int32)

    def nats(self, params: Mapping, batch: Batch, **options) -> Array:
        """-log p of each token given those before: `[B, L]`, equation (1)."""
        x = self.tokens(batch['x'])
        before = batch['before'] if 'before' in batch else self.starts(len(x), batch.get('label'))
        given = jnp.concatenate([before[:, None], x[:, :-1]], 1)
        segments = None
        if self.separate_documents:
            segments = jnp.cumsum(given == self.spec.start_token, 1)
        variables = {'params': params['model']}
        logits = self.network.apply(variables, given, segments=segments, **options)
        return likelihood.categorical_nats(logits[..., : self.vocab_size], x)


def _init(model: Model, key: Key, batch: Batch) -> tuple[dict, dict]:
    x = jnp.zeros((1, 1), jnp.int32)  # parameters do not depend on the length
    segments = x if model.separate_documents else None  # a network that cannot says so now
    return {'model': model.network.init(key, x, segments=segments, train=False)['params']}, {}


def _loss(
    model: Model, params: Mapping, state, batch: Batch, key: Key
) -> tuple[Array, tuple[dict, dict]]:
    nats = model.nats(params, batch, train=True, rngs={'dropout': key})
    value = jnp.mean(nats)
    if 'weight' in batch:
        value = jnp.sum(nats * batch['weight']) / jnp.sum(batch['weight'])
    return value, (state.model_state, {'loss': value})


def _evaluate(
    model: Model, params: Mapping, model_state: Mapping, batch: Batch, key: Key
) -> dict[str, Array | Ratio | Perplexity]:
    nats = model.nats(params, batch, train=False)
    if model.spec.start_token is None:
        total = likelihood.sum_per_example(nats)
        bits = likelihood.bits_per_dim(total, model.length)
        return {'loss': total / model.length, 'bits_per_dim': bits}
    total = likelihood.sum_per_example(nats * batch['weight'])
    number = likelihood.sum_per_example(batch['weight'])
    values = {
        'loss': Ratio(total, number),
        'bits_per_token': Ratio(total / math.log(2), number),
        'perplexity': Perplexity(total, number),
    }
    for index, unit in enumerate(model.spec.units):
        number = batch['counts'][:, index]
        values[f'nats_per_{unit}'] = Ratio(total, number)
        values[f'bits_per_{unit}'] = Ratio(total / math.log(2), number)
    return values


def predictor(model: Model, params: Mapping) -> samplers.Predictor:
    """The network as decoding sees it."""
    network, own = model.network.for_decoding(params['model'])

    def read(tokens: Array, cache, start: Array):
        logits, cache = network.apply({'params': own}, tokens, cache=cache, start=start)
        return logits[..., : model.vocab_size], cache

    caches = network.init_cache, network.grow_cache
    return samplers.Predictor(read, *caches, model.vocab_size, model.length)


def _sample(
    model: Model,
    params: Mapping,
    model_state: Mapping,
    key: Key,
    num: int,
    *,
    cond: Array | None = None,
    given: tuple[Array, Array] | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    repetition_penalty: float = 1.0,
    num_beams: int | None = None,
    length_penalty: float | None = None,
) -> Array:
    check_label(cond, model.num_classes)
    # Where documents are kept apart, one ends what is drawn, and ends fill the rest.
    stop = (model.spec.start_token,) if model.separate_documents else ()
    tokens = jnp.full((num, model.length), stop[0] if stop else 0, jnp.int32)
    known = jnp.zeros((num, model.length), bool)
    if given is not None:
        x, known = given
        known = jnp.broadcast_to(known, x.shape).reshape(tokens.shape)
        tokens = jnp.where(known, model.tokens(x), tokens)
    separator = None if given is None else model.spec.start_token
    rules = samplers.Rules(repetition_penalty, temperature, top_k, top_p, min_p, stop, separator)
    samplers.check(rules)
    check_search(rules, num_beams, length_penalty)
    start = model.starts(num, cond)[:, None]
    tokens = jnp.concatenate([start, tokens], 1)
    known = jnp.concatenate([jnp.ones_like(known[:, :1]), known], 1)
    predict = predictor(model, params)
    if num_beams is None:
        drawn = samplers.generate(predict, tokens, known, key, rules)
    else:
        search = {'num_beams': num_beams, 'length_penalty': length_penalty, 'stop': stop}
        drawn = beam_search(predict, tokens, known, **search)
    return model.examples(drawn[:, 1:])


def estimators(model: Model) -> dict[str, str]:
    """What each number of `evaluate` is."""
    if model.spec.start_token is None:
        p = 'p(x | label)' if model.num_classes is not None else 'p(x)'
        return {
            'loss': f'exact (-log {p}, nats per dimension)',
            'bits_per_dim': f'exact (-log2 {p}, per dimension)',
        }
    seen = 'given what it sees before it in its window'
    values = {
        'loss': f'exact (-log p of a token {seen}; nats per token)',
        'bits_per_token': f'exact (-log2 p of a token {seen})',
        'perplexity': f'exact (exp of the mean of -log p of a token {seen})',
    }
    for unit in model.spec.units:
        values[f'nats_per_{unit}'] = f'exact (-log p of each token {seen}; per {unit})'
        values[f'bits_per_{unit}'] = f'exact (-log2 p of each token {seen}; per {unit})'
    return values
