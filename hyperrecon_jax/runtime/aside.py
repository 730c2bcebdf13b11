"""A call in a process of its own, which can be ended at once and does not slow down this one's threads.

The process is a fork of a server of Python's `multiprocessing`, which imports modules once, because that can take seconds.
"""

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from typing import Any

from hyperrecon_jax.runtime.errors import InputError
from hyperrecon_jax.runtime.workers import end_with_parent

NICENESS = 10  # the system gives these processes the time that others leave


def start_server(preload: Sequence[str]) -> None:
    """Start the server unless it runs. It imports the modules `preload`; a call that comes before that waits for it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    with _block_interrupt():
        forkserver.ensure_running()


class Aside:
    """A call that has been started.

    Args:
        function: a function that `pickle` can name; its module should be quick to import.
        args, options: its arguments; they and the result are sent through a pipe.
    """

    def __init__(self, function: Callable[..., Any], *args: Any, **options: Any):
        context = multiprocessing.get_context("forkserver")
        self._connection, child_end = context.Pipe()
        self._process = context.Process(target=_call, args=(child_end,), daemon=True)
        with _block_interrupt():
            self._process.start()
        child_end.close()
        with contextlib.suppress(BrokenPipeError):  # it was ended; `result` says so
            self._connection.send((function, args, options))

    def is_finished(self) -> bool:
        """Whether `result` will not wait."""
        return self._connection.poll()

    def result(self) -> Any:
        """The result of the function; raises what it raises, or `InputError` if the process was ended from outside."""
        try:
            is_error, value = self._connection.recv()
        except EOFError:
            raise InputError(
                "The computation must have room: its process was ended from outside, as happens where memory runs out."
            ) from None
        finally:
            self.end()
        if is_error:
            raise value
        return value

    def end(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()
        self._connection.close()


def _call(connection: Connection) -> None:
    """The process: send whether the function raised an exception, and the exception or the result."""
    end_with_parent()
    os.nice(NICENESS)
    with contextlib.suppress(EOFError, OSError):  # nobody is left to send to
        function, args, options = connection.recv()
        try:
            answer = False, function(*args, **options)
        except Exception as error:
            answer = True, error
        connection.send(answer)


@contextlib.contextmanager
def _block_interrupt() -> Iterator[None]:
    """Processes that are started inside get no Ctrl-C, which would print a traceback; they end with this process."""
    resource_tracker.ensure_running()  # it would start inside otherwise, and then unblock Ctrl-C
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
