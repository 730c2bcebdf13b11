"""Slim runs and trainings that start from a run: against the run that they come from."""

import json

import jax
import numpy as np
import pytest

import hyperrecon_jax as hr
from hyperrecon_jax.commands import train
from hyperrecon_jax.commands.export import export_run
from hyperrecon_jax.runs import run_folder, slim_run
from hyperrecon_jax.runs.config import complete
from hyperrecon_jax.runs.experiment import build
from hyperrecon_jax.runs.initial import start_from_run
from hyperrecon_jax.runs.load import load_run, read_config, steps_done

pytestmark = pytest.mark.usefixtures("small_network")

LAM = np.array([0.3], np.float32)


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    np.save(folder / "images.npy", np.random.default_rng(0).random((4, 16, 16), np.float32))
    return {
        "data": {"source": "arrays", **dict.fromkeys(("train", "val", "test"), str(folder / "images.npy"))},
        "task": {"acceleration": (2.0, 4.0), "mask": ("random_lines", "equispaced_lines")},
        "model": {"width": 2, "hyper_width": 3},
        "train": {"steps": 2, "batch": 4},
    }


@pytest.fixture(scope="module")
def run(settings, small_network, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    assert train.train(complete(settings), folder, say=lambda line: None)
    return folder


@pytest.fixture(scope="module")
def slim(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("slim") / "run"
    _, variables = hr.load(run)
    slim_run.write(folder, json.loads((run / run_folder.CONFIG).read_text()), variables, steps=2, dtype="float32")
    return folder


def test_a_slim_run_is_the_run(run, slim):
    (model, variables), (slim_model, slim_variables) = hr.load(run), hr.load(slim)
    assert model == slim_model
    jax.tree.map(np.testing.assert_array_equal, variables, slim_variables)
    assert steps_done(slim) == 2
    trained, expected = load_run(slim), load_run(run)
    assert (trained.steps, trained.config.task.acceleration) == (2, expected.config.task.acceleration)
    assert sum(file.stat().st_size for file in slim.iterdir()) < 50_000


def test_half_precision_hardly_changes_the_network(run, tmp_path):
    _, variables = hr.load(run)
    slim_run.write(tmp_path / "half", json.loads((run / run_folder.CONFIG).read_text()), variables, steps=2)
    _, half = hr.load(tmp_path / "half")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), variables["params"], half["params"])


def test_a_slim_run_is_not_written_into_a_folder_with_content(run):
    with pytest.raises(hr.InputError, match="must be a new or empty folder"):
        slim_run.write(run, {}, hr.load(run)[1], steps=2)


def test_variables_of_another_network_are_refused(slim, tmp_path):
    settings = json.loads((slim / run_folder.CONFIG).read_text())
    settings["model"]["hyper_width"] = 5
    slim_run.write(tmp_path / "other", settings, hr.load(slim)[1], steps=2)
    with pytest.raises(hr.InputError, match=r"variables\.npz must have params/hyper/.* of shape .* for its settings"):
        hr.load(tmp_path / "other")


def test_training_starts_from_the_weights_of_a_run(settings, run, slim):
    for folder in (run, slim):
        config = complete({**settings, "train": {**settings["train"], "init_from": str(folder)}})
        state = start_from_run(build(config)).state
        jax.tree.map(np.testing.assert_array_equal, state.params, hr.load(run)[1]["params"])
        assert int(state.step) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"width": 2, "hyper_width": 4}}, r"config\.model\.hyper_width \(3 there, 4 here\)"),
        (
            {"loss": {"terms": ("mae", "ssim", "mse"), "scales": (1.0, 1.0, 1.0)}},
            r"config\.loss\.terms \(2 there, 3 here\)",
        ),
        ({"task": {"acceleration": 2.0}}, r"the range of config\.task \(AcquisitionRange.* there, None here\)"),
    ],
)
def test_a_run_with_another_network_is_refused_by_what_differs(settings, run, changes, message):
    config = complete({**settings, **changes, "train": {**settings["train"], "init_from": str(run)}})
    with pytest.raises(hr.InputError, match=message):
        start_from_run(build(config))


def test_a_missing_run_is_refused(settings, tmp_path):
    config = complete({**settings, "train": {**settings["train"], "init_from": str(tmp_path / "no")}})
    with pytest.raises(hr.InputError, match="no"):
        start_from_run(build(config))


def test_the_name_pretrained_is_the_model_of_the_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert slim_run.find_run("pretrained") == slim_run.PRETRAINED_FOLDER
    assert slim_run.find_run("runs/other") == slim_run.Path("runs/other")
    (tmp_path / "pretrained").mkdir()
    assert slim_run.find_run("pretrained") == slim_run.Path("pretrained")


def test_the_model_of_the_package_needs_no_preparation_and_has_at_most_5_mb():
    config = read_config("pretrained")
    images = np.load(config.data.test)
    assert images.shape == (16, 192, 192)
    assert sum(path.stat().st_size for path in slim_run.PRETRAINED_FOLDER.iterdir()) <= 5 * 10**6


def test_images_beside_the_variables_are_those_of_the_run(run, tmp_path):
    export_run(run, tmp_path / "small.run", say=lambda _: None)
    np.save(tmp_path / "small.run" / "own.npy", np.zeros((2, 16, 16), np.float32))
    settings = run_folder.read_settings(tmp_path / "small.run")
    settings["data"] |= {"test": "own.npy"}
    run_folder.write_json(tmp_path / "small.run" / run_folder.CONFIG, settings)
    data = read_config(tmp_path / "small.run").data
    assert (data.test, data.val) == (str(tmp_path / "small.run" / "own.npy"), settings["data"]["val"])


def test_bin_export_writes_a_slim_run(run, tmp_path):
    lines = []
    export_run(run, tmp_path / "small.run", say=lines.append)
    assert lines[0].startswith(f"{tmp_path / 'small.run'} holds the whole model, ")
    model, variables = hr.load(tmp_path / "small.run")
    assert model == hr.load(run)[0]
    assert steps_done(tmp_path / "small.run") == 2
    with pytest.raises(hr.InputError, match="`lam` must be left out"):
        export_run(run, tmp_path / "other.run", lam=LAM)
    again = tmp_path / "again.run"
    export_run(tmp_path / "small.run", again, say=lines.append)
    jax.tree.map(np.testing.assert_array_equal, variables, hr.load(again)[1])
