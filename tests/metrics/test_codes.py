"""How evenly codes are used, counted plainly."""

import numpy as np
import pytest

from gen_jax.metrics.codes import perplexity, usage


def test_against_plain_counts():
    rng = np.random.default_rng(0)
    codes = rng.geometric(0.2, (50, 6, 1)).clip(max=20) - 1
    _, counts = np.unique(codes, return_counts=True)
    share = counts / counts.sum()
    assert usage(codes, 32) == len(counts) / 32
    assert perplexity(codes) == pytest.approx(np.exp(-(share * np.log(share)).sum()))


def test_even_use_has_as_many_as_there_are_and_one_code_has_one():
    even = np.arange(24).reshape(3, 8, 1)
    assert usage(even, 24) == 1 and perplexity(even) == pytest.approx(24)
    same = np.full((3, 8, 1), 5)
    assert usage(same, 24) == 1 / 24 and perplexity(same) == pytest.approx(1)


def test_each_place_in_the_depth_has_codes_of_its_own():
    codes = np.stack([np.arange(8), np.zeros(8, int), np.arange(8) % 4], -1)[None]
    assert usage(codes, 8) == pytest.approx((8 + 1 + 4) / 24)
    assert perplexity(codes) == pytest.approx((8 + 1 + 4) / 3)
