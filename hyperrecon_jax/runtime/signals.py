"""Ctrl-C and SIGTERM during training: it stops after the current step, in all processes, instead of at once."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from hyperrecon_jax.runtime.distributed import process_count
from hyperrecon_jax.runtime.interrupts import SAME_EVENT, raise_until_handled
from hyperrecon_jax.runtime.mesh import connect_devices


@contextlib.contextmanager
def defer_signals() -> Iterator[tuple[Callable[[], bool], Callable[[Callable[[], Any]], Any]]]:
    """Inside, Ctrl-C or SIGTERM only requests a stop. A second one acts as usual; of SIGTERM, if it comes a second later.

    Yields:
        is_stop_requested: whether this process has received a signal.
        run_interruptible: `run_interruptible(work)` returns `work()`, or None if a signal has come or interrupts it. It is
            for work that can be repeated later. With several processes it always finishes, because they work together.
    """
    received: list[float] = []  # when
    is_interruptible = False

    def handle(number, frame):
        if not received:
            # not print: the signal may have come during one
            os.write(2, b"\nStopping after this step; the state will be saved. (Ctrl-C to stop at once.)\n")
        received.append(time.monotonic())
        signal.signal(signal.SIGINT, previous_handlers[signal.SIGINT])
        if is_interruptible:
            raise_until_handled(lambda: is_interruptible)
        if received[-1] - received[0] > SAME_EVENT:  # only SIGTERM comes here again
            signal.signal(signal.SIGTERM, previous_handlers[signal.SIGTERM])
            signal.raise_signal(signal.SIGTERM)

    def is_stop_requested():
        return bool(received)

    def run_interruptible(work):
        nonlocal is_interruptible
        if process_count() > 1:
            return work()
        result = None
        try:
            try:
                is_interruptible = True
                result = None if received else work()
            finally:
                is_interruptible = False
        except (KeyboardInterrupt, Exception):
            if not received:
                raise
            return None  # interrupted; a library may have turned that into an exception of its own
        return result

    previous_handlers: dict[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in previous_handlers:
        signal.signal(number, handle)
    try:
        yield is_stop_requested, run_interruptible
    finally:
        for number, handler in previous_handlers.items():
            signal.signal(number, handler)


def agree_on_stop(is_stop_requested: Callable[[], bool]) -> Callable[[], bool]:
    """Return a function that is true in all processes at the same call, after a stop was requested in one of them.

    All processes must call it before each step. It answers one call late: the devices sum up the requests of a call while
    they compute the step, so that no process waits for another. With a single process it is `is_stop_requested` itself.

    JAX's own `multihost_utils.reached_preemption_sync_point` is not used, because with it JAX handles SIGTERM: the signal
    would not end a process outside training, and Ctrl-C would stop one process alone.
    """
    if process_count() == 1:
        return is_stop_requested
    first_devices = {device.process_index: device for device in reversed(jax.devices())}
    mesh = Mesh(np.array([first_devices[process] for process in range(process_count())]), ("process",))
    connect_devices(mesh)
    sharded, replicated = NamedSharding(mesh, PartitionSpec("process")), NamedSharding(mesh, PartitionSpec())
    sum_up = jax.jit(jnp.sum, out_shardings=replicated)
    previous_sum: jax.Array | None = None

    def is_stop_agreed():
        nonlocal previous_sum
        is_agreed = previous_sum is not None and int(previous_sum) > 0
        previous_sum = sum_up(jax.make_array_from_process_local_data(sharded, np.array([is_stop_requested()], np.int32)))
        return is_agreed

    return is_stop_agreed
