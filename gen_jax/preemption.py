"""Signals that ask a run to end: SIGTERM, which schedulers send, SIGINT, which is Ctrl-C, and
SIGHUP, which comes when the terminal goes away (unless it was told not to mind, as by nohup).

Inside `watched()` the first of them is only noted, and `check()`, which the loops call between two
computations, raises `Preempted`; a second SIGINT ends the process at once. Of several processes any
may be the one that is told, and all of them raise at the same call of `check()`.
"""

import contextlib
import os
import signal
from collections.abc import Iterator

import jax
from jax.experimental import multihost_utils

from gen_jax.errors import Preempted


class _Watch:
    """Whether a signal came, and how often `check` was called."""

    def __init__(self):
        self.signal: int | None = None
        self.checks = 0


_watch: _Watch | None = None


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """For the length of the block signals wait for `check()`."""
    global _watch
    _watch = _Watch()
    alone = jax.process_count() == 1
    # Of several processes JAX's own handler of SIGTERM tells the others; it has to stay.
    handlers = {signal.SIGINT: _on_interrupt}
    if alone:
        handlers[signal.SIGTERM] = _on_signal
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        handlers[signal.SIGHUP] = _on_signal
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _watch = None


def check() -> None:
    """Raises Preempted if this process, or another one of the run, was asked to end.

    All processes call it equally often. Outside of `watched()` it does nothing.
    """
    if _watch is None:
        return
    _watch.checks += 1
    if jax.process_count() > 1:
        asked = multihost_utils.reached_preemption_sync_point(_watch.checks)
    else:
        asked = _watch.signal is not None
    if asked:
        raise Preempted


def _on_interrupt(number, frame) -> None:
    if _watch.signal is not None:
        raise KeyboardInterrupt
    _on_signal(number, frame)


def _on_signal(number, frame) -> None:
    _watch.signal = number
    if jax.process_count() > 1:
        os.kill(os.getpid(), signal.SIGTERM)  # which is the one that the others hear of
