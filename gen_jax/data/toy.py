"""Points of the plane drawn from known densities: what a model should have learned can be computed.

    (1) mixtures     p(x) = mean_k N(x; c_k, s^2 I): 8gaussians on a circle, 25gaussians on a grid
    (2) rings        a point on one of three circles, plus noise:
                     p(x) = mean_R exp(-(r^2 + R^2) / (2 s^2)) I_0(r R / s^2) / (2 pi s^2),  r = |x|
    (3) moons        a point on one of two half circles, plus noise: the mean of N(x; c(a), s^2 I)
                     over the angles a, by Gauss-Legendre quadrature
    (4) checkerboard uniform on the dark squares of a 4 x 4 board
    (5) pinwheel     five Gaussian arms, x turned by an angle that grows with |x|; turning keeps
                     areas, so p(x) is the density of the arms at x turned back. (Johnson et al.
                     2016 turn by one coordinate, which has no density in closed form.)

Everything lies in [-1, 1]^2, but for tails below 1e-8. Densities are exact to rounding, in float64.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import special

from gen_jax.data.dataset import Arrays, Dataset, Description, Split, digest
from gen_jax.data.pixels import write_picture
from gen_jax.errors import InputError
from gen_jax.types import DataSpec

SUFFIXES = ('.png',)
_SPEC = DataSpec((2,))
_PICTURE = 256  # pixels on a side


class Law(NamedTuple):
    """A probability law on the plane.

    `sample(rng, n)` draws points `[n, 2]`; `log_density(x)` takes `[N, 2]` to nats `[N]`, both
    float64.
    """

    sample: Callable[[np.random.Generator, int], np.ndarray]
    log_density: Callable[[np.ndarray], np.ndarray]


class Mixture(NamedTuple):
    """Equation (1): centers c_k `[K, 2]`, float64, and the deviation s."""

    centers: np.ndarray
    deviation: float


def _mixture(centers: np.ndarray, deviation: float) -> Law:
    """Equation (1)."""

    def sample(rng, n):
        chosen = centers[rng.integers(len(centers), size=n)]
        return chosen + deviation * rng.normal(size=(n, 2))

    def log_density(x):
        squares = ((x[:, None] - centers) ** 2).sum(-1) / deviation**2
        logs = special.logsumexp(-0.5 * squares, axis=1) - np.log(len(centers))
        return logs - np.log(2 * np.pi * deviation**2)

    return Law(sample, log_density)


def _circle(num: int, radius: float) -> np.ndarray:
    angles = 2 * np.pi * np.arange(num) / num
    return radius * np.stack([np.cos(angles), np.sin(angles)], -1)


def _grid(num: int, reach: float) -> np.ndarray:
    line = np.linspace(-reach, reach, num)
    return np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)


def _rings(radii: tuple[float, ...], deviation: float) -> Law:
    """Equation (2)."""
    radii = np.array(radii)

    def sample(rng, n):
        angle, radius = rng.uniform(0, 2 * np.pi, n), radii[rng.integers(len(radii), size=n)]
        points = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], -1)
        return points + deviation * rng.normal(size=(n, 2))

    def log_density(x):
        r = np.linalg.norm(x, axis=1)[:, None]
        # i0e is I_0 without its exponential growth, which completes the square.
        bessel = np.log(special.i0e(r * radii / deviation**2))
        logs = bessel - 0.5 * ((r - radii) / deviation) ** 2
        return special.logsumexp(logs, axis=1) - np.log(len(radii) * 2 * np.pi * deviation**2)

    return Law(sample, log_density)


def _moons(radius: float, deviation: float) -> Law:
    """Equation (3)."""

    def curve(angle, lower):
        """Half circles that reach into each other, as scikit-learn's moons do."""
        x, y = np.cos(angle), np.sin(angle)
        x, y = np.where(lower, 1 - x, x), np.where(lower, 0.5 - y, y)
        return radius * np.stack([x - 0.5, y - 0.25], -1)

    def sample(rng, n):
        points = curve(rng.uniform(0, np.pi, n), rng.integers(2, size=n) == 1)
        return points + deviation * rng.normal(size=(n, 2))

    nodes, weights = np.polynomial.legendre.leggauss(400)
    angles = np.pi / 2 * (nodes + 1)
    centers = np.concatenate([curve(angles, lower) for lower in (False, True)])
    log_weights = np.log(np.tile(weights / 4, 2))  # they sum to 2 for each moon

    def log_density(x):
        squares = ((x[:, None] - centers) ** 2).sum(-1) / deviation**2
        logs = special.logsumexp(log_weights - 0.5 * squares, axis=1)
        return logs - np.log(2 * np.pi * deviation**2)

    return Law(sample, log_density)


