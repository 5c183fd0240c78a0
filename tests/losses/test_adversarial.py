"""Adversarial losses against their formulas, and against what they are for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gen_jax.losses.adversarial import (
    hinge,
    least_squares,
    non_saturating,
    relativistic,
    wasserstein,
)

GAMES = {
    'hinge': hinge(),
    'non-saturating': non_saturating(),
    'Wasserstein': wasserstein(),
    'least squares': least_squares(),
    'relativistic': relativistic(),
}
every_game = pytest.mark.parametrize('game', GAMES.values(), ids=GAMES)


def logits(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(scale=2, size=shape).astype(np.float32)


def softplus(x: np.ndarray) -> np.ndarray:
    return np.log1p(np.exp(x))


def test_every_game_by_hand():
    real, made = logits(0, 3, 4, 5), logits(1, 3, 4, 5)
    wide_real, wide_made = np.float64(real), np.float64(made)
    wanted = {
        'hinge': (np.maximum(0, 1 - wide_real) + np.maximum(0, 1 + wide_made), -wide_made),
        # -log S(D(x)) - log (1 - S(D(G))), and -log S(D(G)).
        'non-saturating': (softplus(-wide_real) + softplus(wide_made), softplus(-wide_made)),
        'Wasserstein': (wide_made - wide_real, -wide_made),
        'least squares': (((wide_real - 1) ** 2 + wide_made**2) / 2, (wide_made - 1) ** 2 / 2),
        'relativistic': (softplus(wide_made - wide_real), softplus(wide_real - wide_made)),
    }
    assert wanted.keys() == GAMES.keys()
    for name, losses in wanted.items():
        game = GAMES[name]
        found = game.discriminator(real, made), game.generator(made, real)
        for value, by_hand in zip(found, losses, strict=True):
            np.testing.assert_allclose(value, by_hand.mean((1, 2)), rtol=1e-5, atol=1e-6)


@every_game
def test_one_logit_for_each_example_will_do(game):
    real, made = logits(0, 6), logits(1, 6)
    assert game.discriminator(real, made).shape == game.generator(made, real).shape == (6,)


@every_game
def test_the_generator_looks_at_real_examples_where_it_says_so(game):
    real, made = jnp.zeros(3), jnp.ones(3)
    slope = jax.grad(lambda real: game.generator(made, real).sum())(real)
    assert np.all((np.asarray(slope) != 0) == game.is_relativistic)
    if not game.is_relativistic:
        np.testing.assert_array_equal(game.generator(made, None), game.generator(made, real))


@every_game
def test_the_players_pull_the_logits_apart_and_together(game):
    zero = jnp.zeros((1, 2))
    of_real, of_made = jax.grad(lambda *d: game.discriminator(*d).sum(), (0, 1))(zero, zero + 0.5)
    assert np.all(of_real < 0) and np.all(of_made > 0)
    assert np.all(jax.grad(lambda made: game.generator(made, zero).sum())(zero) < 0)


def best_answer(game, share: float) -> float:
    """Of an example that is real with this probability, the others being of no weight: by search
    over logits, with real and made examples drawn independently of each other."""
    answers = np.linspace(-4, 4, 801, dtype=np.float32)
    nothing = 9.0 * np.ones_like(answers)  # where the other term is zero, or nearly constant
    loss = share * game.discriminator(answers, -nothing)
    loss = loss + (1 - share) * game.discriminator(nothing, answers)
    return float(answers[np.argmin(loss)])


@pytest.mark.parametrize('share', [0.2, 0.7])
def test_the_best_discriminator_weighs_how_often_each_is_seen(share):
    """Its best answer is the sign of r - 1/2 (hinge), log r / (1 - r) (Goodfellow et al. 2014), or
    r itself (least squares)."""
    assert best_answer(GAMES['hinge'], share) == pytest.approx(np.sign(share - 0.5), abs=0.02)
    log_ratio = np.log(share / (1 - share))
    assert best_answer(GAMES['non-saturating'], share) == pytest.approx(log_ratio, abs=0.02)
    assert best_answer(GAMES['least squares'], share) == pytest.approx(share, abs=0.02)


def test_the_best_relativistic_discriminator_is_the_log_ratio_up_to_a_constant():
    """On a set of three points with known laws p and q, by Newton's method on all pairs:
    D = log p / q + c makes softplus(D(G) - D(x)) least (its objective is convex)."""
    p, q = np.array([0.2, 0.5, 0.3]), np.array([0.6, 0.1, 0.3])
    weight = p[:, None] * q[None]

    def objective(d):
        real, made = (g.reshape(-1, 1) for g in jnp.meshgrid(d, d, indexing='ij'))
        return jnp.sum(weight.reshape(-1) * GAMES['relativistic'].discriminator(real, made))

    d = jnp.zeros(3)
    for _ in range(20):
        slope, curve = jax.grad(objective)(d), jax.hessian(objective)(d)
        d = d - jnp.linalg.lstsq(curve, slope)[0]  # a constant changes nothing
    found, wanted = d - d.mean(), np.log(p / q) - np.log(p / q).mean()
    # All pairs of one law each: only the differences of log ratios are told.
    np.testing.assert_allclose(found, wanted, atol=1e-3)


@every_game
def test_huge_logits_stay_finite(game):
    huge = jnp.array([1e4, -1e4])
    for value in (game.discriminator(huge, -huge), game.generator(huge, -huge)):
        assert np.isfinite(value).all()
