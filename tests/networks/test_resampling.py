"""Filtered resampling against SciPy's, its positions, and its gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal
from jax.test_util import check_grads

from gen_jax.errors import InputError
from gen_jax.networks import convolution, resampling

X = np.random.default_rng(0).normal(size=(2, 5, 7, 3)).astype(np.float32)
RAMP = np.broadcast_to(np.arange(8.0, dtype=np.float32)[None, :, None, None], (1, 8, 8, 1))
CASES = [
    # up, down, low, high, taps: as upsampling, downsampling and blurring have them, and others.
    (2, 1, 2, 1, (1, 3, 3, 1)),
    (1, 2, 1, 1, (1, 3, 3, 1)),
    (1, 1, 2, 1, (1, -2, 4, 0.5)),
    (2, 1, 2, 0, (1, 2, 1)),
    (3, 2, 4, 3, (1, 2, 3, 4, 5, 6)),
    (4, 1, 0, 0, (1, 2)),
    (1, 2, -1, -2, (3, 1)),
    (2, 3, -2, 5, (1, 2, 4)),
    (2, 1, 1, -1, (2,)),
]


def compiled(function, *arguments, **fields):
    """The function of x, compiled, which takes less time than one operation after the other."""
    return jax.jit(lambda x: function(x, *arguments, **fields))


def plain(x, taps, up: int, down: int, low: int, high: int):
    """The equations in NumPy and SciPy, one axis after the other."""
    for axis in (1, 2):
        holes = np.zeros((*x.shape[:axis], x.shape[axis], up, *x.shape[axis + 1 :]))
        holes[(slice(None),) * (axis + 1) + (0,)] = x
        holes = holes.reshape(*x.shape[:axis], -1, *x.shape[axis + 1 :])
        padding = [(0, 0)] * 4
        padding[axis] = (max(low, 0), max(high, 0))
        padded = np.pad(holes, padding)
        padded = padded.take(range(max(-low, 0), padded.shape[axis] - max(-high, 0)), axis)
        x = scipy.signal.upfirdn(taps, padded, axis=axis)
        x = x.take(range(len(taps) - 1, padded.shape[axis], down), axis)
    return x


@pytest.mark.parametrize(('up', 'down', 'low', 'high', 'taps'), CASES)
def test_upfirdn_is_that_of_scipy(up, down, low, high, taps):
    ours = compiled(resampling.upfirdn, taps, up=up, down=down, pad=(low, high), gain=4)(X)
    np.testing.assert_allclose(ours, 4 * plain(X, taps, up, down, low, high), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(('up', 'down'), [(2, 1), (1, 2), (3, 2)])
def test_padded_by_all_taps_but_one_it_begins_as_scipy_does(up, down):
    taps = (1, 2, 4, 8)
    ours = compiled(resampling.upfirdn, taps, up=up, down=down, pad=(3, 0))(X)
    theirs = X
    for axis in (1, 2):
        theirs = scipy.signal.upfirdn(taps, theirs, up, down, axis=axis)
    theirs = theirs[:, : ours.shape[1], : ours.shape[2]]
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(('up', 'down'), [(2, 1), (1, 2)])
def test_gradients_and_their_gradients(up, down):
    @jax.jit
    def filtered(x):
        return jnp.sin(resampling.upfirdn(x, (1, 3, 3, 1), up=up, down=down, pad=(2, 1))).sum()

    check_grads(filtered, (X[:1, :, :4, :1],), order=2, modes=['rev'], rtol=0.05, atol=0.05)


def test_upsampling_puts_pixels_at_quarters_between_the_old_ones():
    doubled = compiled(resampling.filtered_upsample)(RAMP)
    assert doubled.shape == (1, 16, 16, 1)
    wanted = (np.arange(16) + 0.5) / 2 - 0.5
    np.testing.assert_allclose(doubled[0, 1:-1, 7, 0], wanted[1:-1], atol=1e-6)


def test_downsampling_puts_pixels_in_the_middle_of_two_old_ones():
    halved = compiled(resampling.filtered_downsample)(RAMP)
    assert halved.shape == (1, 4, 4, 1)
    np.testing.assert_allclose(halved[0, 1:-1, 1, 0], [2.5, 4.5], atol=1e-6)


def test_a_blur_keeps_the_place_with_an_odd_number_of_taps():
    odd, even = compiled(resampling.blur, (1, 2, 1))(RAMP), compiled(resampling.blur)(RAMP)
    np.testing.assert_allclose(odd[0, 1:-1, 3, 0], np.arange(1, 7), atol=1e-6)
    np.testing.assert_allclose(even[0, 2:-1, 3, 0], np.arange(2, 7) - 0.5, atol=1e-6)


@pytest.mark.parametrize('taps', [(1, 2, 1), (1, 5, 10, 10, 5, 1)])
def test_what_is_constant_stays_so_whatever_the_sum_of_the_taps(taps):
    ones = jnp.ones((1, 12, 12, 1))
    for resample, size in (
        (resampling.filtered_upsample, 24),
        (resampling.filtered_downsample, 6),
        (resampling.blur, 12),
    ):
        y = compiled(resample, taps)(ones)
        assert y.shape == (1, size, size, 1)
        margin = slice(size // 3, -(size // 3))
        np.testing.assert_allclose(y[:, margin, margin], 1, rtol=1e-6)


@pytest.mark.parametrize('taps', [(1, 3, 3, 1), (1, 2, 1), (1, 5, 10, 10, 5, 1)])
def test_convolutions_with_the_filter_are_the_filter_and_a_convolution_but_for_the_border(taps):
    x = jax.random.normal(jax.random.key(0), (1, 12, 14, 2))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 2, 4))
    up = compiled(resampling.filtered_upsample_conv, kernel, taps)(x)
    separate = convolution.plain_conv(
        compiled(resampling.filtered_upsample, taps)(x), kernel[::-1, ::-1]
    )
    assert up.shape == (1, 24, 28, 4)
    inside = np.s_[:, 4:-4, 4:-4]
    np.testing.assert_allclose(up[inside], separate[inside], rtol=1e-4, atol=1e-4)
    down = compiled(resampling.filtered_downsample_conv, kernel, taps)(x)
    blurred = convolution.plain_conv(compiled(resampling.blur, taps)(x), kernel)
    assert down.shape == (1, 6, 7, 4)
    # The blur of an even number of taps has already moved by half a pixel.
    first = 1 - len(taps) % 2
    halved = blurred[:, first::2, first::2]
    inside = np.s_[:, 2:-2, 2:-2]
    np.testing.assert_allclose(down[inside], halved[inside], rtol=1e-4, atol=1e-4)


def test_it_computes_in_the_type_of_the_image():
    assert resampling.filtered_upsample(X.astype(jnp.bfloat16)).dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ('name', 'fields'),
    [
        ('taps', {'taps': ()}),
        ('up', {'up': 0}),
        ('down', {'down': 0}),
        ('gain', {'gain': -1}),
        ('pad', {'pad': (-2, -1)}),
    ],
)
def test_what_makes_no_filter_is_refused(name, fields):
    with pytest.raises(InputError, match=name):
        resampling.upfirdn(X, **{'taps': (1, 3, 3, 1), **fields})
