"""Priors of a latent vector z: a density that can be drawn from, as networks with parameters.

    (1) Normal      p(z) = N(z; 0, I)
    (2) Vamp        p(z) = 1/K sum_k q(z | u_k), q the posterior of the autoencoder itself and u_k
                    learned inputs, the pseudo-inputs (Tomczak & Welling 2018)
    (3) Mixture     p(z) = sum_k w_k N(z; m_k, diag v_k), all of them learned (Dilokthanakul et al.
                    2016)
    (4) FlowPrior   p(z) = N(f(z); 0, I) |det df/dz|, f a flow (Chen et al. 2017); z = f^-1(u) of a
                    u ~ N(0, I) follows it

Every prior answers the same calls, for those that have no posterior to look at as well:

    log_density(z [..., D], posterior=None) -> [...] nats; `__call__` is the same
    sample(key, num, dim, posterior=None) -> [num, D]

`posterior` takes inputs `[K, ...]` to the mean and the log variance of q, `[K, D]` each; only Vamp
asks it, and needs it. `dtype` is what a flow's networks compute in; densities are float32.
"""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from gen_jax.errors import InputError
from gen_jax.networks.flows import RealNVP, SplineFlow
from gen_jax.types import Array, Key

# Inputs [K, ...] -> the mean [K, D] and the log variance [K, D] of q(z | input).
Posterior = Callable[[Array], tuple[Array, Array]]

# Components of a mixture that are computed side by side.
_TOGETHER = 50

FLOWS = {'realnvp': RealNVP, 'spline': SplineFlow}


class Prior(nn.Module):
    """What a module is called for when its parameters are made."""

    def __call__(self, z: Array, posterior: Posterior | None = None) -> Array:
        return self.log_density(z, posterior)


class Normal(Prior):
    """Equation (1); it has no parameters."""

    dtype: str = 'float32'

    def log_density(self, z: Array, posterior: Posterior | None = None) -> Array:
        """z `[..., D]` to nats `[...]`."""
        return _log_normal(z.astype(jnp.float32))

    def sample(self, key: Key, num: int, dim: int, posterior: Posterior | None = None) -> Array:
        """Draws float32 `[num, dim]`."""
        return jax.random.normal(key, (num, dim))


class Vamp(Prior):
    """Equation (2): `num_components` pseudo-inputs of the `shape` of one example, in [-1, 1].

    A pseudo-input is tanh of what is learned, which starts at artanh of `mean`, the data's, with
    normal noise of the deviation `noise` added.

    Raises:
      InputError: fields that make no prior, or no posterior given.
    """

    shape: tuple[int, ...]
    num_components: int = 500
    mean: float = 0.0
    noise: float = 0.5
    dtype: str = 'float32'

    def __post_init__(self):
        if self.num_components < 1:
            raise InputError(f'num_components: {self.num_components} must be at least 1')
        if not -1 < self.mean < 1:
            raise InputError(f'mean: {self.mean} must be that of the data, between -1 and 1')
        if not 0 < self.noise < math.inf:
            raise InputError(f'noise: {self.noise} must be above 0: equal components stay equal')
        super().__post_init__()

    def setup(self):
        def init(key: Key, shape: tuple[int, ...]) -> Array:
            return math.atanh(self.mean) + self.noise * jax.random.normal(key, shape)

        self.inputs = self.param('inputs', init, (self.num_components, *self.shape))

    def log_density(self, z: Array, posterior: Posterior | None = None) -> Array:
        """z `[..., D]` to nats `[...]`."""
        densities = _log_normals(z.astype(jnp.float32), *self._components(posterior))
        return nn.logsumexp(densities, -1) - math.log(self.num_components)

    def sample(self, key: Key, num: int, dim: int, posterior: Posterior | None = None) -> Array:
        """Draws float32 `[num, dim]`."""
        component, noise = jax.random.split(key)
        numbers = jax.random.randint(component, (num,), 0, self.num_components)
        return _draw(noise, numbers, *self._components(posterior))

    def pseudo_inputs(self) -> Array:
        """u, `[num_components, *shape]`, as data."""
        return jnp.tanh(self.inputs)

    def _components(self, posterior: Posterior | None) -> tuple[Array, Array]:
        if posterior is None:
            raise InputError(
                'prior: Vamp is a mixture of posteriors; give it the one of the method'
            )
        mean, log_variance = posterior(self.pseudo_inputs())
        return mean.astype(jnp.float32), log_variance.astype(jnp.float32)


