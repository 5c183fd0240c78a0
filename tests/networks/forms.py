"""Two forms of one function: whether they are the same, and how XLA's CPU backend runs them."""

import jax
import jax.numpy as jnp
import numpy as np


def normal(seed: int, *shape: int):
    """Float32 Gaussian numbers."""
    return jax.random.normal(jax.random.key(seed), shape)


def value_and_grads(function, *arguments):
    """A function's value and the gradients of its random projection."""
    value, pull_back = jax.vjp(function, *arguments)
    return value, *pull_back(normal(9, *value.shape))


def assert_same(function, plain, *arguments):
    """Both functions have the same value and the same gradients, within float32 error."""
    ours = jax.jit(lambda *a: value_and_grads(function, *a))(*arguments)
    theirs = jax.jit(lambda *a: value_and_grads(plain, *a))(*arguments)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def steepness_grads(function, x, kernel):
    """The gradients of what games penalize: the squared gradient at x."""

    def steepness(x, kernel):
        value, pull_back = jax.vjp(lambda x: jnp.sin(0.3 * function(x, kernel)), x)
        return jnp.sum(pull_back(normal(9, *value.shape))[0] ** 2)

    return jax.grad(steepness, (0, 1))(x, kernel)


def naive_convolutions(function, *arguments) -> list[str]:
    """The lines of a compiled function with convolutions that XLA runs in naive loops.

    Those are of a kernel turned around, as one becomes that is larger than the image that it slides
    over (XLA swaps the two, and turns what it now calls the kernel), and those whose axes are in
    another order than its quick code asks for.
    """
    program = jax.jit(function).lower(*arguments).compile().as_text()
    lines = [line for line in program.splitlines() if 'dim_labels=' in line]
    return [line for line in lines if 'rhs_reversal' in line or 'b01f_01io->b01f' not in line]


def in_a_branch(function):
    """The function where the program has a branch, as in a lazy turn."""

    def branched(*arguments):
        shapes = jax.eval_shape(function, *arguments)
        nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        met = jnp.sum(arguments[0]) > 0
        return jax.lax.cond(met, function, lambda *_: nothing, *arguments)

    return branched
