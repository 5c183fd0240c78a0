"""Does it matter what a diffusion network predicts, and along which noise schedule?"""

from gen_jax.sweeps.study import Study, grid

TARGET, PROCESS = 'method.prediction', 'method.process.name'


def sweep() -> Study:
    """Three targets by two schedules, and on straight paths the two targets that there are: noise
    alone would say nothing at t = 1."""
    return Study(
        config='experiments/diffusion_targets/config.py',
        points=[
            *grid(
                {TARGET: ('epsilon', 'x0', 'v'), PROCESS: ('gaussian.linear', 'gaussian.cosine')}
            ),
            *grid({TARGET: ('x0', 'v'), PROCESS: ('gaussian.straight',)}),
        ],
        seeds=3,
        metrics=('FD', 'confident'),
        baseline={TARGET: 'epsilon', PROCESS: 'gaussian.linear'},
    )