class Mixture(Prior):
    """Equation (3): `num_components` Gaussians; their means start normal, their variances at 1.

    Raises:
      InputError: fields that make no mixture.
    """

    num_components: int = 100
    dtype: str = 'float32'

    def __post_init__(self):
        if self.num_components < 2:
            raise InputError(f'num_components: {self.num_components} must be at least 2')
        super().__post_init__()

    def log_density(self, z: Array, posterior: Posterior | None = None) -> Array:
        """z `[..., D]` to nats `[...]`."""
        logits, mean, log_variance = self._components(z.shape[-1])
        densities = _log_normals(z.astype(jnp.float32), mean, log_variance)
        return nn.logsumexp(densities + nn.log_softmax(logits), -1)

    def sample(self, key: Key, num: int, dim: int, posterior: Posterior | None = None) -> Array:
        """Draws float32 `[num, dim]`."""
        component, noise = jax.random.split(key)
        logits, mean, log_variance = self._components(dim)
        numbers = jax.random.categorical(component, logits, shape=(num,))
        return _draw(noise, numbers, mean, log_variance)

    @nn.compact
    def _components(self, dim: int) -> tuple[Array, Array, Array]:
        shape, zeros = (self.num_components, dim), nn.initializers.zeros_init()
        return (
            self.param('logits', zeros, (self.num_components,)),
            self.param('mean', nn.initializers.normal(1.0), shape),
            self.param('log_variance', zeros, shape),
        )


class FlowPrior(Prior):
    """Equation (4), with the flow of this name. None of a field is the flow's own default;
    `num_bins` and `bound` are those of a spline.

    Raises:
      InputError: fields that make no flow, or vectors of fewer than two numbers.
    """

    flow: str = 'realnvp'
    num_layers: int | None = None
    width: int | None = None
    num_bins: int | None = None
    bound: float | None = None
    dtype: str = 'float32'

    def __post_init__(self):
        if self.flow not in FLOWS:
            raise InputError(f'flow: no {self.flow!r}; choose from {", ".join(FLOWS)}')
        for field in self._options():
            if field not in FLOWS[self.flow].__dataclass_fields__:
                raise InputError(f'{field}: {self.flow} has none; remove it')
        FLOWS[self.flow](**self._options(), parent=None)  # its fields are refused here, not later
        super().__post_init__()

    def setup(self):
        self.body = FLOWS[self.flow](**self._options(), dtype=self.dtype)

    def _options(self) -> dict:
        fields = ('num_layers', 'width', 'num_bins', 'bound')
        options = {field: getattr(self, field) for field in fields}
        return {field: value for field, value in options.items() if value is not None}

    def log_density(self, z: Array, posterior: Posterior | None = None) -> Array:
        """z `[..., D]` to nats `[...]`."""
        u, log_det = self.body(z)
        return _log_normal(u) + log_det

    def sample(self, key: Key, num: int, dim: int, posterior: Posterior | None = None) -> Array:
        """Draws float32 `[num, dim]`."""
        return self.body.inverse(jax.random.normal(key, (num, dim)))[0]


def _log_normal(z: Array) -> Array:
    """log N(z; 0, I) of z `[..., D]`."""
    return -0.5 * (jnp.square(z).sum(-1) + z.shape[-1] * math.log(2 * math.pi))


def _log_normals(z: Array, mean: Array, log_variance: Array) -> Array:
    """log N(z; m_k, diag v_k) of z `[..., D]` and K components `[K, D]`: `[..., K]`.

    As matrix products of z^2 and z the distances would be differences of large numbers, wrong by
    whole nats where a variance is small. So the squares themselves are summed, of some components
    after others and anew in the backward pass, so that `[..., K, D]` is never held.
    """

    @jax.checkpoint
    def of_component(component: tuple[Array, Array]) -> Array:
        mean, log_variance = component
        distance = (jnp.square(z - mean) * jnp.exp(-log_variance)).sum(-1)
        return -0.5 * (distance + log_variance.sum() + z.shape[-1] * math.log(2 * math.pi))

    densities = jax.lax.map(of_component, (mean, log_variance), batch_size=_TOGETHER)
    return jnp.moveaxis(densities, 0, -1)


def _draw(key: Key, numbers: Array, mean: Array, log_variance: Array) -> Array:
    """One draw of each of the components of these numbers, int `[num]`: `[num, D]`."""
    scale = jnp.exp(0.5 * log_variance[numbers])
    return mean[numbers] + scale * jax.random.normal(key, scale.shape)
