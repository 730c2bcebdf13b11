"""Commands that get signals. Each is a fork of one process, which has imported all modules, because that takes seconds."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from typing import NamedTuple

import psutil
from helper import ROOT

# Reads a line for each command: its name, arguments, working folder and log. The last exit function, which Python calls
# before it takes the signal handlers away, writes a line to the log.
SERVER = """
import atexit, gc, json, os, runpy, sys
sys.modules["torch"] = None  # tensorboardX would import it where it is installed, for nothing
from helper import small_networks
import grain, matplotlib, ml_collections, tensorboardX, tensorflow_datasets, uvicorn
from hyperrecon_jax import explorer, figures
from hyperrecon_jax.cli import command
from hyperrecon_jax.commands import choose, compare, evaluate_acquisitions, evaluation_results, export, prepare, train
from hyperrecon_jax.data import builder
from hyperrecon_jax.studies import study
from matplotlib.backends import backend_pdf

figures.lambda_histogram = lambda path, **options: path.touch()
evaluation_results.draw = lambda *_, **__: []
compare._draw = lambda *_, **__: None
compare.draw_gaps = lambda path, *_, **__: path.touch()
gc.freeze()
with small_networks():
    for line in sys.stdin:
        if pid := os.fork():
            print(pid, flush=True)
            _, status, used = os.wait4(pid, 0)
            print(os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime, flush=True)
            continue
        name, args, folder, log = json.loads(line)
        os.chdir(folder)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for stream in (1, 2):
            os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
        atexit.register(os.write, 2, b"END OF PYTHON")
        sys.argv = [f"bin/{name}.py", *args]
        runpy.run_module(f"bin.{name}", run_name="__main__")
"""
END = "END OF PYTHON"


class Ended(NamedTuple):
    """What came of a command."""

    status: int  # -N if signal N ended it by itself
    output: str  # of both streams
    seconds: float  # of CPU time, with that of its workers
    late_seconds: float  # of these, after the signal
    is_handled: bool  # False: SIGTERM itself ended the process between the command's first line and the end of Python


class CommandServer:
    """Runs commands, and sends each a signal after some CPU seconds: a busy machine gets as far in them as a quiet one."""

    def __init__(self, process, folder):
        self.process = process
        self.folder = folder  # where the commands run
        self.temporary = folder / "temporary"  # for their temporary files

    def run(self, name, args, *, number=None, after=0.0):
        """Run `python -m bin.NAME ARGS`; it gets the signal `number` unless it ends within `after` CPU seconds.

        It gets it earlier, by the clock, if it takes so little: a server that waits for requests.
        """
        log = self.folder / "log.txt"
        log.write_text("")
        self.process.stdin.write(json.dumps([name, args, str(self.folder), str(log)]) + "\n")
        command, sent, workers = int(self.process.stdout.readline()), None, []
        if number is not None:
            with contextlib.suppress(psutil.NoSuchProcess):  # it has ended
                command = psutil.Process(command)
                latest = time.monotonic() + 5 + 10 * after
                while _cpu_seconds(command) < after and time.monotonic() < latest:
                    time.sleep(0.03)
                sent = _cpu_seconds(command)
                workers = command.children(recursive=True)
                command.send_signal(number)
        status, seconds = self.process.stdout.readline().split()
        _, alive = psutil.wait_procs(workers, timeout=60)  # they end a little later than a command that is killed
        assert not alive, alive
        status, seconds = int(status), float(seconds)
        printed, end, _ = log.read_text().partition(END)
        is_handled = status != -signal.SIGTERM or not printed or bool(end)
        return Ended(status, printed, seconds, 0.0 if sent is None else seconds - sent, is_handled)


@contextlib.contextmanager
def start_command_server(folder):
    """A context with a server whose commands run in a folder, with small networks and nearly without pictures."""
    (folder / "temporary").mkdir()
    env = {
        **os.environ,
        "TMPDIR": str(folder / "temporary"),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
        "PYTHONUNBUFFERED": "1",  # keeps the order of the output
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    with subprocess.Popen([sys.executable, "-W", "ignore", "-c", SERVER], env=env, **pipes) as process:
        yield CommandServer(process, folder)
        process.stdin.close()


def _cpu_seconds(process):
    """The CPU seconds of a process and of its workers."""
    total = sum(process.cpu_times()[:4])  # with workers that have ended
    for worker in process.children():
        with contextlib.suppress(psutil.NoSuchProcess):
            total += sum(worker.cpu_times()[:2])
    return total
