"""An importance-weighted autoencoder of binarized MNIST (Burda, Grosse & Salakhutdinov 2016).

    python launch.py --config=configs/iwae_bmnist.py --config.data.data_dir=DIR
    python launch.py --config=configs/iwae_bmnist.py --config.data.data_dir=DIR --mode=evaluate

50 draws in training, with the gradient of Tucker et al. 2019. Everything else is that of
`configs/vae_bmnist.py`, but for the length of the run.
"""

from configs import common, vae_bmnist

_STEPS = 20_000


def get_config(arg: str = ''):
    """The run; 'smoke' is its tiny version."""
    config = vae_bmnist.get_config(arg).copy_and_resolve_references()
    config.unlock()
    config.method.gradient = 'dreg'
    config.method.num_samples = 50
    if arg == 'smoke':
        config.method.num_samples = 4
    else:
        config.optim.autoencoder = common.adamw(1e-3, num_steps=_STEPS)
        config.train.num_steps = _STEPS
    return config.lock()
