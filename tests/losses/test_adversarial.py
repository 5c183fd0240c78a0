"""Adversarial losses against their formulas, and against what they are for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gen_jax.losses.adversarial import hinge, non_saturating

GAMES = {'hinge': hinge(), 'non-saturating': non_saturating()}
every_game = pytest.mark.parametrize('game', GAMES.values(), ids=GAMES)


def logits(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(scale=2, size=shape).astype(np.float32)


def test_both_games_by_hand():
    real, made = logits(0, 3, 4, 5), logits(1, 3, 4, 5)
    wide_real, wide_made = np.float64(real), np.float64(made)
    axes = (1, 2)
    wanted = {
        'hinge': (
            (np.maximum(0, 1 - wide_real) + np.maximum(0, 1 + wide_made)).mean(axes),
            -wide_made.mean(axes),
        ),
        # -log S(D(x)) - log (1 - S(D(G))), and -log S(D(G)).
        'non-saturating': (
            (np.log1p(np.exp(-wide_real)) + np.log1p(np.exp(wide_made))).mean(axes),
            np.log1p(np.exp(-wide_made)).mean(axes),
        ),
    }
    for name, game in GAMES.items():
        of_discriminator, of_generator = wanted[name]
        np.testing.assert_allclose(game.discriminator(real, made), of_discriminator, rtol=1e-5)
        np.testing.assert_allclose(game.generator(made), of_generator, rtol=1e-5)


@every_game
def test_one_logit_for_each_example_will_do(game):
    real, made = logits(0, 6), logits(1, 6)
    assert game.discriminator(real, made).shape == game.generator(made).shape == (6,)


@every_game
def test_the_players_pull_the_logits_apart_and_together(game):
    zero = jnp.zeros((1, 2))
    of_real, of_made = jax.grad(lambda *d: game.discriminator(*d).sum(), (0, 1))(zero, zero)
    assert np.all(of_real < 0) and np.all(of_made > 0)
    assert np.all(jax.grad(lambda made: game.generator(made).sum())(zero) < 0)


@every_game
def test_the_best_discriminator_weighs_how_often_each_is_seen(game):
    """Of an example that is real with probability r the best answer is the sign of r - 1/2 (hinge)
    or log r / (1 - r) (Goodfellow et al. 2014)."""
    answers = np.linspace(-4, 4, 801, dtype=np.float32)
    for share in (0.2, 0.7):
        nothing = 9.0 * np.ones_like(answers)  # where the other term is zero, or nearly constant
        loss = share * game.discriminator(answers, -nothing)
        loss = loss + (1 - share) * game.discriminator(nothing, answers)
        best = answers[np.argmin(loss)]
        wanted = np.sign(share - 0.5) if game is GAMES['hinge'] else np.log(share / (1 - share))
        assert best == pytest.approx(wanted, abs=0.02)


@every_game
def test_huge_logits_stay_finite(game):
    huge = jnp.array([1e4, -1e4])
    for value in (game.discriminator(huge, -huge), game.generator(huge)):
        assert np.isfinite(value).all()
