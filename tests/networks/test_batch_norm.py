"""Batch normalization: equal to PyTorch's, running statistics too, and updated only when kept."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gen_jax.networks.batch_norm import BatchNorm

X = 3 + 2 * jax.random.normal(jax.random.key(0), (4, 3, 5, 6))
PARAMS = {
    'scale': jax.random.normal(jax.random.key(1), (6,)),
    'bias': jax.random.normal(jax.random.key(2), (6,)),
}
STATS = {'mean': jnp.arange(6.0), 'variance': 1 + jnp.arange(6.0)}
VARIABLES = {'params': PARAMS, 'batch_stats': STATS}


def test_it_equals_that_of_torch_and_so_do_its_gradients_and_running_statistics():
    torch = pytest.importorskip('torch')
    theirs = torch.nn.BatchNorm2d(6)
    for name, value in (
        ('weight', PARAMS['scale']),
        ('bias', PARAMS['bias']),
        ('running_mean', STATS['mean']),
        ('running_var', STATS['variance']),
    ):
        getattr(theirs, name).data = torch.tensor(np.array(value))
    x = torch.tensor(np.array(X.transpose(0, 3, 1, 2)), requires_grad=True)

    def in_training(params, x):
        y, updated = BatchNorm().apply(
            {**VARIABLES, 'params': params}, x, train=True, mutable=['batch_stats']
        )
        return jnp.sum(y**3), (y, updated)

    gradients, (y, updated) = jax.grad(in_training, (0, 1), has_aux=True)(PARAMS, X)
    answer = theirs(x)
    (answer**3).sum().backward()
    pairs = [
        (y.transpose(0, 3, 1, 2), answer),
        (gradients[0]['scale'], theirs.weight.grad),
        (gradients[0]['bias'], theirs.bias.grad),
        (gradients[1].transpose(0, 3, 1, 2), x.grad),
        (updated['batch_stats']['mean'], theirs.running_mean),
        (updated['batch_stats']['variance'], theirs.running_var),
        (
            BatchNorm().apply({**VARIABLES, **updated}, X, train=False).transpose(0, 3, 1, 2),
            theirs.eval()(x),
        ),
    ]
    for ours, wanted in pairs:
        np.testing.assert_allclose(ours, wanted.detach().numpy(), rtol=1e-4, atol=1e-3)


def test_an_example_is_scaled_and_shifted_by_its_class():
    params = {'scale': jnp.stack([PARAMS['scale'], jnp.ones(6)])}
    params['bias'] = jnp.stack([PARAMS['bias'], jnp.zeros(6)])
    label = jnp.array([1, 0, 0, 1])
    y = BatchNorm(num_classes=2).apply(
        {'params': params, 'batch_stats': STATS}, X, label, train=True
    )
    standard = (X - X.mean((0, 1, 2))) / X.std((0, 1, 2))
    wanted = [standard[0], *(standard[1:3] * PARAMS['scale'] + PARAMS['bias']), standard[3]]
    np.testing.assert_allclose(y, jnp.stack(wanted), rtol=1e-3, atol=1e-3)


def test_running_statistics_stay_where_they_are_not_kept_and_outside_training():
    kept = BatchNorm().apply(VARIABLES, X, train=True, mutable=['batch_stats'])[0]
    np.testing.assert_array_equal(BatchNorm().apply(VARIABLES, X, train=True), kept)
    _, same = BatchNorm().apply(VARIABLES, X, train=False, mutable=['batch_stats'])
    jax.tree.map(np.testing.assert_array_equal, same['batch_stats'], STATS)
    start = BatchNorm().init(jax.random.key(0), X, train=True)['batch_stats']
    np.testing.assert_array_equal(start['mean'], jnp.zeros(6))


def test_statistics_are_float32_in_bfloat16():
    x = (100 + jax.random.normal(jax.random.key(3), (2, 16, 16, 6))).astype(jnp.bfloat16)
    rounded = BatchNorm().apply(VARIABLES, x, train=True)
    exact = BatchNorm().apply(VARIABLES, x.astype(jnp.float32), train=True)
    assert rounded.dtype == jnp.bfloat16
    np.testing.assert_allclose(rounded.astype(jnp.float32), exact, atol=0.03)
