"""Transposed convolutions: the CPU forms equal the plain one, twice differentiated, and torch's."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gen_jax.errors import InputError
from gen_jax.networks import transposed
from tests.networks.forms import naive_convolutions, normal, steepness_grads

FORMS = (transposed.phases_conv_transpose, transposed.taps_conv_transpose)


def derivatives(function, x, kernel):
    """The value, the gradients of a projection of its sine, and those of a projection of them."""

    def gradients(x, kernel):
        value, pull_back = jax.vjp(lambda x, kernel: jnp.sin(0.3 * function(x, kernel)), x, kernel)
        return value, pull_back(normal(9, *value.shape))

    def sum_of_squares(x, kernel):
        return sum(jnp.sum(gradient**2) for gradient in gradients(x, kernel)[1])

    return (*gradients(x, kernel), jax.grad(sum_of_squares, (0, 1))(x, kernel))


@pytest.mark.parametrize(
    ('size', 'whole', 'shape'),
    [(3, False, (6, 10)), (4, False, (6, 10)), (5, False, (6, 10)), (3, True, (7, 11))],
)
def test_every_form_equals_the_plain_one_in_values_gradients_and_gradients_of_gradients(
    size, whole, shape
):
    x, kernel = normal(0, 2, 3, 5, 6), normal(1, size, size, 6, 4)

    def all_of(function):
        form = functools.partial(function, whole=whole)
        return jax.tree.leaves(jax.jit(lambda x, k: derivatives(form, x, k))(x, kernel))

    plain = all_of(transposed.plain_conv_transpose)
    assert plain[0].shape == (2, *shape, 4)
    for form in FORMS:
        for ours, theirs in zip(all_of(form), plain, strict=True):
            largest = np.abs(theirs).max()
            assert largest > 1e-3
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5 * largest)


@pytest.mark.parametrize('size', [2, 3, 4])
def test_the_whole_is_all_that_kernels_add_to(size):
    kernel = jnp.arange(size**2, dtype=jnp.float32).reshape(size, size, 1, 1) + 1
    x = jnp.zeros((1, 4, 4, 1)).at[0, 3, 2].set(2.0)
    wanted = np.zeros((6 + size, 6 + size))
    wanted[6 : 6 + size, 4 : 4 + size] = 2 * kernel[:, :, 0, 0]
    for form in (*FORMS, transposed.plain_conv_transpose):
        np.testing.assert_allclose(form(x, kernel, whole=True)[0, :, :, 0], wanted, rtol=1e-6)


@pytest.mark.parametrize(('size', 'padding', 'output_padding'), [(4, 1, 0), (3, 1, 1), (2, 0, 0)])
@pytest.mark.parametrize('features', [3, 16])
def test_the_layer_equals_that_of_torch(size, padding, output_padding, features):
    torch = pytest.importorskip('torch')
    x, kernel, bias = normal(0, 2, 4, 7, 6), normal(1, size, size, 6, features), normal(2, features)
    module = transposed.ConvTranspose(features, size)
    ours = module.apply({'params': {'kernel': kernel, 'bias': bias}}, x)
    theirs = torch.nn.functional.conv_transpose2d(
        torch.tensor(np.array(x.transpose(0, 3, 1, 2))),
        torch.tensor(np.array(kernel.transpose(2, 3, 0, 1))),
        torch.tensor(np.array(bias)),
        stride=2,
        padding=padding,
        output_padding=output_padding,
    )
    np.testing.assert_allclose(ours, theirs.numpy().transpose(0, 2, 3, 1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ('pixels', 'features', 'whole'),
    [(4, 16, True), (5, 16, False), (5, 3, False), (1, 16, False)],
)
def test_no_convolution_runs_in_naive_loops(pixels, features, whole):
    """Of 4 pixels and 16 features Winograd's form has none at all."""
    x, kernel = normal(0, 2, pixels, pixels, 8), normal(1, 4, 4, 8, features)

    def naive(form) -> list[str]:
        function = functools.partial(form, whole=whole)
        return naive_convolutions(functools.partial(steepness_grads, function), x, kernel)

    assert not naive(transposed.conv_transpose)
    assert pixels < 5 or naive(transposed.plain_conv_transpose)


def test_other_backends_run_the_plain_one(monkeypatch):
    monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
    for features in (3, 16):
        arguments = normal(0, 1, 4, 4, 8), normal(1, 4, 4, 8, features)
        lowered = jax.jit(lambda x, k: transposed.conv_transpose(x, k)).lower(*arguments)
        program = lowered.as_text()
        assert program.count('stablehlo.convolution') == 1
        assert 'dot_general' not in program


def test_no_bias_where_none_is_wanted():
    variables = transposed.ConvTranspose(3, bias=False).init(
        jax.random.key(0), jnp.ones((1, 2, 2, 1))
    )
    assert set(variables['params']) == {'kernel'}


def test_a_kernel_of_one_pixel_is_refused():
    with pytest.raises(InputError, match='size: 1 '):
        transposed.ConvTranspose(3, size=1)
