"""Eight virtual devices and a compile cache of our own, for this process and its children.

`GEN_JAX_DATA` names a folder with the real sets (`tfds/cifar10`, `tfds/mnist`,
`music/jsb_chorales_16th.npz`); tests that read them are skipped where it is absent.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # for `configs`, which is no installed package

os.environ['XLA_FLAGS'] = '--xla_force_host_platform_device_count=8'
os.environ['JAX_PLATFORMS'] = 'cpu'
# The tests compile much and compute little.
os.environ['JAX_DISABLE_MOST_OPTIMIZATIONS'] = '1'

import pytest  # noqa: E402


@pytest.fixture(scope='session', autouse=True)
def compile_cache(tmp_path_factory) -> None:
    """One folder of compiled programs for the session, all processes of it: what one test compiled
    the next one has; and one of all else that is kept, so that the user's own is left alone."""
    import jax

    os.environ['GEN_JAX_CACHE'] = str(tmp_path_factory.mktemp('cache'))

    base = tmp_path_factory.getbasetemp()
    shared = base.parent if 'PYTEST_XDIST_WORKER' in os.environ else base
    folder = str(shared / 'compile')
    os.environ['JAX_COMPILATION_CACHE_DIR'] = folder
    jax.config.update('jax_compilation_cache_dir', folder)
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)


@pytest.fixture
def compiled_quickly(monkeypatch):
    """Programs of a smoke run for milliseconds and compile for seconds."""
    from gen_jax import runtime

    options = runtime.compiler_options('cpu') | runtime.quick_compile_options('cpu')
    monkeypatch.setattr(runtime, 'compiler_options', lambda platform: options)


@pytest.fixture
def launch():
    """Runs `launch.py` as a user does, in a process of its own: `launch('--config=…')`."""

    def run(*arguments: str, devices: int = 1, **environment: str):
        flags = f'--xla_force_host_platform_device_count={devices}'
        return subprocess.run(
            [sys.executable, 'launch.py', *arguments],
            cwd=ROOT,
            env=os.environ | {'XLA_FLAGS': flags} | environment,
            capture_output=True,
            text=True,
            timeout=600,
        )

    return run


@pytest.fixture(scope='session')
def tokens_config():
    """Makes the config of a tiny run: digits as 64 tokens, a transformer of two blocks."""
    from configs import common

    def make(**network):
        config = common.get_base()
        common.use_images(config, 'embedded', 'digits')
        config.data.batch_size = 8
        config.networks.model = common.section(
            **{'name': 'transformer.Transformer', 'width': 16, 'num_layers': 2, 'num_heads': 4}
            | network
        )
        config.method = common.section(name='autoregressive.autoregressive')
        config.optim.model = common.section(name='adam', learning_rate=1e-2)
        config.ema.update(decay=0.5, snapshot_every=2)
        config.train.update(num_steps=2, log_every=1, checkpoint_every=1)
        return common.finish(config, '')

    return make


@pytest.fixture(scope='session')
def vae_config():
    """Makes the config of a tiny VAE of digits that is told labels."""
    from configs import vae_digits

    def make():
        config = vae_digits.get_config('smoke').copy_and_resolve_references().unlock()
        config.data.source = 'embedded'
        config.data.batch_size = 32
        config.method.class_conditional = True
        config.evaluate.scores.num = config.train.score_every = None
        config.ema.decay = 0.5
        config.train.update(num_steps=4, sample_every=4, checkpoint_every=4)
        return config.lock()

    return make


@pytest.fixture(scope='session')
def vae_run(vae_config, tmp_path_factory):
    """That run after its steps: its folder, which stays as it is, and its last state."""
    from gen_jax.train import train

    folder = tmp_path_factory.mktemp('vae')
    return folder, train(vae_config(), folder)


@pytest.fixture(scope='session')
def tokens_run(tokens_config, tmp_path_factory):
    """That run after two steps: its folder, which stays as it is, and its last state."""
    from gen_jax.train import train

    folder = tmp_path_factory.mktemp('tokens')
    return folder, train(tokens_config(), folder)
