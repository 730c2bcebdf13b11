"""Ctrl-C at random moments of `bin.explore`, in real processes: while it starts, waits, computes, gets a file."""

import contextlib
import os
import queue
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import psutil
import pytest
from helper import ROOT, npy_bytes, run_python, write_explorable

from tests.data.test_coils import IMAGE, smooth_coils
from tests.explorer.serving import Client
from tests.explorer.test_engine import centred

pytestmark = pytest.mark.slow

SEED = 0
EARLIEST = 0.05  # CPU seconds: before that Python itself starts, whose own Ctrl-C nobody can handle
BEFORE_READY = 7  # moments
AFTER_READY = ("wait", "reconstruct", "best", "diverse", "coils", "upload", "stalled", "best and coils")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_explorable(tmp_path_factory.mktemp("runs"))


@contextlib.contextmanager
def started(folder):
    """The command and the lines that it prints; nothing of it is left at the end."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_STATE_HOME": str(folder), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "bin.explore", "--run", "run", "--port", "0", "--noopen"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=folder, env=env, start_new_session=True, **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


def interrupt(process, name):
    """Send Ctrl-C as a terminal does, to all processes of the command, and check how it ends."""
    workers = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)
    start = time.monotonic()
    _, errors = process.communicate(timeout=60)
    print(name, process.returncode, round(time.monotonic() - start, 2), errors.splitlines()[-1:])
    assert process.returncode == 130, errors
    for word in ("Traceback", "Fatal", "Aborted", "terminate called", "Exception"):
        assert word not in errors, errors
    assert errors.endswith("error: interrupted.\n") or not errors  # nothing, while modules are imported
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert not alive


def cpu_seconds(process):
    return sum(psutil.Process(process.pid).cpu_times()[:2])


def read_address(process):
    """Host and token, once the command prints them; `communicate` reads what it prints later."""
    line = ""
    while "The explorer is at" not in line:
        line = process.stdout.readline()
        assert line
    return re.search(r"http://([^/]+)/\?token=(\S+)", line).groups()


def test_while_it_starts(folder):
    with started(folder) as process:
        read_address(process)
        total = cpu_seconds(process)
        interrupt(process, f"ready after {total:.2f} CPU seconds")
    moments = random.Random(SEED)
    for after in [EARLIEST, *(moments.uniform(EARLIEST, total) for _ in range(BEFORE_READY - 1))]:
        with started(folder) as process:
            while cpu_seconds(process) < after:
                time.sleep(0.005)
            interrupt(process, f"start {after:.2f} of {total:.2f} CPU seconds")


def keep_busy(client, activity, failures):
    """Do something that takes long, in threads of the test; what fails before the interruption goes to `failures`."""

    def ask(*args, **options):
        while True:
            try:
                answer = client.send(*args, **options)
            except (OSError, Exception) as error:  # the server was interrupted
                return error
            if answer.status != 200:
                failures.put(answer)

    slice_of = {"volume": "test", "index": 0}
    if "reconstruct" in activity:
        for k in range(3):
            threading.Thread(target=ask, args=("GET", "/api/reconstruct", {**slice_of, "lam": k / 3}), daemon=True).start()
    if "best" in activity:
        best = ("GET", "/api/best", {**slice_of, "metric": "ssim"})
        threading.Thread(target=ask, args=best, daemon=True).start()
    if "diverse" in activity:
        threading.Thread(target=ask, args=("GET", "/api/diverse", {**slice_of, "count": 6}), daemon=True).start()
    if "coils" in activity:
        kspace = centred(smooth_coils(4, 64, 64) * IMAGE)[None]
        answer = client.send("POST", "/api/volumes", {"name": "k.npy", "kind": "kspace"}, npy_bytes(kspace))
        volume = {"volume": answer.json()["id"], "index": 0}
        threading.Thread(target=ask, args=("GET", "/api/slice", volume), daemon=True).start()
    if "upload" in activity:
        upload = ("POST", "/api/volumes", {"name": "a.npy"}, npy_bytes(IMAGE[None].repeat(400, 0)))
        threading.Thread(target=ask, args=upload, daemon=True).start()
    if "stalled" in activity:
        connection = socket.create_connection(client.host.split(":"))
        head = f"POST /api/volumes?name=a&token={client.token} HTTP/1.1\r\nHost: {client.host}\r\n"
        connection.sendall(f"{head}Content-Length: 999\r\n\r\nab".encode())
        return connection
    return contextlib.nullcontext()


def test_while_it_works(folder):
    moments = random.Random(SEED)
    for activity in AFTER_READY:
        failures = queue.Queue()
        with started(folder) as process:
            client = Client(*read_address(process))
            with keep_busy(client, activity, failures):
                time.sleep(moments.uniform(0.0, 4.0))
                interrupt(process, activity)
        assert failures.empty(), failures.get()


def test_a_script_that_shows_the_widget_may_end_while_it_compiles(tmp_path):
    """Python's own way to exit aborts the process while a thread is inside of the compiler."""
    write_explorable(tmp_path)
    code = f"from hyperrecon_jax import explorer; explorer.widget({str(tmp_path / 'run')!r})"
    result = run_python("-c", code, cwd=tmp_path)
    assert (result.returncode, result.stdout) == (0, "")
    assert "terminate" not in result.stderr
