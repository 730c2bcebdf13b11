"""Several processes agree on values; they train, score and save what one process does, and resume after a signal."""

import json
import re
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from helper import small_networks, write_splits
from jax.sharding import PartitionSpec

from hyperrecon_jax.commands import evaluate, train
from hyperrecon_jax.physics.sample import Sample
from hyperrecon_jax.runs import checkpoint, run_folder
from hyperrecon_jax.runs.config import complete
from hyperrecon_jax.runs.load import load_state
from hyperrecon_jax.runtime import mesh as placement
from hyperrecon_jax.training import step
from tests.runtime.processes import free_port, run_in_two_processes, start_process, wait_for_processes
from tests.training import test_step

STEPS = 16


# Prints what a process knows after each kind of agreement, and ends with an error of the primary process.
AGREEMENTS = """
import json, sys
import jax, jax.numpy as jnp, numpy as np
from hyperrecon_jax.runtime import connection, distributed, mesh
from hyperrecon_jax.runtime.errors import InputError

def fail():
    raise InputError("There is no such file.")

try:
    with connection.connect_processes(sys.argv[1], 2, int(sys.argv[2])):
        report = {"broadcast": distributed.broadcast_from_primary(lambda: [distributed.is_primary(), "\\u00e4"])}
        try:
            distributed.check_same_settings({"config.train.steps": 16 + jax.process_index()})
        except InputError as error:
            report["settings"] = str(error)
        devices, rows = mesh.device_mesh(4), np.arange(8, dtype=np.float32).reshape(4, 2)
        x, w = mesh.place(devices, rows, mesh.SHARDED), mesh.place(devices, np.array([1, -2], np.float32))
        report["shard"] = x.addressable_data(0).tolist()
        report["gathered"] = mesh.gather(x).tolist()
        gradient = jax.jit(jax.grad(lambda w, x: jnp.mean(jnp.square(x @ w))))(w, x)
        report["gradient"] = mesh.gather(gradient).tolist()
        print(json.dumps(report), flush=True)
        distributed.run_primary_first(fail)
except InputError as error:
    sys.exit(f"error: {error}")
"""


@pytest.fixture(scope="module")
def agreements():
    """Of two processes: the status, what it knows, and its errors."""
    address = f"localhost:{free_port()}"
    results = wait_for_processes([start_process(AGREEMENTS, address, i) for i in range(2)])
    # Gloo may print lines before
    return [(status, json.loads(output.splitlines()[-1]), errors) for status, output, errors in results]


def test_an_error_of_the_primary_is_raised_in_both(agreements):
    assert [(status, errors) for status, _, errors in agreements] == [(1, "error: There is no such file.\n")] * 2


def test_values_of_the_primary_and_different_settings_are_the_same_in_both(agreements):
    for _, report, _ in agreements:
        assert report["broadcast"] == [True, "\u00e4"]
        assert "config.train.steps is 16 in process 0 and 17 in process 1" in report["settings"]


def test_a_batch_over_two_processes_has_the_gradient_of_the_whole(agreements):
    rows, w = np.arange(8.0).reshape(4, 2), np.array([1, -2])
    for i, (_, report, _) in enumerate(agreements):
        np.testing.assert_array_equal(report["shard"], rows[2 * i : 2 * i + 2])
        np.testing.assert_array_equal(report["gathered"], rows)
        np.testing.assert_allclose(report["gradient"], rows.T @ (rows @ w) / 2, rtol=1e-5)


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """Amortized optimization with DHS."""
    folder = tmp_path_factory.mktemp("data")
    settings = {
        "data": write_splits(folder, train=10, val=3, test=3),
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
def single_workdir(settings, tmp_path_factory):
    """The run of one process with two devices."""
    workdir = tmp_path_factory.mktemp("single") / "run"
    with small_networks():
        assert train.train(settings[1], workdir, say=lambda _: None)
    return workdir


@pytest.fixture(scope="module")
def two_processes(settings, tmp_path_factory):
    """The run of two processes with one device each, and their status, output and errors."""
    workdir = tmp_path_factory.mktemp("two") / "run"
    return workdir, run_in_two_processes("bin.train", "--config", settings[0], "--workdir", workdir)


def state(workdir):
    with small_networks():
        return jax.device_get(load_state(workdir)[1])


def rows(workdir):
    lines = (workdir / run_folder.METRICS).read_text().splitlines()
    return [{**json.loads(line), "seconds": 0} for line in lines]


def assert_same_run(workdir, other):
    """Check that two runs have the same results, bit for bit."""
    jax.tree.map(np.testing.assert_array_equal, state(workdir), state(other))
    a, b = (run_folder.read_json(folder / run_folder.SUMMARY) for folder in (workdir, other))
    assert a["test"] == b["test"]
    assert (workdir / run_folder.LAMBDAS).read_text() == (other / run_folder.LAMBDAS).read_text()


@pytest.mark.slow
def test_two_processes_train_as_one_process_does(single_workdir, two_processes):
    workdir, [(status, output, _), (second_status, second_output, second_errors)] = two_processes
    assert (status, second_status) == (0, 0)
    assert_same_run(workdir, single_workdir)
    assert rows(workdir) == rows(single_workdir)
    assert "on 2 cpu devices of 2 processes" in output
    assert "Scoring the test set" in output
    assert "task" not in second_output + second_errors  # only the primary process prints


@pytest.mark.slow
def test_a_killed_and_a_stopped_run_resume_with_the_same_results(settings, single_workdir, tmp_path):
    """The second process is killed, then gets SIGTERM; then one process resumes. Each process reads its own images."""
    workdir = tmp_path / "run"
    command = "bin.train", "--config", settings[0], "--workdir", workdir, "--config.data.placement=host"
    survivor, killed = run_in_two_processes(*command, signal=signal.SIGKILL, signal_step=9, timeout=300)
    assert killed[0] == -signal.SIGKILL
    assert survivor[0] == 1
    message = "error: Another process ended or cannot be reached; the same command resumes from the last checkpoint"
    assert message in survivor[2]
    assert "Traceback" not in survivor[2]

    first, second = run_in_two_processes(*command, signal=signal.SIGTERM, signal_step=10, timeout=300)
    assert (first[0], second[0]) == (130, 130)
    assert "streamed from the host" in first[1]
    assert re.search("Resuming from step [48].", first[1])
    assert "Interrupted at step" in first[1]
    assert "Stopping after this step" in second[2]
    assert "Stopping after this step" not in first[2]
    stopped = max(row["step"] for row in rows(workdir))
    assert 10 <= stopped < STEPS
    assert int(state(workdir).step) == stopped

    lines = []
    with small_networks():
        assert train.train(settings[1], workdir, say=lines.append)
    assert f"Resuming from step {stopped}." in lines
    assert_same_run(workdir, single_workdir)


@pytest.mark.slow
def test_different_settings_end_both_processes_at_the_start(settings, tmp_path):
    """Also a number of steps, with which a run could be resumed."""
    command = "bin.train", "--config", settings[0], "--workdir", tmp_path / "run"
    sentence = "config.train.steps is 16 in process 0 and 17 in process 1"
    for status, _, errors in run_in_two_processes(*command, second_args=["--config.train.steps=17"]):
        assert status == 2
        assert errors == f"error: All processes need the same settings, but {sentence}.\n"
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_process_that_compiles_while_the_other_reads_its_cache_is_waited_for(settings, single_workdir, tmp_path):
    """The second start has the cache of the first; its second process has none, and is 35 s late at the first step."""
    command = "bin.train", "--config", settings[0], "--config.data.cache", tmp_path / "data", "--workdir"
    (status, _, errors), second = run_in_two_processes(
        *command,
        tmp_path / "run",
        second_args=["--config.data.cache", tmp_path / "other"],  # each process may have a cache of its own
        second_environment={"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled")},
        delay=35,
        timeout=300,
    )
    assert (status, second[0]) == (0, 0), errors
    assert_same_run(tmp_path / "run", single_workdir)


