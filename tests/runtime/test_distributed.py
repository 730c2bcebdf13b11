"""Several hosts, real processes on this machine: they become what one process becomes, stop together, end together."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from helper import ROOT, small_networks
from jax.sharding import PartitionSpec

from hyperrecon_jax.commands import evaluate, train
from hyperrecon_jax.physics.sample import Sample
from hyperrecon_jax.runs import checkpoint, run_folder
from hyperrecon_jax.runs.config import complete
from hyperrecon_jax.runs.load import load_state
from hyperrecon_jax.runtime import distributed
from hyperrecon_jax.runtime import mesh as placement
from hyperrecon_jax.runtime.errors import InputError
from hyperrecon_jax.training import step
from tests.training import test_step

STEPS = 16
# The command itself, with a small network, and a signal to its own process once a step is logged.
COMMAND = """
import os, runpy, sys
from helper import small_networks
from hyperrecon_jax.commands import train

original = train.fit
def fit(*args, on_log, **options):
    def log(step, *rest):
        on_log(step, *rest)
        if step == AT:
            os.kill(os.getpid(), SIGNAL)
    return original(*args, on_log=log, **options)

train.fit = fit
with small_networks():
    sys.argv[0] = MODULE
    runpy.run_module(MODULE, None, "__main__", True)
"""


def port():
    with socket.socket() as free:
        free.bind(("", 0))
        return free.getsockname()[1]


def start(code, *args, **environment):
    """A process with one device."""
    folders = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    env = {
        **os.environ,
        "PYTHONPATH": folders,
        "JAX_NUM_CPU_DEVICES": "1",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        **environment,
    }
    command = [sys.executable, "-c", code, *map(str, args)]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def end(processes, timeout=120):
    """The status, output and errors of processes; none is left."""
    try:
        told = [process.communicate(timeout=timeout) for process in processes]
        return [(process.returncode, *texts) for process, texts in zip(processes, told, strict=True)]
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                process.kill()


def together(module, *args, second=(), number=0, at=0):
    """A command on two hosts, the second with arguments of its own, and with a signal when a step is logged."""
    coordinator = ("--coordinator", f"localhost:{port()}", "--processes", 2)
    return end(
        [
            start(
                f"MODULE, AT, SIGNAL = {module!r}, {step}, {int(number)}" + COMMAND,
                *args,
                *rest,
                *coordinator,
                "--process",
                i,
            )
            for i, (rest, step) in enumerate([((), 0), (second, at)])
        ]
    )


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """Amortized optimization with DHS."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for name, count in (("train", 10), ("val", 3), ("test", 3)):
        np.save(folder / f"{name}.npy", rng.random((count, 16, 16), np.float32))
    settings = {
        "data": {"source": "arrays", **{name: str(folder / f"{name}.npy") for name in ("train", "val", "test")}},
        "task": {"acceleration": 2.0, "sigma": 0.05},
        "loss": {"terms": ("data_consistency", "total_variation"), "scales": (0.1, 1.0), "ground_truth": False},
        "dhs": {"keep": 2},
        "model": {"width": 2, "hyper_width": 3},
        "train": {"steps": STEPS, "batch": 4, "log_every": 1, "save_every": 4},
    }
    file = folder / "tiny.py"
    file.write_text(f"from hyperrecon_jax.config import complete\n\ndef get_config():\n    return complete({settings!r})\n")
    return file, complete(settings)


@pytest.fixture(scope="module")
def alone(settings, tmp_path_factory):
    """What one process with two devices makes of it."""
    workdir = tmp_path_factory.mktemp("alone") / "run"
    with small_networks():
        assert train.train(settings[1], workdir, say=lambda _: None)
    return workdir


@pytest.fixture(scope="module")
def both(settings, tmp_path_factory):
    """What two hosts with one device each make of it, and what they say."""
    workdir = tmp_path_factory.mktemp("both") / "run"
    return workdir, together("bin.train", "--config", settings[0], "--workdir", workdir)


def state(workdir):
    with small_networks():
        return jax.device_get(load_state(workdir)[1])


def rows(workdir):
    lines = (workdir / run_folder.METRICS).read_text().splitlines()
    return [{**json.loads(line), "seconds": 0} for line in lines]


def equal(workdir, other):
    """Whether two runs came to the same, bit for bit."""
    jax.tree.map(np.testing.assert_array_equal, state(workdir), state(other))
    a, b = (run_folder.read_json(folder / run_folder.SUMMARY) for folder in (workdir, other))
    assert a["test"] == b["test"]
    assert (workdir / run_folder.LAMBDAS).read_text() == (other / run_folder.LAMBDAS).read_text()


def test_two_hosts_train_what_one_trains(alone, both):
    workdir, [(status, said, _), (status_second, said_second, errors_second)] = both
    assert (status, status_second) == (0, 0)
    equal(workdir, alone)
    assert rows(workdir) == rows(alone)
    assert "on 2 cpu devices of 2 processes" in said
    assert "Scoring the test set" in said
    assert "task" not in said_second + errors_second  # the first alone speaks


