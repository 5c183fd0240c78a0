"""Normalizing flows of vectors: invertible maps x -> y whose Jacobian's determinant is known.

    (1) log p(x) = log p(y(x)) + log |det dy/dx|,   log |det dx/dy| = -log |det dy/dx|

A coupling layer (Dinh, Sohl-Dickstein & Bengio 2017, RealNVP) keeps one half of the coordinates,
and moves each of the others by a monotone map f whose parameters are a network's of the kept ones:

    (2) y_a = x_a,   y_b = f(x_b; NN(x_a, context)),   log det = sum_b log f'(x_b)
    (3) RealNVP        f(x) = x exp(s) + t,   s = 2 tanh(r / 2), so that |s| < 2
    (4) SplineFlow     f a rational-quadratic spline (Durkan et al. 2019); see `splines.py`

The next layer moves the other half. Each further pair of layers has other halves, those of the
coordinates' order after one more perfect shuffle, so that after log2 D pairs any two coordinates
have once been in different halves.

An inverse autoregressive flow (Kingma et al. 2016, IAF) moves every coordinate, given those before
it, by the gated form of its equations 13 and 14:

    (5) (m, g) = NN(x, context), m_i and g_i of x_1 .. x_{i-1} only
        y = sigmoid(g) x + (1 - sigmoid(g)) m,   log det = sum_i log sigmoid(g_i)

in every other layer from the last coordinate to the first. NN is masked (Germain et al. 2015,
MADE): a hidden unit of degree d sees the first d coordinates, through units of a degree of at most
d, and the output of coordinate i sees the units of a degree below i.

The networks compute in `dtype`; x, y and log det are float32 whatever it says.
"""

import functools
import math
from collections.abc import Callable, Iterable

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from gen_jax.errors import InputError
from gen_jax.networks.layers import INTO_BRANCH, OUT_OF_BRANCH, dense, zero_init
from gen_jax.networks.rearrange import flat_matmul
from gen_jax.networks.splines import rational_quadratic
from gen_jax.types import Array

lecun_init = nn.initializers.lecun_normal()

_LOG_SCALE_LIMIT = 2.0
# Added to g: at the start a layer passes sigmoid(2) = 0.88 of x on, as the paper advises.
_OPEN_GATE = 2.0


class Flow(nn.Module):
    """Equation (1) through the layers `self.block` of a flow, which are named `block_<i>`."""

    def __call__(self, x: Array, context: Array | None = None) -> tuple[Array, Array]:
        """x `[..., D]`, of any context `[..., C]` that broadcasts over its leading axes, to
        y `[..., D]` and log |det dy/dx| `[...]`."""
        return _compose(self.block, x, context)

    def inverse(self, y: Array, context: Array | None = None) -> tuple[Array, Array]:
        """y `[..., D]` to x `[..., D]` and log |det dx/dy| `[...]`."""
        inverses = [layer.inverse for layer in reversed(self.block)]
        return _compose(inverses, y, context)

    def _check_sizes(self) -> None:
        for field in ('num_layers', 'width'):
            if getattr(self, field) < 1:
                raise InputError(f'{field}: {getattr(self, field)} must be at least 1')


class RealNVP(Flow):
    """`num_layers` layers of equations (2) and (3), with networks of two hidden layers of `width`.
    It starts as the identity.

    Raises:
      InputError: fields that make no flow, or vectors of fewer than two numbers.
    """

    num_layers: int = 8
    width: int = 128
    dtype: str = 'float32'

    def __post_init__(self):
        self._check_sizes()
        super().__post_init__()

    def setup(self):
        make = functools.partial(Coupling, affine, 2, self.width, dtype=self.dtype)
        self.block = [make(layer=i) for i in range(self.num_layers)]


