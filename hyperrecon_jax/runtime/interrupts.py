"""Ctrl-C and SIGTERM end a command by `KeyboardInterrupt`, which is raised again if it gets lost.

The signal handler raises the exception in the main thread, wherever that is. It may be inside a callback that a library
calls, such as that of JAX for the garbage collector: Python prints and drops an exception there, and the program would go
on. So a timer raises it again and again, until an `except` or `finally` handles it. While a module is being imported the
exception waits: an interrupted import of JAX's libraries may abort the process, and that of NumPy prints a traceback.

A command calls `end_on_signals` at its start and `finish` at its end. In between, `runtime/signals.py` defers signals while
a training must first save its state. While Python itself starts or ends, a signal kills the process as usual. JAX is not
imported here, because commands call this before anything else.
"""

import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

STATUS = 130  # the exit status of a command that was interrupted
RAISE_AGAIN_AFTER = 0.2  # seconds from an exception that was dropped to the next
PATIENCE = 2.0  # seconds that another exception may be handled: it may be what a library made of the interruption
SAME_EVENT = 1.0  # seconds: signals so close together are one event; `timeout` and schedulers send two
EXIT_PATIENCE = 3.0  # seconds that the threads of libraries have to end after an interruption
BACKGROUND = "background"  # name of our threads that compute and may be abandoned
HAS_TIMER = hasattr(signal, "setitimer")  # not on Windows
ABANDONED = (BACKGROUND, "AnyIO")  # how the names of such threads begin; the second are those of the explorer's server


def end_on_signals() -> Callable[[], bool]:
    """From now on Ctrl-C and SIGTERM raise `KeyboardInterrupt`; a second one, more than a second later, ends the process.

    Returns:
        A function: whether a signal has come.
    """
    first: float | None = None  # when the first signal came

    def handle(number, frame):
        nonlocal first
        if first is None:
            first = time.monotonic()
            raise_until_handled()
        if time.monotonic() - first > SAME_EVENT:
            os.write(2, b"error: interrupted.\n")  # not print: the signal may have come during one
            os._exit(STATUS)

    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as Ctrl-C is for the jobs that a script starts with &
            signal.signal(number, handle)
    # Exit functions that are registered later run before this one. After it Python takes the signal handlers away, and
    # without one the timer's signal would kill the process.
    atexit.register(_stop_timer)
    return lambda: first is not None


def raise_until_handled(is_wanted: Callable[[], bool] = lambda: True) -> None:
    """Raise `KeyboardInterrupt`, and again after `RAISE_AGAIN_AFTER` seconds if it was dropped. Signal handlers call this.

    While a module is being imported, it is raised soon after that.

    Args:
        is_wanted: whether it is to be raised again; once this is False, it stays away.
    """
    start = time.monotonic()

    def raise_again(number, frame):
        if not is_wanted():
            _stop_timer()
        elif not _is_importing() and not _is_being_handled(time.monotonic() - start):
            raise KeyboardInterrupt

    _start_timer(raise_again, RAISE_AGAIN_AFTER, repeat=True)
    if not (_is_importing() and HAS_TIMER):
        raise KeyboardInterrupt


def finish(status: int) -> None:
    """From now on, when nothing is left to do but to exit with this status, a signal does that at once.

    After an interruption, threads that still compute, such as those of XLA's compiler, hold up the exit for at most
    `EXIT_PATIENCE` seconds. With threads that may be abandoned the process exits here: while one of them computes, Python's
    own way to exit would abort the process.
    """

    def exit_at_once(number, frame):
        os._exit(status)

    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    # Python remembers that an `exec` of text was interrupted, as in a dataclass that is being made, and would send itself
    # SIGINT at its end instead of exiting with our status. The next `exec` of text makes it forget.
    exec("")
    if any(thread.name.startswith(ABANDONED) for thread in threading.enumerate()):
        os._exit(status)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, exit_at_once)
    _start_timer(exit_at_once, EXIT_PATIENCE if status == STATUS else 0, repeat=False)


def _start_timer(handle: Callable[[int, Any], None], seconds: float, *, repeat: bool) -> None:
    """Let the one timer call a function after some seconds, once or again and again; 0 seconds: never. Not on Windows."""
    if HAS_TIMER:
        signal.signal(signal.SIGALRM, handle)
        signal.setitimer(signal.ITIMER_REAL, seconds, seconds if repeat else 0)


def _stop_timer() -> None:
    if HAS_TIMER:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _is_importing() -> bool:
    """Whether the main thread, in a signal handler, is inside of an import."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == "_find_and_load" and frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def _is_being_handled(seconds: float) -> bool:
    """Whether the main thread is in an `except` or `finally` because of the interruption, which is `seconds` old."""
    error = current = sys.exception()
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return current is not None and seconds < PATIENCE
