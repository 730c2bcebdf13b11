"""The connection between the processes of a job, and how a process ends when it has an error.

`jax.distributed` connects them. JAX's coordinator runs in the primary process. It receives a heartbeat from each process,
and ends all processes if one sends none for `HEARTBEAT_TIMEOUT` seconds. An error in one process ends that process at once,
unless all processes raise an error (`exit_on_error`). The others end when their next collective operation fails, or when
the coordinator misses the heartbeat.
"""

import contextlib
import itertools
import os
import re
import socket
import sys
import threading
import traceback
from collections.abc import Iterator
from typing import Any

import jax

from hyperrecon_jax.runtime.distributed import process_count, wait_for_all
from hyperrecon_jax.runtime.errors import Diverged, InputError

AUTO = "auto"
CONNECT_TIMEOUT = 300  # seconds for all processes to start
HEARTBEAT_TIMEOUT = 60  # seconds without a heartbeat after which JAX considers a process dead
EXIT_TIMEOUT = 5  # seconds that a process with an error waits to see whether all others failed, too
# words in the messages of JAX, gloo and NCCL if a process is lost
LOST_PROCESS = re.compile(
    "gloo|nccl|rccl|coordination|connection|socket|barrier|sync_global_devices|deadline_exceeded|unavailable", re.IGNORECASE
)

_error_numbers = itertools.count()  # make the names of barriers unique


@contextlib.contextmanager
def connect_processes(coordinator: str | None, processes: int | None, process: int | None) -> Iterator[None]:
    """Connect to the other processes; at the end, wait for all of them. Call it before any computation with JAX.

    Args:
        coordinator: "ADDRESS:PORT" of the primary process; "auto": JAX finds all three arguments (Slurm, Open MPI,
            Kubernetes, TPU pods); None: there is one process.
        processes: the number of processes.
        process: the number of this process, from 0.

    Raises:
        InputError: if the arguments do not fit together, the port is in use, or a process is missing after
            `CONNECT_TIMEOUT` seconds.
    """
    _check_arguments(coordinator, processes, process)
    if coordinator is None:
        yield
        return
    _initialize(coordinator, processes, process)
    with exit_on_error():
        yield
        wait_for_all("end")
    jax.distributed.shutdown()


@contextlib.contextmanager
def exit_on_error() -> Iterator[None]:
    """End this process at once if the body of the with statement raises an error, unless all processes raise one.

    A normal exit waits for the other processes (Orbax closes checkpoints, JAX shuts down), and those may wait for this one.
    If all processes raise an error, as for a bad setting, or if there is one process, it is raised as usual.
    """
    try:
        yield
    except BaseException as error:
        if process_count() > 1:
            try:
                wait_for_all(f"error/{next(_error_numbers)}", EXIT_TIMEOUT)
            except BaseException:  # the barrier timed out: the others still run, or are lost
                _exit(*_report_error(error))
        raise


def is_lost_process(error: BaseException) -> bool:
    """Return whether an error says that another process ended or cannot be reached."""
    if process_count() == 1:
        return False
    text = f"{error} {error.__cause__} {error.__context__}"
    return LOST_PROCESS.search(text) is not None


def _check_arguments(coordinator: str | None, processes: int | None, process: int | None) -> None:
    """Raise `InputError` if the arguments of `connect_processes` do not fit together."""
    address, _, port = (coordinator or "").rpartition(":")
    if coordinator in (None, AUTO):
        if processes is not None or process is not None:
            raise InputError("--processes and --process need the primary process's address: --coordinator ADDRESS:PORT.")
    elif not (address and re.fullmatch("[0-9]{1,5}", port) and 0 < int(port) < 2**16):
        raise InputError(f"--coordinator must be {AUTO} or ADDRESS:PORT of the primary process, got {coordinator}.")
    elif processes is None or process is None:
        raise InputError(
            "--coordinator ADDRESS:PORT needs --processes, the number of processes, and --process, the number of this one."
        )
    elif not 0 <= process < processes:
        raise InputError(f"--process must be in [0, {processes}), the number of --processes, got {process}.")


def _initialize(coordinator: str, processes: int | None, process: int | None) -> None:
    """Start JAX's coordinator on the primary process and connect to it; raise `InputError` if that fails."""
    jax.config.update("jax_enable_preemption_service", False)  # it would catch SIGTERM, which signals.py handles
    options: dict[str, Any] = {
        "initialization_timeout": CONNECT_TIMEOUT + 60,  # later than the timer below, which ends with a clear message
        "heartbeat_timeout_seconds": HEARTBEAT_TIMEOUT,
    }
    if coordinator != AUTO:
        options |= {"coordinator_address": coordinator, "num_processes": processes, "process_id": process}
        # under Slurm, detection would leave each process only one device
        options["cluster_detection_method"] = "deactivate"
        if process == 0:
            _check_port(coordinator)
    message = f"The processes did not connect by --coordinator {coordinator} in {CONNECT_TIMEOUT} s."
    timer = threading.Timer(CONNECT_TIMEOUT, _exit, [2, message])  # JAX would abort with a stack trace
    timer.daemon = True
    timer.start()
    try:
        jax.distributed.initialize(**options)
        jax.devices()  # list devices now: all processes must take part
    except (RuntimeError, ValueError, OSError, KeyError) as error:
        reason = str(error).split("\n")[0]
        if coordinator == AUTO and "efined" in reason:  # "coordinator_address should be defined."
            reason = "no Slurm, Open MPI, Kubernetes or TPU pod was found"
        elif "RPC server" in reason:
            reason = "the primary process cannot serve at that port, which may be in use"
        raise InputError(f"The processes cannot connect by --coordinator {coordinator}: {reason}.") from error
    finally:
        timer.cancel()


def _check_port(coordinator: str) -> None:
    """Raise `InputError` if this process cannot serve at the coordinator's port; JAX would crash."""
    port = int(coordinator.rpartition(":")[2])
    ipv6 = socket.has_dualstack_ipv6()
    try:
        socket.create_server(("", port), family=socket.AF_INET6 if ipv6 else socket.AF_INET, dualstack_ipv6=ipv6).close()
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise InputError(
            f"The primary process cannot serve at the port of --coordinator {coordinator}: {reason}; choose another port."
        ) from error


def _report_error(error: BaseException) -> tuple[int, str]:
    """Return the exit status and the sentence for the user; print the traceback of a bug."""
    if isinstance(error, KeyboardInterrupt):
        return 130, "interrupted."
    if isinstance(error, (InputError, Diverged)):
        return (2 if isinstance(error, InputError) else 1), str(error)
    message = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
    if is_lost_process(error):
        return (
            1,
            f"Another process ended or cannot be reached; the same command resumes from the last checkpoint. ({message})",
        )
    traceback.print_exception(error)
    return 1, message


def _exit(status: int, message: str) -> None:
    """Print an error and end this process without waiting for the others."""
    print(f"error: {message}", file=sys.stderr, flush=True)
    os._exit(status)
