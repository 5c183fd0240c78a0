"""An importance-weighted autoencoder of binarized MNIST (Burda, Grosse & Salakhutdinov 2016).

    python launch.py --config=configs/vae_bmnist.py --config.data.data_dir=DIR
    python launch.py --config=configs/iwae_bmnist.py --config.data.data_dir=DIR
    python launch.py --config=configs/iwae_bmnist.py --config.data.data_dir=DIR --mode=evaluate

50 draws in training, with the gradient of Tucker et al. 2019, of the 4 among them that their
weights choose. What differs from the paper: the network, the learned prior, pixels that are drawn
once, and the start, which is the weights of `runs/vae_bmnist`, since a step of one draw costs so
much less. From there on batches are smaller, at half of the rate. Another run to begin with is
`--config.restore.autoencoder=WORKDIR`; None begins from scratch. Half an hour on two CPU cores;
83.26 ± 0.22 nats, an upper bound of 5,000 draws (docs/vae.md).
"""

from configs import common, vae_bmnist

_STEPS = 40_000


def get_config(arg: str = ''):
    """The run; 'smoke' is its tiny version."""
    config = vae_bmnist.get_config(arg)
    config.unlock()
    config.method.update(gradient='dreg', num_samples=50, gradient_draws=4, warmup_steps=0)
    if arg == 'smoke':
        config.method.update(num_samples=4, gradient_draws=2)
    else:
        config.restore.autoencoder = 'runs/vae_bmnist'
        config.data.batch_size = 32
        config.optim.autoencoder = common.adamw(5e-4, num_steps=_STEPS)
        config.train.num_steps = _STEPS
    return config.lock()
