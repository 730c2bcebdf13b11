"""SIGTERM and SIGKILL at random moments of all commands: each ends, and the same command then has the right results.

A training, whose runs go on from their checkpoints, is in `tests/commands/test_preemption.py`.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
from command_server import start_command_server
from helper import ROOT, write_explorable, write_splits

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("small_network")]

CONFIG = """
from hyperrecon_jax.config import default_config

def get_config():
    config = default_config()
    config.data.update({data})
    config.loss.terms, config.loss.scales = ("mae", "total_variation"), (1.0, 1.0)
    config.model.width, config.model.hyper_width = 2, 3
    config.train.steps, config.train.batch, config.train.save_every = 2, 4, 1
    return config
"""
COMMANDS = {
    "dry-run": ["--config", "tiny.py", "--dry-run"],
    "evaluate": ["--run", "run", "--lams", "40", "--out", "OUT/evaluation"],
    "choose": ["--run", "OUT/run", "--metric", "mae"],
    "export": ["--run", "run", "--out", "OUT/model.jaxexport"],
    "prepare": ["--source", "folder", "--root", "scans", "--size=16", "--subjects=4,1,1", "--cache", "OUT", "--workers=2"],
    "synthesize": ["--source", "broad", "--size=16", "--subjects=6,2,2", "--slices=6", "--cache", "OUT"],
    "explore": ["--run", "run", "--export", "OUT/page.html", "--slices", "1"],
    "study": ["--plan", "baselines", "--config", "tiny.py", "--seeds=1", "--lams=1", "--out", "OUT/study"],
}
MODULES = {"dry-run": "train", "synthesize": "prepare"}  # of commands that have another name than their module
SIGNALS = 5  # of each kind, for each command
LATEST = {"study": 0.3, "choose": 0.5}  # the latest moment as a fraction of an undisturbed command; 0.9 for the others
SEED = 0  # of the moments
TIMES = ("seconds", "peak_memory_bytes")  # entries of JSON files that differ from run to run
LIMIT = 5  # CPU seconds that an interrupted command may take to end


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = write_explorable(tmp_path_factory.mktemp("commands"))
    (folder / "scans").mkdir()
    for k in range(6):
        np.save(folder / "scans" / f"s{k}.npy", np.random.default_rng(k).random((3, 16, 16), np.float32))
    (folder / "tiny.py").write_text(CONFIG.format(data=write_splits(folder, train=4, val=2, test=3)))
    return folder


@pytest.fixture(scope="module")
def server(folder):
    with start_command_server(folder) as server:
        yield server


def make_place(folder, name, place):
    """The folder for the results of a command, and its arguments. The name of the folder is a pattern for `glob`."""
    out = folder / f"{name}-{place} [1]*?"
    out.mkdir()
    if name == "choose":
        write_explorable(out)
    return out, [arg.replace("OUT", str(out)) for arg in COMMANDS[name]]


def read_results(out):
    """All files in a folder, by name, with what must repeat: no times, and no files that Orbax and TensorBoard name."""
    results = {}
    for path in out.rglob("*"):
        name = str(path.relative_to(out))
        if {"checkpoints", "tensorboard"} & {*path.relative_to(out).parent.parts}:
            if path.parent.name == "checkpoints":
                results[name] = None
        elif path.suffix == ".json":
            results[name] = drop_times(json.loads(path.read_text().replace(str(out), "OUT")))
        elif path.suffix == ".jsonl":
            results[name] = [drop_times(json.loads(line)) for line in path.read_text().splitlines()]
        else:
            is_repeated = path.is_file() and path.name not in ("scores.nc", "comparison.md")
            results[name] = path.read_bytes() if is_repeated else None
    return results


def drop_times(tree):
    """JSON without the entries that are times or memory, at all levels."""
    if isinstance(tree, dict):
        return {key: drop_times(value) for key, value in tree.items() if key not in TIMES}
    return [drop_times(value) for value in tree] if isinstance(tree, list) else tree


@pytest.mark.parametrize("name", COMMANDS)
def test_no_signal_is_lost(server, folder, name):
    """The command is given until all signals are sent; when it is finished, it starts anew in another folder.

    The moments are fractions of the CPU seconds of a command that nothing disturbs.
    """
    random_fractions = random.Random(f"{name} {SEED}")
    module = MODULES.get(name, name)
    for place in ("first", "undisturbed"):  # the first fills the compilation cache
        out, args = make_place(folder, name, place)
        undisturbed = server.run(module, args)
        assert undisturbed.status == 0, undisturbed.output
    expected = read_results(out)
    numbers = [signal.SIGTERM, signal.SIGKILL] * SIGNALS
    for place in range(2 * len(numbers)):
        out, args = make_place(folder, name, place)
        status = None
        while status != 0:
            number = numbers[-1] if numbers else None
            after = random_fractions.uniform(0, LATEST.get(name, 0.9)) * undisturbed.seconds
            ended = server.run(module, args, number=number, after=after)
            status = ended.status
            print(name, number, round(after, 2), *ended._replace(output=ended.output.strip().splitlines()[-1:]))
            assert "Traceback" not in ended.output
            assert status in {None: [0], signal.SIGTERM: [0, 130, -15], signal.SIGKILL: [0, -9]}[number], ended.output
            assert ended.is_handled, ended.output
            assert ended.late_seconds < LIMIT
            if status == -signal.SIGKILL:
                shutil.rmtree(server.temporary)
                server.temporary.mkdir()
            assert list(server.temporary.iterdir()) == []
            numbers = numbers[:-1] if status else numbers
        assert read_results(out) == expected
        if not numbers:
            break
    assert not numbers


@pytest.mark.parametrize("name", ["train", "prepare"])
def test_workers_end_when_their_command_is_killed(folder, name):
    if name == "train":
        options = ["--config.data.workers=2", "--config.data.placement=host", "--config.train.steps=100000"]
        args = ["--config", "tiny.py", "--workdir", "killed", *options]
    else:
        args = make_place(folder, name, "killed")[1]
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


def test_the_explorer_ends(server):
    for after in (1, 2, 4):
        args = ["--run", "run", "--port", "0", "--noopen"]
        ended = server.run("explore", args, number=signal.SIGTERM, after=after)
        assert ended.status == 130, ended.output
        assert ended.output.endswith("error: interrupted.\n")
        assert ended.late_seconds < LIMIT
