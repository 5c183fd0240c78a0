"""Pictures of the latents that a method draws from: `--mode=sample --edit=...` where there is no
encoder. Where there is one, see `editing.py`.

interpolate   each row goes from one drawn latent to another: along the line between them, or where
              they are normal along the arc (Shoemake 1985), for between two of them a line runs
              through latents shorter than any that is drawn
traverse      each row moves one drawn latent along one direction, from two deviations below it to
              two above. Directions are the principal components of what is drawn, the largest
              first (GANSpace, Haerkoenen et al. 2020, arXiv:2004.02546). Normal latents have none:
              there directions are those that the examples follow most, the singular vectors of
              the matrix A of the regression G(w) = A w + b + error, by their singular values
mix           the first row and the first column are drawn; between them each picture has the
              coarse half of the layers of its column, and the fine half, of its row (Karras
              et al. 2019, arXiv:1812.04948). In the corner is what the mean latent makes
project       rows of given examples, and below each row what their projections make; see
              `projection.py`. Their likeness goes to stderr
A generator that is told classes gets one for each row, in turn, or the one of --label, which
directions are then of, too, and else of all classes together; examples that are projected have
their own.
"""

import functools
import sys
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gen_jax import hosts
from gen_jax.coding import batched, in_batches
from gen_jax.editing import grid_side, pairs_of_rows
from gen_jax.errors import InputError
from gen_jax.given import Examples
from gen_jax.projection import make_projector
from gen_jax.run import Run, labels_for
from gen_jax.state import TrainState, sampling_params
from gen_jax.types import Key

_NUM_STEPS = 500  # of a projection
_DEVIATIONS = 2.0
# Latents whose directions and deviations are measured, and how many of them are decoded at a time.
_NUM_DRAWN, _CHUNK = 4096, 512
_SMALLEST_ERROR = 1e-10  # that is told from none
_OPPOSITE = -1 + 1e-6  # the cosine of directions that are taken for nearly so


class _Model(NamedTuple):
    """A trained method, its weights bound.

    draw: `(key, label [N] or None, num) -> w [N, num_layers, D]`, `num` of them.
    decode: `(w, label) -> x`.
    labels: `(num) -> int32 [num]` or None, the classes of so many rows.
    mean: of w, `[num_layers, D]`.
    is_normal: whether w is drawn from N(0, I).
    """

    draw: Callable[..., np.ndarray]
    decode: Callable[..., np.ndarray]
    labels: Callable[[int], np.ndarray | None]
    mean: np.ndarray
    is_normal: bool


def make_explorer(
    run: Run,
    kind: str,
    num: int,
    batch_size: int,
    label: int | None = None,
    num_steps: int | None = None,
) -> Callable[..., np.ndarray]:
    """A function `(state, key, examples) -> x`, about `num` examples for a square grid; `examples`
    are those that are projected, else None.

    Args:
      run: of a method with `latents`.
      kind: what is shown, one of those above.
      num: places of the grid.
      batch_size: latents that are decoded at a time.
      label: the class of all; None for all in turn.
      num_steps: of a projection; None for 500.

    Raises:
      InputError: an edit or a label that there is not, too few places, no step, or layers to mix
        where there is one.
    """
    latents = run.method.latents
    kinds = (*_GRIDS, 'project')
    if kind not in kinds:
        can = ', '.join(kind for kind in kinds if kind != 'mix' or latents.num_layers > 1)
        raise InputError(f'--edit: no {kind!r}; choose from {can}')
    if kind == 'mix' and latents.num_layers == 1:
        raise InputError(
            "--edit: 'mix' needs a generator with a style for each layer, and all layers of this "
            'one have the same latent; use interpolate'
        )
    if num_steps is not None and num_steps < 1:
        raise InputError(f'--steps: {num_steps} must be at least 1')
    side = grid_side(num)
    labels_for(run, 1, label)

    def explore(state: TrainState, key: Key, examples: Examples | None = None) -> np.ndarray:
        model = _bind(run, state, batch_size, label)
        if kind != 'project':
            return model.decode(*_GRIDS[kind](model, side, key))
        back = functools.partial(
            _projections, run, state, model, batch_size, key, num_steps or _NUM_STEPS
        )
        return pairs_of_rows(examples, side, back)

    return explore