@pytest.mark.slow
def test_an_ensemble_and_a_sharded_array_are_trained_saved_and_restored(tmp_path):
    code = """
import sys
from pathlib import Path
import jax, numpy as np
from tests.runtime import test_distributed
from hyperrecon_jax.runtime.connection import connect_processes
from hyperrecon_jax.runtime.mesh import gather
with connect_processes(sys.argv[1], 2, int(sys.argv[2])):
    state = test_distributed.trained_ensemble()
    test_distributed.save(Path(sys.argv[3]) / "two", state)
    restored = test_distributed.restore(Path(sys.argv[3]) / "one", state)
    jax.tree.map(np.testing.assert_array_equal, *jax.device_get(gather((state, restored))))
"""
    state = trained_ensemble()
    save(tmp_path / "one", state)
    address = f"localhost:{free_port()}"
    for status, _, errors in wait_for_processes([start_process(code, address, i, tmp_path) for i in range(2)]):
        assert status == 0, errors
    jax.tree.map(np.testing.assert_array_equal, restore(tmp_path / "two", state), state)
    on_one_device = jax.device_put(state, jax.devices()[1])
    jax.tree.map(np.testing.assert_array_equal, restore(tmp_path / "two", on_one_device), state)


def trained_ensemble():
    """An ensemble after two steps on two devices, and an array that is sharded over them."""
    setup, state = test_step.make_ensemble(np.array([[0.0], [1.0]], np.float32))
    mesh = placement.device_mesh(setup.batch)
    assert mesh.devices.size == 2
    take_step, images = step.make_step(setup, mesh, resident=True), placement.place(mesh, Sample(test_step.IMAGES))
    state = placement.place(mesh, state)
    for _ in range(2):
        state, *_ = take_step(state, images)
    wide = placement.place(mesh, jnp.arange(12.0).reshape(2, 6), PartitionSpec(None, placement.DEVICE))
    return state._replace(batch_stats={"wide": wide})


def save(folder, state):
    with checkpoint.manager(folder, keep=1) as checkpoints:
        checkpoint.save(checkpoints, state, {})


def restore(folder, like):
    with checkpoint.manager(folder, keep=1, read_only=True) as checkpoints:
        return checkpoint.restore(checkpoints, like)


@pytest.mark.slow
def test_two_processes_score_as_one_process_does(two_processes, tmp_path):
    workdir, _ = two_processes
    command = "bin.evaluate", "--run", workdir, "--lams", 5, "--metrics", "mae,rpsnr", "--out"
    (status, output, _), (second_status, second_output, _) = run_in_two_processes(*command, tmp_path / "two")
    assert (status, second_status) == (0, 0)
    assert "Scoring 3 images of 16 x 16 at 5 lambdas" in output
    assert "Scoring" not in second_output
    with small_networks():
        expected = evaluate.evaluate(workdir, tmp_path / "one", metrics=("mae", "rpsnr"), points=5, say=lambda _: None)
    with xr.open_dataset(tmp_path / "two" / "scores.nc") as scores:
        for name in ("mae", "rpsnr", "input_mae"):
            np.testing.assert_allclose(scores[name], expected[name], rtol=1e-5)
    assert {path.name for path in (tmp_path / "one").iterdir()} == {path.name for path in (tmp_path / "two").iterdir()}
