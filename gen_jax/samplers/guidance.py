"""Guidance: predictors made of predictors.

    (1) x0 = u + w (c - u)

for the conditional estimate c, the unconditional estimate u and the scale w (Ho & Salimans 2022,
whose w is ours minus one). Every prediction is affine in x_0 with the same coefficients for c and
u, so guiding x_0 is guiding the noise, the velocity or the score.
"""

from gen_jax.types import Array, Predictor


def classifier_free(conditional: Predictor, unconditional: Predictor, scale: float) -> Predictor:
    """Equation (1). A scale of 1 is the conditional predictor itself, at half the price."""
    if scale == 1:
        return conditional

    def predict(x_t: Array, t: Array) -> Array:
        without = unconditional(x_t, t)
        return without + scale * (conditional(x_t, t) - without)

    return predict


def clipped(predict: Predictor, low: float = -1.0, high: float = 1.0) -> Predictor:
    """The estimate held to the data's range, as Ho et al. 2020 sample."""
    return lambda x_t, t: predict(x_t, t).clip(low, high)
