"""Ctrl-C and SIGTERM while something long is under way: it ends after its step instead of at once."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

from hyperrecon_jax.runtime import distributed


@contextlib.contextmanager
def until_signalled() -> Iterator[tuple[Callable[[], bool], Callable[[Callable[[], Any]], Any]]]:
    """Inside, Ctrl-C or SIGTERM only makes the first function true; a second Ctrl-C acts as ever.

    Yields also a function that does what can be done again later, and returns its result: None if a signal came before its
    end, which breaks it off.
    """
    received: list[int] = []
    breakable: list[bool] = []

    def handle(number, frame):
        if not received:
            # not print: the signal may have come in the middle of one
            os.write(2, b"\nStopping after this step; the state will be saved. (Ctrl-C to stop at once.)\n")
        received.append(number)
        signal.signal(signal.SIGINT, previous[signal.SIGINT])
        if breakable:
            raise KeyboardInterrupt

    def unless_signalled(work):
        if distributed.process_count() > 1:  # which do it together
            return work()
        breakable.append(True)
        try:
            return None if received else work()
        except KeyboardInterrupt:
            return None
        finally:
            breakable.clear()

    previous: dict[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in previous:
        signal.signal(number, handle)
    try:
        yield lambda: bool(received), unless_signalled
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
