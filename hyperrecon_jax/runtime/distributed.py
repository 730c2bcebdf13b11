"""Coordinate several processes: barriers, broadcasts, and work that only the primary process does.

Each process runs the same program, and JAX connects them (`connection.py`): `jax.devices()` lists the devices of all
processes, and an array may be sharded over them. So all processes must run the same computations in the same order. Values
that may differ between them, such as the content of a disk or the free memory, are read on the primary process and
broadcast. The folders of runs are on a file system that all processes share. With a single process no function here waits.
"""

import itertools
import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import numpy as np

from hyperrecon_jax.runtime.errors import InputError

T = TypeVar("T")
NO_TIMEOUT = 10**7  # seconds (116 days): practically no timeout

_barrier_numbers = itertools.count()  # every process counts the same barriers, so the names agree


def process_count() -> int:
    """Return the number of processes."""
    return jax.process_count()


def is_primary() -> bool:
    """Return whether this is the primary process, number 0: it prints for the user and writes the files."""
    return jax.process_index() == 0


def wait_for_all(name: str | None = None, timeout: float = NO_TIMEOUT) -> None:
    """Wait until all processes call this.

    Why not a collective operation: its timeout cannot be set. Before two CPU processes are connected, it is 30 s.

    Args:
        name: a unique name; None: the next number of a counter that is equal in all processes.
        timeout: in seconds.

    Raises:
        InputError: if the processes are not connected.
        jax.errors.JaxRuntimeError: after the timeout, or if a process died.
    """
    if process_count() == 1:
        return
    if not jax.distributed.is_initialized():
        raise InputError(f"This is one of {process_count()} processes: start the command in each with --coordinator.")
    from orbax.checkpoint import multihost  # Orbax's barrier takes a timeout; imported here because Orbax is slow to import

    key = f"hyperrecon/{next(_barrier_numbers) if name is None else name}"
    multihost.get_barrier_sync_fn()(key=key, timeout_ms=int(1000 * timeout))


def gather_values(value: Any) -> list[Any]:
    """Return the values of all processes in the order of the processes; values must fit into JSON."""
    content = json.dumps(value).encode()
    if process_count() == 1:
        return [json.loads(content)]
    from jax.experimental import multihost_utils

    wait_for_all()  # the first collective operation fails if a process is late
    longest = int(multihost_utils.process_allgather(np.int32(len(content))).max())
    size = 2 ** max(8, (longest - 1).bit_length())  # a power of two: JAX compiles one program for each size
    rows = multihost_utils.process_allgather(np.frombuffer(content.ljust(size), np.uint8))
    return [json.loads(row.tobytes()) for row in rows]


def broadcast_from_primary(compute: Callable[[], T]) -> T:
    """Call `compute()` on the primary process and return its result, which must fit into JSON, on all processes.

    Raises:
        InputError: on all processes, if `compute()` raises it on the primary.
    """
    if process_count() == 1:
        return compute()
    outcome: dict[str, Any] = {}
    if is_primary():
        try:
            outcome = {"result": compute()}
        except InputError as error:
            outcome = {"error": str(error)}
    outcome = gather_values(outcome)[0]
    if "error" in outcome:
        raise InputError(outcome["error"])
    return outcome["result"]


def run_on_primary(function: Callable[..., T], *args: Any, **options: Any) -> T | None:
    """Return `function(*args, **options)` on the primary process, None on the others; no process waits for another."""
    return function(*args, **options) if is_primary() else None


def run_primary_first(function: Callable[[], T]) -> T:
    """Call `function()` on all processes, on the primary first, so the others find the files that it wrote.

    Raises:
        InputError: on all processes, if `function()` raises it on the primary.
    """
    results: list[T] = []
    # only success or error is broadcast: the result may not fit in JSON
    broadcast_from_primary(lambda: results.append(function()))
    return results[0] if results else function()


def check_same_settings(settings: Mapping[str, Any]) -> None:
    """Check that all processes have the same settings.

    Args:
        settings: values by name, named as on the command line.

    Raises:
        InputError: on all processes, if a setting differs; the message names the first one.
    """
    if process_count() == 1:
        return
    primary, *others = gather_values({name: repr(value) for name, value in settings.items()})
    for name, value in primary.items():
        for process, other in enumerate(others, start=1):
            if other.get(name) != value:
                raise InputError(
                    f"All processes need the same settings, but {name} is {value} in process 0 and {other.get(name)} in"
                    f" process {process}."
                )
