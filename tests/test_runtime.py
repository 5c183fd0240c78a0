"""Start-up settings, each in a process of its own, since they cannot be taken back."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from gen_jax import runtime

ROOT = Path(__file__).parent.parent


CACHES = ('GEN_JAX_CACHE', 'XDG_CACHE_HOME', 'JAX_COMPILATION_CACHE_DIR')


def run(program: str, folder: Path = Path(), **environment: str) -> tuple[str, str]:
    """What a fresh Python prints and reports; the environment has no cache settings but those
    given."""
    clean = {
        name: value for name, value in os.environ.items() if name not in (*CACHES, 'XLA_FLAGS')
    }
    done = subprocess.run(
        [sys.executable, '-c', program],
        cwd=folder,
        env={'PYTHONPATH': str(ROOT)} | clean | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


COMPILE = """
from gen_jax import runtime
runtime.start()
runtime.start()
import jax
print(jax.jit(lambda x: 2 * x)(21.0))
print(jax.config.jax_compilation_cache_dir)
"""


def test_programs_are_cached_under_the_users_cache_folder(tmp_path):
    answer, folder = run(COMPILE, XDG_CACHE_HOME=str(tmp_path))[0].split()
    assert float(answer) == 42
    assert folder == str(tmp_path / 'gen_jax' / 'compile')
    assert any((tmp_path / 'gen_jax' / 'compile').iterdir())


def test_a_cache_folder_already_set_is_kept(tmp_path):
    ours, home = tmp_path / 'mine', tmp_path / 'home'
    environment = {'JAX_COMPILATION_CACHE_DIR': str(ours), 'XDG_CACHE_HOME': str(home)}
    _, folder = run(COMPILE, **environment)[0].split()
    assert folder == str(ours)
    assert any(ours.iterdir()) and not home.exists()


def test_an_unusable_cache_folder_is_no_obstacle(tmp_path):
    (tmp_path / 'file').touch()
    answer, folder = run(COMPILE, XDG_CACHE_HOME=str(tmp_path / 'file'))[0].split()
    assert float(answer) == 42 and folder == 'None'


def test_one_variable_moves_all_that_is_kept(tmp_path):
    both = {'GEN_JAX_CACHE': str(tmp_path / 'ours'), 'XDG_CACHE_HOME': str(tmp_path / 'all')}
    _, folder = run(COMPILE, **both)[0].split()
    assert folder == str(tmp_path / 'ours' / 'compile')


# A step whose work space is one block of 64 MiB: glibc would hand it back to the kernel each time.
COUNT_FAULTS = """
import resource, statistics
import jax, jax.numpy as jnp
step = jax.jit(lambda x, w: jnp.tanh(x @ w) @ w.T)
x, w = jnp.ones((8192, 64)), jnp.ones((64, 2048))
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
steps = []
for _ in range(20):
    before = faults()
    x = step(x, w).block_until_ready()
    steps.append(faults() - before)
print(statistics.median(steps[5:]))  # now and then the heap still grows a little
"""


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='the setting is of glibc')
def test_warm_steps_have_no_page_faults(tmp_path):
    start = 'from gen_jax import runtime\nruntime.start()\n'
    assert float(run(start + COUNT_FAULTS, XDG_CACHE_HOME=str(tmp_path))[0]) < 100
    assert float(run(COUNT_FAULTS)[0]) > 1000


def test_without_glibc_the_allocator_is_left_alone(monkeypatch):
    monkeypatch.setattr(platform, 'libc_ver', lambda: ('', ''))
    monkeypatch.setattr(runtime.ctypes, 'CDLL', lambda name: pytest.fail('called the C library'))
    assert runtime._keep_freed_memory() is False


def test_compiler_options_are_accepted():
    options = runtime.compiler_options('cpu')
    assert jax.jit(lambda x: x + 1, compiler_options=options)(jnp.float32(1)) == 2
    assert runtime.compiler_options('gpu') == runtime.compiler_options('tpu') == {}


def test_an_option_that_jaxlib_refuses_is_left_out(monkeypatch):
    known = {'xla_cpu_prefer_vector_width': 256}
    monkeypatch.setattr(runtime, '_CPU_OPTIONS', {'xla_cpu_no_such_option': 'on', **known})
    assert runtime.compiler_options.__wrapped__('cpu') == known


DAMAGED = """
import pathlib, time
from gen_jax import runtime
runtime.start()
import jax, jax.numpy as jnp
from gen_jax.checkpoint import Checkpoints
here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
state = {f'leaf {i}': jnp.full(3, i) for i in range(40)}
like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), state)
with Checkpoints(pathlib.Path('.')) as checkpoints:
    checkpoints.save(1, state)
    checkpoints.save(2, state)
file = pathlib.Path('checkpoints/2/state/manifest.ocdbt')
content = bytearray(file.read_bytes())
content[len(content) // 2] ^= 4
file.write_bytes(content)
with Checkpoints(pathlib.Path('.')) as checkpoints:
    checkpoints.restore(like)
time.sleep(0.5)
"""


def test_a_damaged_checkpoint_is_one_line_and_no_traceback(tmp_path):
    """Orbax's other reads of it fail too, each in a thread or a task of its own."""
    damaged, moved = run(DAMAGED, tmp_path)[1].splitlines()
    assert damaged.startswith('warning: checkpoint 2 is damaged (')
    assert moved.startswith('warning: moved it to ')
