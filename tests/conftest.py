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
    """One folder of compiled programs for the session: what one test compiled the next one has;
    and one of all else that is kept, so that the user's own is left alone."""
    import jax

    os.environ['GEN_JAX_CACHE'] = str(tmp_path_factory.mktemp('cache'))

    folder = str(tmp_path_factory.mktemp('compile'))
    os.environ['JAX_COMPILATION_CACHE_DIR'] = folder
    jax.config.update('jax_compilation_cache_dir', folder)
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)


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
