"""Several processes that train one model: how they find each other, agree, and wait.

Each process runs the same program on its own devices; a computation over all devices begins when
all of them ask for it. So whatever one process learns alone (a signal, the time, a file that is
not there) has to become common knowledge before any of them acts on it. With one process
everything here is free.
"""

import os
from collections.abc import Callable

import jax
import numpy as np
from jax.experimental import multihost_utils

from gen_jax.errors import InputError, ProcessLost
from gen_jax.types import Tree

# A process that is silent for so long is taken for dead, and the others end.
SECONDS_TO_MISS = 15

# Words in what collectives and the coordinator say when a process does not answer.
_SIGNS_OF_LOSS = ('Gloo', 'NCCL', 'UNAVAILABLE', 'DEADLINE_EXCEEDED', 'heartbeat', 'Barrier')

# How many processes an environment that JAX recognizes says that there are.
_COUNTS = ('SLURM_STEP_NUM_TASKS', 'OMPI_COMM_WORLD_SIZE')


def start(
    coordinator: str | None,
    num_processes: int | None,
    process_id: int | None,
    share_signals: bool = True,
) -> None:
    """Joins the other processes of this run, if there are any; before JAX touches a device.

    Args:
      coordinator: `host:port` of the process of number 0, which listens there.
      num_processes: how many there are.
      process_id: which one this is, from 0. Without these three the environment decides: Slurm,
        Open MPI and Cloud TPU say themselves what JAX must know.
      share_signals: whether a SIGTERM to one of them is told to all, and ends none before
        `preemption.check`; otherwise it ends the process, and the others lose it.

    Raises:
      InputError: only some of the three, or impossible ones.
      ProcessLost: the others do not come. After five minutes JAX may end the process itself.
    """
    jax.config.update('jax_enable_preemption_service', share_signals)
    given = {
        '--coordinator': coordinator,
        '--num_processes': num_processes,
        '--process_id': process_id,
    }
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == len(given):
        if _environment_has_several():
            _initialize()
        return
    if missing:
        raise InputError(f'{missing[0]}: missing; {", ".join(given)} go together')
    host, _, port = coordinator.rpartition(':')
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise InputError(
            f'--coordinator: {coordinator!r}; use host:port of the first process, with a port from '
            '1 to 65535'
        )
    if num_processes < 1 or not 0 <= process_id < num_processes:
        raise InputError(
            f'--process_id, --num_processes: {process_id}, {num_processes}; number the processes '
            'from 0 to one less than there are'
        )
    # Detection would still look for the devices of this process; here they are all it can see.
    options = {'cluster_detection_method': 'deactivate'}
    _initialize(coordinator, num_processes, process_id, **options)


def _environment_has_several() -> bool:
    counts = [int(os.environ[name]) for name in _COUNTS if os.environ.get(name, '').isdecimal()]
    tpu_hosts = os.environ.get('TPU_WORKER_HOSTNAMES', '').split(',')
    return max([*counts, len(tpu_hosts)]) > 1 or 'JAX_COORDINATOR_ADDRESS' in os.environ


def _initialize(*where, **options) -> None:
    try:
        jax.distributed.initialize(*where, heartbeat_timeout_seconds=SECONDS_TO_MISS, **options)
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().split('\n')[0]
        raise ProcessLost(f'the processes of this run did not find each other ({reason})') from None


def explain(error: Exception) -> ProcessLost | None:
    """What an error of a computation over several processes means, where one of them is gone."""
    text = str(error)
    if not jax.distributed.is_initialized() or not any(sign in text for sign in _SIGNS_OF_LOSS):
        return None
    reason = text.strip().split('\n')[0][:200]
    return ProcessLost(
        f'another process of this run ended or cannot be reached ({reason}); see what it said, and '
        'start all of them again'
    )


def is_first() -> bool:
    """Whether this is the process that writes what is written once."""
    return jax.process_index() == 0


def any_of(flag: bool) -> bool:
    """Whether the flag is set in some process; all of them get the same answer."""
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.array(flag))))


def of_first(flag: bool) -> bool:
    """The first process's flag, in all of them."""
    if jax.process_count() == 1:
        return flag
    return bool(multihost_utils.broadcast_one_to_all(np.array(flag)))


def text_of_first(text: str) -> str:
    """The first process's text, in all of them."""
    if jax.process_count() == 1:
        return text
    mine = np.frombuffer(text.encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.array(mine.size)))
    room = np.zeros(size, np.uint8)
    room[: mine.size] = mine[:size]
    return bytes(multihost_utils.broadcast_one_to_all(room)).decode()


def wait_for_all(what: str) -> None:
    """Returns when every process has come to this point, which `what` names."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)


def together(work: Callable, what: str):
    """`work()` in the first process, then in the others, who find what it has left on disk.

    Raises:
      InputError: `work` did, here or in another process; then all of them end with one.
    """
    result = problem = None
    for turn_of_first in (True, False):
        if is_first() == turn_of_first:
            try:
                result = work()
            except InputError as error:
                problem = error
        if any_of(problem is not None):
            raise problem or InputError(f'{what}: another process of this run says what is wrong')
    return result


def to_host(tree: Tree) -> Tree:
    """Arrays of all devices as numpy arrays, whole, in every process."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    return multihost_utils.process_allgather(tree, tiled=True)
