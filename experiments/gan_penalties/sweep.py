"""Which loss and which penalty keep a GAN of 25 Gaussians from losing modes?"""

from gen_jax.sweeps.study import Study, crossed, grid

LOSSES = ('non_saturating', 'hinge', 'relativistic')


def sweep() -> Study:
    """Three losses by no penalty, R1 alone, and R1 with R2."""
    penalties = [
        {'method.r1': 0.0, 'method.r2': 0.0},
        {'method.r1': 0.002, 'method.r2': 0.0},
        {'method.r1': 0.002, 'method.r2': 0.002},
    ]
    return Study(
        config='experiments/gan_penalties/config.py',
        points=crossed(
            grid({'method.adversarial.name': tuple(f'adversarial.{x}' for x in LOSSES)}), penalties
        ),
        seeds=3,
        metrics=('modes', 'confident', 'class_kl'),
        baseline={'method.adversarial.name': 'adversarial.non_saturating', **penalties[0]},
    )
