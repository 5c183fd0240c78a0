"""A run of README.md beside this file: `configs/vqvae_cifar.py` with another quantizer.

python launch.py --config=experiments/quantizers_cifar/config.py:fsq --workdir=runs/quantizers/fsq
"""

from configs import common, models, vqvae_cifar

# 512 combinations at each of the 64 places: 9 bits each, 576 for an image.
QUANTIZERS = {
    'vq': models.vq(512, 64),
    'fsq': common.section(name='scalar.fsq', levels=(8, 8, 8)),
    'residual': models.vq(8, 64, depth=3),
}


def get_config(arg: str = ''):
    """The run with one of the quantizers."""
    if arg not in QUANTIZERS:
        raise ValueError(f'--config: {arg!r}; choose a quantizer of {", ".join(QUANTIZERS)}')
    config = vqvae_cifar.get_config()
    with config.unlocked():
        config.method.quantizer = QUANTIZERS[arg]
    return config
