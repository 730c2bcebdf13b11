"""A run that is ended from outside at any moment and started again by the same command loses nothing."""

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import psutil
import pytest
from helper import ROOT, write_splits

from hyperrecon_jax.runs import logs, run_folder
from hyperrecon_jax.runs.load import load_state

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("small_network")]

# For each line of arguments, forks a process that runs `python -m bin.train`; all modules are imported before the fork.
SERVER = """
import gc, json, os, runpy, sys
sys.modules["torch"] = None  # tensorboardX would import it where it is installed, for nothing
from helper import small_networks
import grain, matplotlib, ml_collections, tensorboardX
from hyperrecon_jax import figures
from hyperrecon_jax.commands import train

figures.lambda_histogram = lambda path, **options: path.touch()
gc.freeze()
with small_networks():
    for line in sys.stdin:
        if pid := os.fork():
            print(pid, flush=True)
            _, status, used = os.wait4(pid, 0)
            print(os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime, flush=True)
            continue
        args, log = json.loads(line)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for stream in (1, 2):
            os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
        sys.argv = ["bin/train.py", *args]
        runpy.run_module("bin.train", run_name="__main__")
"""
CONFIG = """
from hyperrecon_jax.config import default_config

def get_config():
    config = default_config()
    config.data.update({data})
    config.loss.terms = "data_consistency", "weight_l1", "total_variation"
    config.loss.ground_truth, config.loss.scales, config.loss.pilot_steps = False, ("auto",), 3
    config.model.width, config.model.hyper_width = 2, 3
    config.train.steps, config.train.batch, config.dhs.keep = 60, 4, 2
    config.train.log_every, config.train.save_every = 3, 4
    return config
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("preempted")
    (folder / "tiny.py").write_text(CONFIG.format(data=write_splits(folder, train=10, val=3, test=4)))
    return folder


@pytest.fixture(scope="module")
def train(folder):
    """A function that trains in a subfolder, sends a signal after some CPU seconds, and returns the status and CPU seconds.

    In a number of CPU seconds a run gets as far on a busy machine as on a quiet one.
    """
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
        "PYTHONUNBUFFERED": "1",  # keeps the order of the output
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    with subprocess.Popen([sys.executable, "-W", "ignore", "-c", SERVER], env=env, **pipes) as server:

        def train(name, number=None, after=0.0):
            args = ["--config", str(folder / "tiny.py"), "--workdir", str(folder / name)]
            server.stdin.write(json.dumps([args, str(folder / f"{name}.txt")]) + "\n")
            pid = int(server.stdout.readline())
            with contextlib.suppress(psutil.NoSuchProcess):  # it has ended
                process = psutil.Process(pid)
                while number is not None and sum(process.cpu_times()[:2]) < after:
                    time.sleep(0.005)
                if number is not None:
                    process.send_signal(number)
            status, seconds = server.stdout.readline().split()
            return int(status), float(seconds)

        yield train
        server.stdin.close()


@pytest.fixture(scope="module")
def undisturbed(train):
    """The CPU seconds of a run without a signal, in the subfolder "undisturbed"."""
    assert train("first")[0] == 0  # fills the compilation cache
    status, seconds = train("undisturbed")
    assert status == 0
    return seconds


def results(workdir):
    """The results of a finished run, without times, memory and earlier checkpoints."""
    _, state = load_state(workdir)
    summary = run_folder.read_json(workdir / run_folder.SUMMARY)
    rows = [{**row, "seconds": 0} for row in logs.read_rows(workdir / run_folder.METRICS)]
    with np.load(workdir / run_folder.HISTOGRAM) as histogram:
        counts = histogram["counts"].tolist()
    validated = {row["step"]: row["val/loss"] for row in rows if "val/loss" in row}
    best = min(validated, key=validated.get)
    assert (workdir / run_folder.CHECKPOINTS / str(best)).is_dir()
    return {
        "state": [leaf.tobytes() for leaf in jax.tree.leaves(jax.device_get(state))],
        "rows": rows,
        "lambdas": (workdir / run_folder.LAMBDAS).read_text(),
        "scales": (workdir / run_folder.SCALES).read_text(),
        "summary": [summary[key] for key in ("test", "test_images", "parameters", "steps")],
        "histogram": counts,
    }


def test_the_undisturbed_run_logs_at_its_intervals(undisturbed, folder):
    rows = results(folder / "undisturbed")["rows"]
    expected = [step for step in range(1, 61) if step == 1 or not step % 3 or not step % 4]
    assert [row["step"] for row in rows if "train/loss" in row] == expected
    assert [row["step"] for row in rows if "val/loss" in row] == list(range(4, 61, 4))


@pytest.mark.parametrize(("number", "signals"), [(signal.SIGTERM, 20), (signal.SIGKILL, 4)])
def test_nothing_is_lost(train, undisturbed, folder, number, signals):
    """Runs are started until all signals are sent; each run has the same results as the undisturbed one, bit for bit."""
    random_times = random.Random(number)
    runs = 0
    while signals:
        runs += 1
        name = f"{number.name}-{runs}"
        log = folder / f"{name}.txt"
        status, saved_step = None, 0
        while status != 0:
            length = len(log.read_text()) if log.exists() else 0
            status, _ = train(name, number if signals else None, after=random_times.uniform(0, 0.6 * undisturbed))
            output = log.read_text()[length:]
            if number == signal.SIGTERM:
                if resumed := re.search(r"Resuming from step (\d+)\.", output):
                    assert int(resumed[1]) == saved_step
                if saved := re.search(r"Interrupted at step (\d+); it is saved .* The same command resumes.*\n$", output):
                    saved_step = int(saved[1])
                if "\nScoring the test set" in output:
                    saved_step = 60
                elif "\nstep " in output:
                    assert saved
                # the signal itself ends the process before Python handles signals, and after all is done
                assert status in (0, 130) or (status == -number and (not output or "\nNext: " in output))
                assert status != 130 or saved or output.endswith("error: interrupted.\n")
            else:
                assert status in (0, -number)
            signals -= bool(status)
        assert "Traceback" not in log.read_text()
        assert results(folder / name) == results(folder / "undisturbed")
