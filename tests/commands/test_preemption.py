"""A run that is ended from outside at any moment and started again by the same command loses nothing."""

import random
import re
import signal

import jax
import numpy as np
import pytest
from command_server import start_command_server
from helper import write_splits

from hyperrecon_jax.runs import logs, run_folder
from hyperrecon_jax.runs.load import load_state

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("small_network")]

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
    """A function that trains in a subfolder; its options are a signal and when it is sent."""
    with start_command_server(folder) as server:
        yield lambda name, **options: server.run("train", ["--config", "tiny.py", "--workdir", name], **options)


@pytest.fixture(scope="module")
def undisturbed(train):
    """The CPU seconds of a run without a signal, in the subfolder "undisturbed"."""
    assert train("first").status == 0  # fills the compilation cache
    ended = train("undisturbed")
    assert ended.status == 0
    return ended.seconds


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
        status, saved_step = None, 0
        while status != 0:
            after = random_times.uniform(0, 0.6 * undisturbed)
            ended = train(name, number=number if signals else None, after=after)
            status, output = ended.status, ended.output
            assert "Traceback" not in output
            if number == signal.SIGTERM:
                if resumed := re.search(r"Resuming from step (\d+)\.", output):
                    assert int(resumed[1]) == saved_step
                if saved := re.search(r"Interrupted at step (\d+); it is saved .* The same command resumes.*\n$", output):
                    saved_step = int(saved[1])
                if "\nScoring the test set" in output:
                    saved_step = 60
                elif "\nstep " in output:
                    assert saved
                assert status in (0, 130, -number)
                assert ended.is_handled
                assert status != 130 or saved or output.endswith("error: interrupted.\n")
            else:
                assert status in (0, -number)
            signals -= bool(status)
        assert results(folder / name) == results(folder / "undisturbed")