class SplineFlow(Flow):
    """`num_layers` layers of equations (2) and (4), of `num_bins` bins between -`bound` and
    `bound`, with networks of two hidden layers of `width`. It starts as the identity.

    Raises:
      InputError: fields that make no flow, or vectors of fewer than two numbers.
    """

    num_layers: int = 4
    width: int = 128
    num_bins: int = 8
    bound: float = 5.0
    dtype: str = 'float32'

    def __post_init__(self):
        self._check_sizes()
        if self.num_bins < 2:
            raise InputError(f'num_bins: {self.num_bins} must be at least 2: one bin cannot bend')
        if not 0 < self.bound < math.inf:
            raise InputError(f'bound: {self.bound} must be above 0, and finite')
        super().__post_init__()

    def setup(self):
        spline = functools.partial(rational_quadratic, bound=self.bound)
        outputs = 3 * self.num_bins - 1
        make = functools.partial(Coupling, spline, outputs, self.width, dtype=self.dtype)
        self.block = [make(layer=i) for i in range(self.num_layers)]


class IAF(Flow):
    """`num_layers` layers of equation (5), with networks of two hidden layers of `width`.

    The inverse takes D evaluations of each network, one after the other; where they compute in half
    precision it finds x no more exactly than that, since (m, g) jump where x rounds otherwise.

    Raises:
      InputError: fields that make no flow, or vectors of fewer than two numbers.
    """

    num_layers: int = 4
    width: int = 256
    dtype: str = 'float32'

    def __post_init__(self):
        self._check_sizes()
        super().__post_init__()

    def setup(self):
        make = functools.partial(Autoregression, self.width, dtype=self.dtype)
        self.block = [make(backwards=i % 2 == 1) for i in range(self.num_layers)]


def _compose(maps: Iterable, x: Array, context: Array | None) -> tuple[Array, Array]:
    """x through maps, each `(x, context) -> (y, log det)`, and the sum of their log dets."""
    x = x.astype(jnp.float32)
    total = jnp.zeros(x.shape[:-1])
    for each in maps:
        x, log_det = each(x, context)
        total = total + log_det
    return x, total


def _check_dim(dim: int) -> None:
    if dim < 2:
        raise InputError(
            f'dim: a flow moves some numbers of a vector given the others, so a vector of {dim} '
            f'is too short; use at least 2'
        )


# Coupling


