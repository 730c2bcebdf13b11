"""Slim runs and trainings that start from a run: against the run that they come from."""

import json
import shutil

import jax
import numpy as np
import pytest
import xarray as xr
from helper import write_run

import hyperrecon_jax as hr
from hyperrecon_jax.commands.evaluate import stored_scores
from hyperrecon_jax.commands.export import export_run
from hyperrecon_jax.evaluation import scores
from hyperrecon_jax.models.model import at_condition
from hyperrecon_jax.physics.acquisition import Acquisition, encode
from hyperrecon_jax.runs import run_folder, slim_run
from hyperrecon_jax.runs.config import complete
from hyperrecon_jax.runs.experiment import build
from hyperrecon_jax.runs.initial import read_initial_run, start_from_run
from hyperrecon_jax.runs.load import load_run, read_config, steps_done
from hyperrecon_jax.runs.task import trained_range

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
    write_run(complete(settings), folder)
    return folder


@pytest.fixture(scope="module")
def experiment(settings, small_network):
    """Of the run's own settings."""
    return build(complete(settings))


def start_from(experiment, folder):
    return start_from_run(experiment, read_initial_run(initial_config(experiment.config, folder)))


def initial_config(config, folder):
    config = config.copy_and_resolve_references()
    config.train.init_from = str(folder)
    return config


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


def test_training_starts_from_the_weights_of_a_run(experiment, run, slim):
    for folder in (run, slim):
        state = start_from(experiment, folder).state
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
        (
            {"task": {"acceleration": 2.0, "sigma": 0.1}},
            r"the acquisitions \(csmri, acceleration 2 to 4, sigma .*, mask random_lines or equispaced_lines there,"
            r" csmri, acceleration 2\.0, sigma 0\.1, mask poisson_disc here\)\. Name the same range",
        ),
    ],
)
def test_a_run_with_another_network_is_refused_by_what_differs(settings, run, changes, message):
    with pytest.raises(hr.InputError, match=message):
        read_initial_run(initial_config(complete({**settings, **changes}), run))


def test_a_run_of_a_range_starts_one_of_a_single_acquisition(settings, run):
    task = {"acceleration": 2.5, "sigma": 0.01, "mask": "random_lines"}
    single = start_from(build(complete({**settings, "task": task})), run)
    model, variables = hr.load(run)
    image = np.random.default_rng(1).random((16, 16, 2), np.float32)
    condition = encode(trained_range(read_config(run)), Acquisition(2.5, 0.01, "random_lines"))
    expected = hr.reconstruct(model, at_condition(variables, condition), LAM, image)
    variables = {"params": single.state.params, "batch_stats": single.state.batch_stats}
    np.testing.assert_allclose(hr.reconstruct(single.setup.model, variables, LAM, image), expected, rtol=1e-5, atol=1e-6)


def test_an_acquisition_outside_of_the_range_is_said(settings, run):
    def sentences(acceleration):
        task = {"acceleration": acceleration, "sigma": 0.0, "mask": "random_lines"}
        said = []
        read_initial_run(initial_config(complete({**settings, "task": task}), run), say=said.append)
        return said

    assert "acceleration from 2 to 4, this is 8" in " ".join(sentences(8.0))
    assert not any("acceleration" in sentence for sentence in sentences(3.0))


def test_a_missing_run_is_refused(experiment, tmp_path):
    with pytest.raises(hr.InputError, match="no"):
        start_from(experiment, tmp_path / "no")


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


def test_a_copy_of_the_package_s_model_stays_only_if_the_work_ends_well(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def make_mistake():
        with slim_run.writable_run("pretrained") as folder:
            assert slim_run.is_slim(folder)
            raise hr.InputError("A mistake.")

    with pytest.raises(hr.InputError, match=r"A mistake\."):
        make_mistake()
    assert list(tmp_path.iterdir()) == []
    for _ in range(2):
        with slim_run.writable_run("pretrained") as folder:
            assert folder == slim_run.Path("runs", "pretrained")
    files, originals = ({path.name for path in place.iterdir()} for place in (folder, slim_run.PRETRAINED_FOLDER))
    assert files == originals


@pytest.mark.parametrize("path", ["runs/other/config.json", "runs/pretrained/choice-psnr.json"])
def test_a_mistake_deletes_no_result_that_came_meanwhile(path, tmp_path, monkeypatch):
    """Neither of another run beside the new copy, nor of another command that uses it."""
    monkeypatch.chdir(tmp_path)

    def make_mistake():
        with slim_run.writable_run("pretrained"):
            (tmp_path / path).parent.mkdir(exist_ok=True)
            (tmp_path / path).write_text("{}")
            raise hr.InputError("A mistake.")

    with pytest.raises(hr.InputError, match=r"A mistake\."):
        make_mistake()
    assert (tmp_path / path).read_text() == "{}"
    assert (tmp_path / "runs" / "pretrained").exists() == ("pretrained" in path)


def test_a_copy_that_was_interrupted_is_made_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "pretrained.partial").mkdir(parents=True)
    (tmp_path / "runs" / "pretrained.partial" / "variables.npz").write_bytes(b"PK")
    with slim_run.writable_run("pretrained") as folder:
        for file in slim_run.PRETRAINED_FOLDER.iterdir():
            assert (folder / file.name).read_bytes() == file.read_bytes()
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["pretrained"]


def test_a_slim_run_of_a_slim_run_has_its_images(run, tmp_path):
    first, second = tmp_path / "first.run", tmp_path / "second.run"
    images = np.random.default_rng(1).random((2, 16, 16), np.float32)
    np.save(tmp_path / "own.npy", images)
    settings = json.loads((run / run_folder.CONFIG).read_text())
    slim_run.write(first, settings, hr.load(run)[1], steps=2, images=dict.fromkeys(("val", "test"), tmp_path / "own.npy"))
    export_run(first, second, say=lambda _: None)
    shutil.rmtree(first)
    data = read_config(second).data
    assert (data.train, data.val) == (settings["data"]["train"], data.test)
    np.testing.assert_array_equal(np.load(data.test), images)
    assert run_folder.read_settings(second)["data"]["test"] == "own.npy"


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


@pytest.mark.parametrize(("steps", "is_stored"), [(2, True), (1, False)])
def test_scores_of_a_slim_run_are_used_if_they_are_of_its_step(slim, tmp_path, steps, is_stored):
    """It has no report of its training that tells the step."""
    folder = shutil.copytree(slim, tmp_path / "slim")
    (folder / run_folder.EVALUATION).mkdir()
    ds = xr.Dataset({"psnr": ("image", [30.0])}, {"subject": ("image", [0])}, {"steps": steps})
    scores.save(folder / run_folder.EVALUATION / run_folder.SCORES, ds)
    assert (stored_scores(folder) is not None) == is_stored
