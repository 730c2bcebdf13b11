"""SIGTERM and SIGKILL at random moments of all commands: each ends, and the same command then finishes.

A command that gets SIGTERM ends with status 130.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time

import psutil
import pytest
from helper import ROOT, train_explorable, write_splits

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("small_network")]

# For each line of arguments, forks a process that runs a command; all modules are imported before the fork.
SERVER = """
import gc, json, os, runpy, sys
sys.modules["torch"] = None  # tensorboardX would import it where it is installed, for nothing
from helper import small_networks
import grain, matplotlib, ml_collections, tensorboardX, tensorflow_datasets, uvicorn
from hyperrecon_jax import explorer
from hyperrecon_jax.cli import command
from hyperrecon_jax.commands import choose, compare, evaluate_acquisitions, evaluation_results, export, prepare, train
from hyperrecon_jax.data import builder
from hyperrecon_jax.studies import study
from matplotlib.backends import backend_pdf

evaluation_results.draw = lambda *_, **__: []
compare._draw = lambda *_, **__: None
gc.freeze()
with small_networks():
    for line in sys.stdin:
        if pid := os.fork():
            print(pid, flush=True)
            _, status, used = os.wait4(pid, 0)
            print(os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime, flush=True)
            continue
        folder, log, name, args = json.loads(line)
        os.chdir(folder)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for stream in (1, 2):
            os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
        sys.argv = [f"bin/{name}.py", *args]
        runpy.run_module(f"bin.{name}", run_name="__main__")
"""
CONFIG = """
from hyperrecon_jax.config import default_config

def get_config():
    config = default_config()
    config.data.update({data})
    config.loss.terms, config.loss.scales = ("mae", "ssim"), (1.0, 1.0)
    config.model.width, config.model.hyper_width = 2, 3
    config.train.steps, config.train.batch, config.train.save_every = 6, 4, 2
    return config
"""
COMMANDS = {
    "train": ["--config", "tiny.py", "--workdir", "OUT/run"],
    "dry-run": ["--config", "tiny.py", "--dry-run"],
    "evaluate": ["--run", "run", "--lams", "200", "--out", "OUT/evaluation"],
    "choose": ["--run", "OUT/run", "--metric", "mae"],
    "export": ["--run", "run", "--out", "OUT/model.jaxexport"],
    "prepare": ["--source", "folder", "--root", "scans", "--size=16", "--subjects=4,1,1", "--cache", "OUT", "--workers=2"],
    "synthesize": ["--source", "broad", "--size=64", "--subjects=6,2,2", "--slices=6", "--cache", "OUT"],
    "explore": ["--run", "run", "--export", "OUT/page", "--slices", "1", "--points", "5"],
    "study": ["--plan", "baselines", "--config", "tiny.py", "--seeds=1", "--lams=0,1", "--points=5", "--out", "OUT/study"],
}
MODULES = {"dry-run": "train", "synthesize": "prepare"}
SIGNALS = 5  # of each kind, for each command
LEFTOVERS = ("*.partial", "*incomplete*", "tmp*", "*.lock", "*orbax-checkpoint-tmp*", "unfinished.npz")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    import numpy as np

    folder = train_explorable(tmp_path_factory.mktemp("commands"))
    (folder / "scans").mkdir()
    for k in range(6):
        np.save(folder / "scans" / f"s{k}.npy", np.random.default_rng(k).random((3, 16, 16), np.float32))
    (folder / "tiny.py").write_text(CONFIG.format(data=write_splits(folder, train=4, val=2, test=3)))
    return folder


@pytest.fixture(scope="module")
def run(folder):
    """A function that runs a command, sends a signal after some CPU seconds, and returns what came of it."""
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
        "PYTHONUNBUFFERED": "1",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    with subprocess.Popen([sys.executable, "-W", "ignore", "-c", SERVER], env=env, **pipes) as server:

        def run(name, args, after=None, number=signal.SIGTERM):
            """Its status, its CPU seconds, those after the signal, and what it printed."""
            log = folder / "log.txt"
            log.write_text("")
            server.stdin.write(json.dumps([str(folder), str(log), MODULES.get(name, name), args]) + "\n")
            process, sent = psutil.Process(int(server.stdout.readline())), None
            with contextlib.suppress(psutil.NoSuchProcess):
                while after is not None and sum(process.cpu_times()[:2]) < after:
                    time.sleep(0.005)
                if after is not None:
                    sent = sum(process.cpu_times()[:2])
                    process.send_signal(number)
            status, seconds = server.stdout.readline().split()
            return int(status), float(seconds), float(seconds) - (sent or float(seconds)), log.read_text()

        yield run
        server.stdin.close()


def make_place(folder, name, place):
    """The folder for the results of a command, and its arguments. The name of the folder is a pattern for `glob`."""
    out = folder / f"{name}-{place} [1]*?"
    out.mkdir()
    if name == "choose":
        train_explorable(out)
    return out, [arg.replace("OUT", str(out)) for arg in COMMANDS[name]]


@pytest.mark.skipif("TEST_SIGNALS" not in os.environ, reason="takes long, and fails on a busy machine: set TEST_SIGNALS=1")
@pytest.mark.parametrize("name", COMMANDS)
def test_no_signal_is_lost(run, folder, name):
    """The command is given until all signals are sent; when it is finished, it starts anew in another folder."""
    moments = random.Random(name)
    for place in ("first", "second"):  # the first fills the compilation cache
        status, seconds, _, output = run(name, make_place(folder, name, place)[1])
        assert status == 0, output
    numbers = [signal.SIGTERM, signal.SIGKILL] * SIGNALS
    share = 0.4 if name == "prepare" else 0.9  # its workers' seconds count only at the end
    for place in range(20):
        out, args = make_place(folder, name, place)
        status = None
        while status != 0:
            number = numbers[-1] if numbers else None
            after = moments.uniform(0, share * seconds) if numbers else None
            status, _, late, output = run(name, args, after=after, number=number)
            print(name, number, status, round(late, 2), output.strip().splitlines()[-1:])
            assert "Traceback" not in output
            # the signal itself ends the process before Python handles signals
            assert status in (0, 130) or (status == -number and (number == signal.SIGKILL or not output)), output
            assert late < 5
            numbers = numbers[:-1] if status else numbers
        assert not [path for pattern in LEFTOVERS for path in out.rglob(pattern)]
        if not numbers:
            break
    assert not numbers


@pytest.mark.parametrize("name", ["train", "prepare"])
def test_workers_end_when_their_command_is_killed(folder, name):
    """The same command then goes on."""
    out, args = make_place(folder, name, "killed")
    if name == "train":
        args += ["--config.data.workers=2", "--config.data.placement=host", "--config.train.steps=100000"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", f"bin.{name}", *args]
    with subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as started:
        workers = []
        while len(workers) < 2:
            time.sleep(0.05)
            assert started.poll() is None
            children = psutil.Process(started.pid).children()
            workers = [child for child in children if "resource_tracker" not in " ".join(child.cmdline())]
        started.kill()
        _, alive = psutil.wait_procs(workers, timeout=60)
    assert not alive
    if name == "prepare":
        assert subprocess.run(command, cwd=folder, env=env, capture_output=True, check=False).returncode == 0
        assert not [path for pattern in LEFTOVERS for path in out.rglob(pattern)]


def test_the_explorer_ends(run, folder):
    for after in (1, 2, 4):
        status, _, late, output = run("explore", ["--run", "run", "--port", "0", "--noopen"], after=after)
        assert status == 130, output
        assert output.endswith("error: interrupted.\n")
        assert late < 5