class Coupling(nn.Module):
    """Equation (2), f being `transform(x [...], parameters [..., P], inverse=)`, which returns
    f(x) and log f'(x), or those of f's inverse; f of P zeros is the identity."""

    transform: Callable[..., tuple[Array, Array]]
    num_parameters: int
    width: int
    layer: int
    dtype: str = 'float32'

    @nn.compact
    def __call__(
        self, x: Array, context: Array | None = None, *, inverse: bool = False
    ) -> tuple[Array, Array]:
        dim = x.shape[-1]
        _check_dim(dim)
        order = coordinate_order(dim, self.layer)
        kept, moved = x[..., order[: dim // 2]], x[..., order[dim // 2 :]]
        outputs = moved.shape[-1] * self.num_parameters
        network = Conditioner(self.width, outputs, self.dtype, name='conditioner')
        parameters = network(kept, context).reshape(*moved.shape, self.num_parameters)
        moved, log_slopes = self.transform(moved, parameters, inverse=inverse)
        y = jnp.concatenate([kept, moved], -1)[..., np.argsort(order)]
        return y, log_slopes.sum(-1)

    def inverse(self, y: Array, context: Array | None = None) -> tuple[Array, Array]:
        return self(y, context, inverse=True)


class Conditioner(nn.Module):
    """NN of equation (2): x `[..., A]` and any context `[..., C]` to float32 `[..., outputs]`."""

    width: int
    outputs: int
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, x: Array, context: Array | None) -> Array:
        layer = functools.partial(dense, self.width, init=lecun_init, dtype=self.dtype)
        h = layer(INTO_BRANCH, name='dense_0')(x)
        if context is not None:
            h = h + layer(INTO_BRANCH, bias=False, name='context')(context)
        h = layer(OUT_OF_BRANCH, name='dense_1')(nn.silu(h))
        out = nn.Dense(self.outputs, kernel_init=zero_init, dtype=self.dtype, name='out')
        return out(nn.silu(h)).astype(jnp.float32)


def coordinate_order(dim: int, layer: int) -> np.ndarray:
    """The order of the coordinates of which a layer keeps the first half, int `[dim]`."""
    order = np.arange(dim)
    for _ in range(layer // 2):
        order = np.concatenate([order[::2], order[1::2]])
    return order[::-1] if layer % 2 else order


def affine(x: Array, parameters: Array, *, inverse: bool = False) -> tuple[Array, Array]:
    """Equation (3): (r, t) `[..., 2]` and x to f(x) and log f'(x), or of the inverse."""
    raw, shift = parameters[..., 0], parameters[..., 1]
    log_scale = _LOG_SCALE_LIMIT * jnp.tanh(raw / _LOG_SCALE_LIMIT)
    if inverse:
        return (x - shift) * jnp.exp(-log_scale), -log_scale
    return x * jnp.exp(log_scale) + shift, log_scale


# Autoregression


class Autoregression(nn.Module):
    """Equation (5), from the first coordinate to the last, or backwards."""

    width: int
    backwards: bool
    dtype: str = 'float32'

    @nn.compact
    def mean_and_gate(self, x: Array, context: Array | None) -> tuple[Array, Array]:
        """(m, g) `[..., D]`, float32."""
        dim = x.shape[-1]
        _check_dim(dim)
        # Without a context, units of degree 0 would see nothing at all.
        least = 0 if context is not None else 1
        ranks = self._order(dim)
        degrees = least + np.arange(self.width) * (dim - least) // self.width
        layer = functools.partial(MaskedDense, dtype=self.dtype)
        h = layer(self.width, name='dense_0')(x, ranks[:, None] < degrees)
        if context is not None:
            project = dense(
                self.width, INTO_BRANCH, lecun_init, bias=False, dtype=self.dtype, name='context'
            )
            h = h + project(context)
        h = layer(self.width, name='dense_1')(nn.silu(h), degrees[:, None] <= degrees)
        seen = np.tile(degrees[:, None] <= ranks, 2)
        out = layer(2 * dim, init=zero_init, name='out')(nn.silu(h), seen).astype(jnp.float32)
        return out[..., :dim], out[..., dim:] + _OPEN_GATE

    def _order(self, dim: int) -> np.ndarray:
        """The place of each coordinate in the order, and as well the coordinate at each place."""
        return np.arange(dim)[:: -1 if self.backwards else 1]

    def __call__(self, x: Array, context: Array | None = None) -> tuple[Array, Array]:
        mean, gate = self.mean_and_gate(x, context)
        y = nn.sigmoid(gate) * x + nn.sigmoid(-gate) * mean
        return y, nn.log_sigmoid(gate).sum(-1)

    def inverse(self, y: Array, context: Array | None = None) -> tuple[Array, Array]:
        dim = y.shape[-1]

        def step(layer, found, coordinate):
            x, log_det = found
            mean, gate = layer.mean_and_gate(x, context)
            here = jnp.arange(dim) == coordinate
            x = jnp.where(here, y + (y - mean) * jnp.exp(-gate), x)
            return (x, log_det - jnp.where(here, nn.log_sigmoid(gate), 0).sum(-1)), None

        loop = nn.scan(step, variable_broadcast='params', split_rngs={'params': False})
        found, _ = loop(self, (jnp.zeros_like(y), jnp.zeros(y.shape[:-1])), self._order(dim))
        return found


class MaskedDense(nn.Module):
    """x `[..., A]` times a kernel of which only the entries of a mask `[A, features]` exist."""

    features: int
    init: Callable = lecun_init
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, x: Array, mask: np.ndarray) -> Array:
        kernel = self.param('kernel', self.init, mask.shape)
        bias = self.param('bias', zero_init, (self.features,))
        kernel = jnp.where(mask, kernel, 0).astype(self.dtype)
        return flat_matmul(x.astype(self.dtype), kernel) + bias.astype(self.dtype)