def _bind(run: Run, state: TrainState, batch_size: int, label: int | None) -> _Model:
    latents, weights = run.method.latents, (sampling_params(state), state.model_state)
    whole = {'out_shardings': run.parallel.replicated}

    @functools.cache
    def drawing(num: int) -> Callable:
        return run.parallel.jit(functools.partial(latents.draw, num=num), **whole)

    def draw(key: Key, labels: np.ndarray | None, num: int) -> np.ndarray:
        told = {} if latents.num_classes is None else {'cond': jnp.asarray(labels)}
        return hosts.to_host(drawing(num)(*weights, key, **told))

    decode = batched(run, latents.decode, batch_size, latents.num_classes is not None)
    mean = hosts.to_host(run.parallel.jit(latents.mean, **whole)(*weights))
    labels = functools.partial(labels_for, run, label=label)
    return _Model(draw, functools.partial(decode, state), labels, mean, latents.is_normal)


def _interpolation(model: _Model, side: int, key: Key) -> tuple[np.ndarray, np.ndarray | None]:
    """The latents of the grid, row by row, and their classes; so do those that follow."""
    labels = model.labels(side)
    w = model.draw(key, _each(labels, 2), 2 * side)
    share = np.linspace(0, 1, side, dtype=np.float32)[:, None, None]
    start, end = w[0::2, None], w[1::2, None]
    path = slerp(start, end, share) if model.is_normal else start + share * (end - start)
    return path.reshape(-1, *w.shape[1:]), _each(labels, side)


def _traversal(model: _Model, side: int, key: Key) -> tuple[np.ndarray, np.ndarray | None]:
    key, key_of_many = jax.random.split(key)
    told = model.labels(_NUM_DRAWN)
    many = model.draw(key_of_many, told, _NUM_DRAWN)
    if model.is_normal:
        found = followed(many, lambda part: model.decode(many[part], _part(told, part)))[:side]
    else:
        found = components(many, side)
    labels = model.labels(len(found))
    # The same key for each row: one latent, and where classes are told, that of the row's class.
    classes = [None] * len(found) if labels is None else labels[:, None]
    start = np.stack([model.draw(key, of_row, 1) for of_row in classes])
    steps = np.linspace(-_DEVIATIONS, _DEVIATIONS, side, dtype=np.float32)[:, None, None]
    path = start + steps * found[:, None]
    return path.reshape(-1, *many.shape[1:]), _each(labels, side)


def _mixture(model: _Model, side: int, key: Key) -> tuple[np.ndarray, np.ndarray | None]:
    labels, num = model.labels(side - 1), side - 1
    columns, rows = (model.draw(its, labels, num) for its in jax.random.split(key))
    coarse = len(model.mean) // 2
    grid = np.empty((side, side, *model.mean.shape), np.float32)
    grid[0, 0], grid[0, 1:], grid[1:, 0] = model.mean, columns, rows
    grid[1:, 1:, :coarse] = columns[None, :, :coarse]
    grid[1:, 1:, coarse:] = rows[:, None, coarse:]
    told = None
    if labels is not None:
        told = np.empty((side, side), np.int32)
        told[0, 0], told[0, 1:], told[1:] = labels[0], labels, labels[:, None]
        told = told.reshape(-1)
    return grid.reshape(-1, *model.mean.shape), told


_GRIDS = {'interpolate': _interpolation, 'traverse': _traversal, 'mix': _mixture}


def _part(labels: np.ndarray | None, part: slice) -> np.ndarray | None:
    return None if labels is None else labels[part]


def _each(labels: np.ndarray | None, times: int) -> np.ndarray | None:
    """Each label so many times in a row."""
    return None if labels is None else np.repeat(labels, times)


