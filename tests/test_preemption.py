"""A run that is ended from outside at any moment and begun again by the same command loses nothing."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from helper import ROOT

from hyperrecon_jax import checkpoint, logs
from hyperrecon_jax.experiment import load

pytestmark = pytest.mark.usefixtures("small_network")

# Forks, for each line of arguments, a process that is `python -m bin.train` with all that it imports imported.
SERVER = """
import json, os, runpy, sys
from helper import small_networks
import grain, matplotlib, ml_collections, tensorboardX
from hyperrecon_jax import figures, run

figures.lambda_histogram = lambda path, **options: path.touch()
with small_networks():
    for line in sys.stdin:
        if pid := os.fork():
            print(pid, flush=True)
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
            continue
        args, said = json.loads(line)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for stream in (1, 2):
            os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
        sys.argv = ["bin/train.py", *args]
        runpy.run_module("bin.train", run_name="__main__")
"""
CONFIG = """
from hyperrecon_jax.config import default_config

def get_config():
    config = default_config()
    config.data.source = "arrays"
    for split in ("train", "val", "test"):
        config.data[split] = {folder!r} + f"/{{split}}.npy"
    config.loss.terms = "data_consistency", "weight_l1", "total_variation"
    config.loss.ground_truth, config.loss.scales, config.loss.pilot_steps = False, ("auto",), 3
    config.model.width, config.model.hyper_width = 2, 3
    config.train.steps, config.train.batch, config.dhs.keep = 60, 4, 2
    config.train.log_every, config.train.save_every = 1, 6
    return config
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("preempted")
    rng = np.random.default_rng(0)
    for split, count in (("train", 10), ("val", 3), ("test", 4)):
        np.save(folder / f"{split}.npy", rng.random((count, 16, 16), np.float32))
    (folder / "tiny.py").write_text(CONFIG.format(folder=str(folder)))
    return folder


@pytest.fixture(scope="module")
def train(folder):
    """Train in a sub-folder and end that with a signal after some seconds: the exit status, None if it had ended before."""
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    with subprocess.Popen([sys.executable, "-W", "ignore", "-c", SERVER], env=env, **pipes) as server:

        def train(name, number=None, after=0.0):
            args = ["--config", str(folder / "tiny.py"), "--workdir", str(folder / name)]
            server.stdin.write(json.dumps([args, str(folder / f"{name}.txt")]) + "\n")
            pid = int(server.stdout.readline())
            if number is not None:
                time.sleep(after)
                with contextlib.suppress(ProcessLookupError):  # it has ended
                    os.kill(pid, number)
            return int(server.stdout.readline())

        yield train
        server.stdin.close()


@pytest.fixture(scope="module")
def undisturbed(train):
    """How long it takes; what the run leaves is in the sub-folder "undisturbed"."""
    train("warm", signal.SIGKILL, after=0.0)  # the server is there
    assert train("first") == 0  # what it compiles is kept
    start = time.monotonic()
    assert train("undisturbed") == 0
    return time.monotonic() - start


def results(workdir):
    """All that a finished run leaves, but for times and memory, and for what was saved before the end."""
    _, state = load(workdir)
    summary = checkpoint.read_json(workdir / checkpoint.SUMMARY)
    rows = [{**row, "seconds": 0} for row in logs.read_rows(workdir / checkpoint.METRICS)]
    with np.load(workdir / checkpoint.HISTOGRAM) as histogram:
        counts = histogram["counts"].tolist()
    validated = {row["step"]: row["val/loss"] for row in rows if "val/loss" in row}
    best = min(validated, key=validated.get)
    assert (workdir / checkpoint.CHECKPOINTS / str(best)).is_dir()
    return {
        "state": [leaf.tobytes() for leaf in jax.tree.leaves(jax.device_get(state))],
        "rows": rows,
        "lambdas": (workdir / checkpoint.LAMBDAS).read_text(),
        "scales": (workdir / checkpoint.SCALES).read_text(),
        "summary": [summary[key] for key in ("test", "test_images", "parameters", "steps")],
        "histogram": counts,
    }


def test_the_undisturbed_run_logs_each_step_once(undisturbed, folder):
    rows = results(folder / "undisturbed")["rows"]
    assert [row["step"] for row in rows if "train/loss" in row] == list(range(1, 61))
    assert [row["step"] for row in rows if "val/loss" in row] == list(range(6, 61, 6))


@pytest.mark.parametrize(("number", "times"), [(signal.SIGTERM, 20), (signal.SIGKILL, 5)])
def test_nothing_is_lost(train, undisturbed, folder, number, times):
    """As many runs as it takes, each equal to one that nobody disturbed, bit for bit."""
    moments = random.Random(number)
    runs = 0
    while times:
        runs += 1
        name = f"{number.name}-{runs}"
        said = folder / f"{name}.txt"
        status = None
        while status != 0:
            before = len(said.read_text()) if said.exists() else 0
            status = train(name, number if times else None, after=moments.uniform(0, undisturbed))
            new = said.read_text()[before:]
            if status == 130:
                assert new.endswith((" The same command goes on from there.\n", "error: interrupted.\n"))
            elif status:
                assert status == -number
                # before Python can tell or after all is done
                assert number == signal.SIGKILL or not new or "\nNext: " in new
            times -= bool(status)
            print(status, [l[:60] for l in new.splitlines()[-2:]])
        assert "Traceback" not in said.read_text()
        assert results(folder / name) == results(folder / "undisturbed")
