"""Worker processes, which end with the process that started them."""

import multiprocessing
import os
import signal
import threading
from multiprocessing import connection


def end_with_parent(reaction: signal.Handlers = signal.SIG_DFL) -> None:
    """A worker calls this at its start: it ends when its parent does, even if that is killed.

    Otherwise it would wait for work for ever, since other workers keep the same pipes open.

    Args:
        reaction: what Ctrl-C and SIGTERM do, which often come to a parent and its workers together. With SIG_DFL they end
            the worker, with SIG_IGN the parent still gets what it needs to save its state.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, reaction)
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