def _projections(
    run: Run,
    state: TrainState,
    model: _Model,
    batch_size: int,
    key: Key,
    num_steps: int,
    x: np.ndarray,
    label: np.ndarray | None,
) -> np.ndarray:
    """What the projections of x make, after a line that says how near it is."""
    latents = run.method.latents
    drawn = model.draw(key, model.labels(_NUM_DRAWN), _NUM_DRAWN)
    deviation = float(np.sqrt(np.square(drawn - model.mean).mean()))

    def decode(weights, w):
        params, model_state, cond = weights
        w = jax.lax.with_sharding_constraint(w, run.parallel.batch_sharding)
        return latents.decode(params, model_state, w, cond=cond)

    project = make_projector(
        decode, model.mean, deviation, num_steps, latents.is_normal, run.parallel.jit
    )

    def find(params, model_state, x, *, cond=None):
        return project((params, model_state, cond), x)

    find = in_batches(run, find, min(batch_size, len(x)), latents.num_classes is not None)
    back = model.decode(find(state, x, label), label)
    if hosts.is_first():
        print(f'mean PSNR of {len(x)} projections: {psnr(back, x).mean():.2f} dB', file=sys.stderr)
    return back


def psnr(x: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Decibels of numbers in [-1, 1], `[N]`: ten for each tenth of the squared error, which is 0 dB
    where it is that of black and white."""
    errors = (np.clip(x, -1, 1) - target).reshape(len(x), -1)
    return -10 * np.log10(np.maximum(np.square(errors).mean(1) / 4, _SMALLEST_ERROR))


def slerp(start: np.ndarray, end: np.ndarray, share: np.ndarray) -> np.ndarray:
    """What lies so far on the way between vectors `[..., D]`: its direction on the arc of the great
    circle (Shoemake 1985), its length on the line."""
    lengths = [np.linalg.norm(w, axis=-1, keepdims=True) for w in (start, end)]
    units = [w / length for w, length in zip((start, end), lengths, strict=True)]
    # Between opposite directions all arcs are alike, and no formula chooses one.
    cosine = np.clip(np.sum(units[0] * units[1], -1, keepdims=True), _OPPOSITE, 1)
    angle = np.arccos(cosine)
    # sin(share angle) / sin(angle), which is `share` where the angle is 0.
    weights = [s * np.sinc(s * angle / np.pi) / np.sinc(angle / np.pi) for s in (1 - share, share)]
    direction = weights[0] * units[0] + weights[1] * units[1]
    return ((1 - share) * lengths[0] + share * lengths[1]) * direction


def components(w: np.ndarray, num: int) -> np.ndarray:
    """The principal components of w `[N, num_layers, D]`, each as long as the deviation of w along
    it, the longest first: `[num, num_layers, D]`, or as many as there are.

    Where the layers of each w are alike, as those of one style are, so are those of a component.
    """
    from sklearn.decomposition import PCA

    alike = np.array_equal(w, np.broadcast_to(w[:, :1], w.shape))
    rows = w[:, 0] if alike else w.reshape(len(w), -1)
    found = PCA(min(num, *rows.shape), random_state=0).fit(rows)
    scaled = found.components_ * np.sqrt(found.explained_variance_)[:, None]
    scaled = scaled.reshape(len(scaled), -1, w.shape[-1]).astype(np.float32)
    return np.broadcast_to(scaled, (len(scaled), *w.shape[1:]))


def followed(z: np.ndarray, decode: Callable[[slice], np.ndarray]) -> np.ndarray:
    """The directions that `decode` of z `[N, 1, D]` follows most, by linear regression: vectors of
    length 1 at right angles to each other, the first the most, `[D, 1, D]`.

    `decode` makes the examples of a part of z.
    """
    rows = z[:, 0] - z[:, 0].mean(0)
    products = 0.0
    for first in range(0, len(rows), _CHUNK):
        part = slice(first, first + _CHUNK)
        x = decode(part)
        products += rows[part].T @ x.reshape(len(x), -1)
    slopes = np.linalg.solve(rows.T @ rows, products)
    _, directions = np.linalg.eigh(slopes @ slopes.T)
    return directions.T[::-1, None]