def _checkerboard() -> Law:
    """Equation (4): squares of side 1/2, eight of sixteen."""

    def sample(rng, n):
        row, half = rng.integers(4, size=n), rng.integers(2, size=n)
        corner = np.stack([2 * half + row % 2, row], -1)
        return (corner + rng.uniform(size=(n, 2))) / 2 - 1

    def log_density(x):
        square = np.floor(2 * (x + 1))
        dark = ((square >= 0) & (square < 4)).all(-1) & (square.sum(-1) % 2 == 0)
        return np.where(dark, -np.log(8 / 4), -np.inf)

    return Law(sample, log_density)


def _pinwheel(arms: int, radius: float, along: float, across: float, turn: float) -> Law:
    """Equation (5): the arm's Gaussian lies at `radius` on the first axis."""
    arm_angles = 2 * np.pi * np.arange(arms) / arms

    def rotate(x, angle):
        cos, sin = np.cos(angle), np.sin(angle)
        return np.stack([cos * x[..., 0] - sin * x[..., 1], sin * x[..., 0] + cos * x[..., 1]], -1)

    def sample(rng, n):
        x = rng.normal(size=(n, 2)) * [along, across] + [radius, 0]
        return rotate(x, arm_angles[rng.integers(arms, size=n)] + turn * np.linalg.norm(x, axis=1))

    def log_density(x):
        back = -(arm_angles + turn * np.linalg.norm(x, axis=1)[:, None])
        u = (rotate(x[:, None], back) - [radius, 0]) / [along, across]
        logs = special.logsumexp(-0.5 * (u**2).sum(-1), axis=1)
        return logs - np.log(arms * 2 * np.pi * along * across)

    return Law(sample, log_density)


MIXTURES = {
    '8gaussians': Mixture(_circle(8, 0.7), 0.05),
    '25gaussians': Mixture(_grid(5, 0.8), 0.03),
}
LAWS = {
    **{name: _mixture(*mixture) for name, mixture in MIXTURES.items()},
    'rings': _rings((0.25, 0.5, 0.75), 0.03),
    'moons': _moons(0.5, 0.05),
    'checkerboard': _checkerboard(),
    'pinwheel': _pinwheel(5, 0.5, 0.08, 0.03, 4.0),
}


def load(
    *,
    source: str = 'synthetic',
    name: str | None = None,
    data_dir: str | None = None,
    num_train: int = 100_000,
    num_evaluation: int = 10_000,
) -> Dataset:
    """Points of the law `name`, one of `LAWS`, the same ones in every run.

    Raises:
      InputError: another source or name, a folder to read, or a split without points.
    """
    _check(source, name, data_dir, num_train, num_evaluation)
    train, evaluation = (
        LAWS[name].sample(np.random.default_rng((number, size)), size).astype(np.float32)
        for number, size in enumerate((num_train, num_evaluation))
    )
    log_density = LAWS[name].log_density
    return Dataset(_split(train), _split(evaluation), _SPEC, digest(train, evaluation), log_density)


def describe(
    *,
    source: str = 'synthetic',
    name: str | None = None,
    data_dir: str | None = None,
    num_train: int = 100_000,
    num_evaluation: int = 10_000,
) -> Description:
    """What `load` with the same arguments would make.

    Raises:
      InputError: as `load`.
    """
    _check(source, name, data_dir, num_train, num_evaluation)
    lines = (
        f'{name}: points of the plane, drawn in memory, of known density',
        f'{num_train:,} training and {num_evaluation:,} evaluation points',
    )
    return Description(_SPEC, True, lines)


def decode(x: np.ndarray, spec: DataSpec) -> np.ndarray:
    """Samples are points already: float32 `[N, 2]`."""
    return np.asarray(x, np.float32)


def write(points: np.ndarray, stem: Path, suffix: str = SUFFIXES[0]) -> Path:
    """A picture of where points lie, [-1, 1]^2 with y upward, and its path."""
    counts, _, _ = np.histogram2d(
        -points[:, 1], points[:, 0], bins=_PICTURE, range=((-1, 1), (-1, 1))
    )
    levels = 255 * np.sqrt(counts / max(counts.max(), 1))  # the root lets single points be seen
    return write_picture(levels.astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1), stem)


def _check(source: str, name: str | None, data_dir: str | None, *sizes: int) -> None:
    if source != 'synthetic':
        raise InputError(f"data.source: {source!r}; points are drawn, so it must be 'synthetic'")
    if name not in LAWS:
        raise InputError(f'data.name: no law {name!r}; choose from {", ".join(LAWS)}')
    if data_dir is not None:
        raise InputError(
            f'data.data_dir: {data_dir}; points are drawn, nothing is read; leave None'
        )
    if min(sizes) < 1:
        raise InputError(f'data.num_train, data.num_evaluation: {sizes} must be at least 1')


def _split(points: np.ndarray) -> Split:
    def fetch(indices: np.ndarray) -> Arrays:
        return {'x': points[indices]}

    return Split(len(points), fetch, lambda raw, bits: raw)
