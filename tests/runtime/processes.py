"""Real processes on this machine that work together, each with one device."""

import contextlib
import os
import socket
import subprocess
import sys

from helper import ROOT

# A command with a small network. It sends SIGNAL to its own process when step SIGNAL_STEP is logged, and sleeps DELAY
# seconds before it trains, as if it compiled for so long.
COMMAND = """
import os, runpy, sys, time
from helper import small_networks
from hyperrecon_jax.commands import train

original = train.fit
def fit(*args, on_log, **options):
    def log(step, *rest):
        on_log(step, *rest)
        if step == SIGNAL_STEP:
            os.kill(os.getpid(), SIGNAL)
    time.sleep(DELAY)
    return original(*args, on_log=log, **options)

train.fit = fit
with small_networks():
    sys.argv[0] = MODULE
    runpy.run_module(MODULE, None, "__main__", True)
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def start_process(code, *args, **environment):
    """Start Python with a program text and one JAX device."""
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
        "JAX_NUM_CPU_DEVICES": "1",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        **environment,
    }
    command = [sys.executable, "-c", code, *map(str, args)]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_processes(processes, timeout=120):
    """Return the status, output and errors of each process; none stays alive."""
    try:
        texts = [process.communicate(timeout=timeout) for process in processes]
        return [(process.returncode, *text) for process, text in zip(processes, texts, strict=True)]
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                process.kill()


def run_in_two_processes(
    module, *args, second_args=(), signal=0, signal_step=0, delay=0, second_environment=None, timeout=120
):
    """Run a command in two processes; all options but the timeout are for the second one."""
    coordinator = ("--coordinator", f"localhost:{free_port()}", "--processes", 2)
    constants = "MODULE, SIGNAL, SIGNAL_STEP, DELAY = "
    first = f"{constants}{module!r}, 0, 0, 0" + COMMAND
    second = f"{constants}{module!r}, {int(signal)}, {signal_step}, {delay}" + COMMAND
    return wait_for_processes(
        [
            start_process(first, *args, *coordinator, "--process", 0),
            start_process(second, *args, *second_args, *coordinator, "--process", 1, **(second_environment or {})),
        ],
        timeout,
    )
