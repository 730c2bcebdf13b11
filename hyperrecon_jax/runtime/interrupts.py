"""Ctrl-C and SIGTERM as an exception that Python cannot lose.

A signal handler raises `KeyboardInterrupt` in the main thread. Python drops the exception if it comes in a callback that a
library calls, such as that of JAX for the garbage collector, and the program would go on. So a timer raises it again, until
it is being handled. JAX is not imported here, because commands call this before anything else.
"""

import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import NoReturn

STATUS = 130  # the exit status of a command that was interrupted
REPEAT = 0.2  # seconds after which an exception that was dropped is raised again
PATIENCE = 2.0  # seconds that another exception may be handled: it may be what a library made of the interruption
SAME_EVENT = 1.0  # seconds: signals so close together are one event; `timeout` and schedulers send two
EXIT_PATIENCE = 3.0  # seconds that threads of libraries have to end
BACKGROUND = "background"  # name of threads that compute and may be dropped
DROPPED = (BACKGROUND, "AnyIO")  # how the names of such threads begin; the second are those of the explorer's server


def end_on_signals() -> Callable[[], bool]:
    """From here on Ctrl-C and SIGTERM raise `KeyboardInterrupt`; a second one, more than a second later, ends the process.

    Returns:
        A function: whether a signal has come.
    """
    first: float | None = None

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
    atexit.register(
        _stop_timer
    )  # the last of all: Python then takes the handlers away, and the timer would kill the process
    return lambda: first is not None


def raise_until_handled(is_wanted: Callable[[], bool] = lambda: True) -> NoReturn:
    """Raise `KeyboardInterrupt`, and again after `REPEAT` seconds if it was dropped. A signal handler calls this.

    Args:
        is_wanted: whether it is to be raised again; once this is False, it stays away.
    """
    start = time.monotonic()

    def raise_again(number, frame):
        if not is_wanted():
            _stop_timer()
        elif not _is_being_handled(time.monotonic() - start):
            raise KeyboardInterrupt

    if hasattr(signal, "setitimer"):  # not on Windows
        signal.signal(signal.SIGALRM, raise_again)
        signal.setitimer(signal.ITIMER_REAL, REPEAT, REPEAT)
    raise KeyboardInterrupt


def finish(status: int) -> None:
    """Nothing is left to do but to exit with a status: from here on a signal does that at once.

    After an interruption threads that still compute, such as XLA's compiler, hold up the exit for `EXIT_PATIENCE` seconds.
    If there are threads that may be dropped, it ends now: Python's own end would abort the process while one computes.
    """

    def end(number, frame):
        os._exit(status)

    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    if any(thread.name.startswith(DROPPED) for thread in threading.enumerate()):
        os._exit(status)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGALRM, end)
        signal.setitimer(signal.ITIMER_REAL, EXIT_PATIENCE if status == STATUS else 0)


def _stop_timer() -> None:
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, 0)


def _is_being_handled(seconds: float) -> bool:
    """Whether the main thread is in an `except` or `finally` because of the interruption, which is `seconds` old."""
    error = current = sys.exception()
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return current is not None and seconds < PATIENCE