def test_killed_restarted_and_stopped_they_train_the_same(settings, alone, tmp_path):
    """The second host is killed, then told to stop, in the end one goes on; images are streamed, to each host its part."""
    workdir = tmp_path / "run"
    command = "bin.train", "--config", settings[0], "--workdir", workdir, "--config.data.placement=host"
    survivor, killed = together(*command, number=signal.SIGKILL, at=9)
    assert killed[0] == -signal.SIGKILL
    assert survivor[0] == 1
    assert (
        "error: Another host ended or cannot be reached; the same command goes on from the last checkpoint" in survivor[2]
    )
    assert "Traceback" not in survivor[2]

    first, second = together(*command, number=signal.SIGTERM, at=10)
    assert (first[0], second[0]) == (130, 130)
    assert "streamed from the host" in first[1]
    assert re.search("Resuming from step [48].", first[1])
    assert "Interrupted at step" in first[1]
    assert "Stopping after this step" in second[2]
    assert "Stopping after this step" not in first[2]
    stopped = max(row["step"] for row in rows(workdir))
    assert 10 <= stopped < STEPS
    assert int(state(workdir).step) == stopped

    said = []
    with small_networks():
        assert train.train(settings[1], workdir, say=said.append)
    assert f"Resuming from step {stopped}." in said
    equal(workdir, alone)


def test_an_error_of_one_ends_both():
    """They have found one another as under Slurm."""
    code = """
import time
from hyperrecon_jax.runtime import distributed
from hyperrecon_jax.runtime.errors import InputError
with distributed.joined("auto", None, None):
    if not distributed.is_primary():
        raise InputError("There is no such file.")
    time.sleep(100)
"""
    job = {
        "SLURM_JOB_ID": "7",
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": "2",
        "JAX_COORDINATOR_PORT": str(port()),
    }
    tasks = [job | {"SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)} for i in range(2)]
    first, second = end([start(code, **task) for task in tasks], timeout=60)
    assert second == (2, "", "error: There is no such file.\n")
    assert first == (2, "", "error: Host 1 ended: There is no such file.\n")


def test_who_does_not_come_is_not_waited_for_without_end():
    code = """
import sys
from hyperrecon_jax.runtime import distributed
distributed.WAIT = 2
with distributed.joined(sys.argv[1], 2, int(sys.argv[2])):
    pass
"""
    address = f"localhost:{port()}"
    ((status, _, errors),) = end([start(code, address, 1)], timeout=60)
    assert status == 2
    assert errors == f"error: The hosts did not come together by --coordinator {address} in 2 s.\n"


def test_an_ensemble_and_what_is_spread_over_hosts_are_trained_saved_and_restored(tmp_path):
    code = """
import sys
from pathlib import Path
import jax, numpy as np
from tests.runtime import test_distributed as test_hosts
from hyperrecon_jax.runtime import distributed
with distributed.joined(sys.argv[1], 2, int(sys.argv[2])):
    state = test_hosts.trained()
    test_hosts.save(Path(sys.argv[3]) / "two", state)
    back = test_hosts.restored(Path(sys.argv[3]) / "one", state)
    jax.tree.map(np.testing.assert_array_equal, *jax.device_get(distributed.local((state, back))))
"""
    state = trained()
    save(tmp_path / "one", state)
    address = f"localhost:{port()}"
    for status, _, errors in end([start(code, address, i, tmp_path) for i in range(2)]):
        assert status == 0, errors
    jax.tree.map(np.testing.assert_array_equal, restored(tmp_path / "two", state), state)
    on_one_device = jax.device_put(state, jax.devices()[1])
    jax.tree.map(np.testing.assert_array_equal, restored(tmp_path / "two", on_one_device), state)


def trained():
    """An ensemble after two steps on two devices, and an array that is cut between them."""
    made, state = test_step.make_ensemble(np.array([[0.0], [1.0]], np.float32))
    mesh = placement.device_mesh(made.batch)
    assert mesh.devices.size == 2
    take_step, images = step.make_step(made, mesh, resident=True), placement.place(mesh, Sample(test_step.IMAGES))
    state = placement.place(mesh, state)
    for _ in range(2):
        state, *_ = take_step(state, images)
    wide = placement.place(mesh, jnp.arange(12.0).reshape(2, 6), PartitionSpec(None, placement.DEVICE))
    return state._replace(batch_stats={"wide": wide})


def save(folder, state):
    with checkpoint.manager(folder, keep=1) as checkpoints:
        checkpoint.save(checkpoints, state, {})


def restored(folder, like):
    with checkpoint.manager(folder, keep=1, read_only=True) as checkpoints:
        return checkpoint.restore(checkpoints, like)


def test_two_hosts_score_what_one_scores(both, tmp_path):
    command = "bin.evaluate", "--run", both[0], "--lams", 5, "--metrics", "mae,rpsnr", "--out"
    (status, said, _), (status_second, said_second, _) = together(*command, tmp_path / "two")
    assert (status, status_second) == (0, 0)
    assert "Scoring 3 images at 5 lambdas" in said
    assert "Scoring" not in said_second
    with small_networks():
        expected = evaluate.evaluate(both[0], tmp_path / "one", metrics=("mae", "rpsnr"), points=5, say=lambda _: None)
    with xr.open_dataset(tmp_path / "two" / evaluate.SCORES) as found:
        for name in ("mae", "rpsnr", "input_mae"):
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-5)
    assert {path.name for path in (tmp_path / "one").iterdir()} == {path.name for path in (tmp_path / "two").iterdir()}


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ((None, 2, None), "need the first host's address"),
        (("auto", None, 1), "need the first host's address"),
        (("localhost", 2, 0), "must be auto or ADDRESS:PORT"),
        (("localhost:port", 2, 0), "must be auto or ADDRESS:PORT"),
        (("localhost:99999", 2, 0), "must be auto or ADDRESS:PORT"),
        (("localhost:1234", 2, None), "needs --processes"),
        (("localhost:1234", None, 0), "needs --processes"),
        (("localhost:1234", 2, 2), r"must be in \[0, 2\)"),
        (("localhost:1234", 2, -1), r"must be in \[0, 2\)"),
    ],
)
def test_flags_that_do_not_fit_are_refused(given, sentence):
    with pytest.raises(InputError, match=sentence), distributed.joined(*given):
        pass
