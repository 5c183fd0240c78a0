"""How the process starts: the one place that touches the allocator, the compiler and log levels.

`start()` is called once by every mode, before JAX first touches a device:

1. glibc keeps freed memory. XLA's CPU backend allocates its work space on every call; by default
   glibc gives large blocks back to the kernel when they are freed, so each call pays thousands of
   page faults for memory it had a moment ago. A program then runs on the thread that calls it:
   with a second thread that allocates, the heap breaks into pieces and grows to twice the size
   (LOG.md has the figures, and what it costs a tiny network).
2. Compiled programs are kept on disk, so that a second run of the same program starts at once.
3. The checkpoint library says what went wrong, and no more.

`compiler_options(platform)` is what to hand to `jax.jit` on that platform.
"""

import ctypes
import functools
import logging
import os
import platform as host
import sys
import warnings
from pathlib import Path

import absl.logging
import jax
import jax.numpy as jnp

# mallopt(3): parameter -> value. The parameters' numbers are part of glibc's binary interface.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8
_KEEP_FREED_MEMORY = {
    _M_MMAP_MAX: 0,  # large blocks come from the heap, not from a mapping of their own ...
    _M_TRIM_THRESHOLD: -1,  # ... and the free end of the heap is never handed back
    _M_ARENA_MAX: 1,  # every thread reuses the same heap
    _M_TOP_PAD: 256 * 2**20,  # grow rarely: 256 MiB at a time
}

# XLA's CPU backend can give dots and reductions to YNNPACK, and unless told otherwise it gives it
# everything around them too. Its reductions are several times faster than XLA's own; its
# convolutions reach three quarters of the speed, and a fusion that grows from a dot swallows them.
# So: reductions, and each dot by itself.
_CPU_OPTIONS = {
    'xla_cpu_experimental_ynn_fusion_type': (
        'LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE'
    ),
    # Elementwise chains, mostly exponentials, run 2 to 3 % of a step faster than with XLA's 256.
    'xla_cpu_prefer_vector_width': 512,
}


def start() -> None:
    """Applies the start-up settings; safe to call twice, and on any operating system.

    Call it before the first JAX computation: what the backend has already allocated or compiled
    is not changed. A setting that this machine does not offer is left out silently, for it
    changes speed and never results.
    """
    _keep_freed_memory()
    _keep_compiled_programs()
    # Orbax reports dozens of steps for each save, JAX each backend it does not find, TFDS each
    # folder that is absent; what matters of it is raised as an error, as that of a full disk, of
    # which each of Orbax's threads would bring a traceback.
    absl.logging.set_verbosity(absl.logging.FATAL)
    # Of a damaged checkpoint one line speaks (`checkpoint.py`); what Orbax had begun to read
    # besides would bring a traceback for every file.
    logging.getLogger('asyncio').setLevel(logging.CRITICAL)
    sys.unraisablehook = _report_unraisable
    warnings.formatwarning = _format_warning


def _format_warning(message, category, filename, lineno, line=None) -> str:
    """Ours, which are for users, as one line; others with where they come from."""
    if category is UserWarning:
        return f'warning: {message}\n'
    return f'{filename}:{lineno}: {category.__name__}: {message}\n'


def cache_folder() -> Path:
    """Where what can be computed again is kept: GEN_JAX_CACHE, or `gen_jax` in XDG_CACHE_HOME or
    ~/.cache. It need not exist, nor be writable."""
    if os.environ.get('GEN_JAX_CACHE'):
        return Path(os.environ['GEN_JAX_CACHE']).expanduser()
    return Path(os.environ.get('XDG_CACHE_HOME') or '~/.cache').expanduser() / 'gen_jax'


def _report_unraisable(unraisable) -> None:
    """Python's report of an error that nobody can catch, unless it is a read that was given up."""
    if str(unraisable.exc_value) != 'Event loop is closed':
        sys.__unraisablehook__(unraisable)


def _keep_freed_memory() -> bool:
    """Sets glibc's allocator to keep what is freed; False where the C library is another one."""
    if host.libc_ver()[0] != 'glibc':
        return False
    jax.config.update('jax_cpu_enable_async_dispatch', False)
    mallopt = ctypes.CDLL(None).mallopt
    done = [mallopt(parameter, value) for parameter, value in _KEEP_FREED_MEMORY.items()]
    return all(done)


def _keep_compiled_programs() -> None:
    """Points JAX's persistent compile cache at the user's cache folder, if it can be written."""
    if jax.config.jax_compilation_cache_dir is None:
        folder = cache_folder() / 'compile'
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            return
        if not os.access(folder, os.W_OK):
            return
        jax.config.update('jax_compilation_cache_dir', str(folder))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)


@functools.cache
def compiler_options(platform: str) -> dict[str, str | int]:
    """Options for `jax.jit(..., compiler_options=...)` on `platform` ('cpu', 'gpu' or 'tpu').

    Those used on CPUs are of recent versions of jaxlib, which refuse an unknown one at compile
    time. So each is tried once, on a program of one addition, and left out where it is refused.
    """
    if platform != 'cpu':
        return {}
    return {name: value for name, value in _CPU_OPTIONS.items() if _accepts({name: value})}


def _accepts(options: dict) -> bool:
    try:
        with jax.default_device(jax.local_devices(backend='cpu')[0]):
            jax.jit(lambda x: x + 1, compiler_options=options)(jnp.zeros(()))
    except RuntimeError:  # jax.errors.JaxRuntimeError, or no CPU backend
        return False
    return True


def quick_compile_options(platform: str) -> dict[str, int]:
    """The same for a program that runs once, where compiling takes longer than running."""
    return {'xla_backend_optimization_level': 0} if platform == 'cpu' else {}
