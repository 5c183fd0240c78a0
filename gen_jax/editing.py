"""Pictures of a latent space: `--mode=sample --edit=...`.

reconstruct   rows of examples, and below each row what the decoder makes of their latents
interpolate   each row goes from one example to another, evenly along the line between their
              latents; its ends are their reconstructions. A decoder that is told classes
              gets two examples of one class
traverse      each row changes one latent number of the first example, from three deviations
              below its mean over examples to three above, the numbers that vary most first
"""

from collections.abc import Callable

import numpy as np

from gen_jax.coding import codec_of, decoder, encoder
from gen_jax.errors import InputError
from gen_jax.given import Examples
from gen_jax.run import Run
from gen_jax.state import TrainState

EDITS = ('reconstruct', 'interpolate', 'traverse')
_DEVIATIONS = 3.0
# Examples whose latents say how far the numbers vary.
NUM_SEEN = 512


def make_editor(run: Run, kind: str, num: int, batch_size: int) -> Callable[..., np.ndarray]:
    """A function `(state, examples) -> x`, about `num` examples for a square grid.

    Raises:
      InputError: an edit that there is not, latents that have nothing between them, or too few to
        show.
    """
    if kind not in EDITS:
        raise InputError(f'--edit: no {kind!r}; choose from {", ".join(EDITS)}')
    codec = codec_of(run)
    if kind != 'reconstruct' and codec.spec.vocab_size is not None:
        raise InputError(f'--edit: {kind!r} needs latents that are numbers, and these are codes')
    side = grid_side(num)
    encode, decode = encoder(run, batch_size), decoder(run, batch_size)

    def edit(state: TrainState, examples: Examples) -> np.ndarray:
        x, label = examples.x, examples.label
        if kind == 'reconstruct':
            return pairs_of_rows(
                examples, side, lambda x, label: decode(state, encode(state, x, label), label)
            )
        if kind == 'interpolate':
            _check_several(x, kind)
            these = _pairs(label if codec.num_classes is not None else None, len(x), side)
            x, label = x[these], None if label is None else label[these]
            z = encode(state, x, label)
            share = np.linspace(0, 1, side, dtype=np.float32).reshape(-1, *(1,) * (z.ndim - 1))
            path = z[0::2, None] * (1 - share) + z[1::2, None] * share
            told = None if label is None else np.repeat(label[0::2], side)
        else:
            _check_several(x, kind)
            z = encode(state, x, label)
            path = _traversal(z.reshape(len(z), -1), side).reshape(-1, *z.shape[1:])
            told = None if label is None else np.repeat(label[:1], len(path))
        return decode(state, path.reshape(-1, *z.shape[1:]), told)

    return edit


def grid_side(num: int) -> int:
    """The side of the largest square grid of at most `num` places.

    Raises:
      InputError: that is 1, or none.
    """
    side = int(np.sqrt(max(num, 0)))
    if side < 2:
        raise InputError(f'--num: {num}; an edit is a grid of at least 2 x 2')
    return side


def pairs_of_rows(examples: Examples, side: int, back: Callable[..., np.ndarray]) -> np.ndarray:
    """Rows of `side` examples, and below each row what `back(x, label)` makes of them; the first
    examples again where there are too few for a square."""
    num = side * (side // 2)
    x, label = examples.x[:num], None if examples.label is None else examples.label[:num]
    these = np.arange(num) % len(x)
    rows = [images[these].reshape(-1, side, *x.shape[1:]) for images in (x, back(x, label))]
    return np.stack(rows, 1).reshape(-1, *x.shape[1:])


def _check_several(x: np.ndarray, kind: str) -> None:
    """Raises InputError for one example alone, between which and itself there is nothing."""
    if len(x) < 2:
        raise InputError(f'--given: {kind!r} needs several examples, and this is one')


def _pairs(label: np.ndarray | None, num: int, num_pairs: int) -> np.ndarray:
    """The numbers of so many pairs of `num` examples, one after the other, of one class each."""
    if label is None:
        return np.arange(2 * num_pairs) % num
    waiting, found = {}, []
    for number in range(num):
        kind = int(label[number])
        if kind in waiting:
            found += [waiting.pop(kind), number]
        else:
            waiting[kind] = number
    return np.resize(found or [0, 0], 2 * num_pairs)  # there may be no two of one class


def _traversal(z: np.ndarray, side: int) -> np.ndarray:
    """The first row of z `[N, D]`, with one of its numbers changed: `[rows * side, D]`."""
    mean, deviation = z.mean(0), z.std(0)
    chosen = np.argsort(-deviation, kind='stable')[:side]
    path = np.repeat(z[:1], len(chosen) * side, 0).reshape(len(chosen), side, -1)
    steps = np.linspace(-_DEVIATIONS, _DEVIATIONS, side)
    for row, number in zip(path, chosen, strict=True):
        row[:, number] = mean[number] + steps * deviation[number]
    return path.reshape(-1, z.shape[1])
