"""An unrolled network for a range of acquisitions through every command: one small run, which all tests share."""

import json
import signal
from functools import partial

import jax
import numpy as np
import pytest
import xarray as xr

from hyperrecon_jax.commands import choose, compare, evaluate, evaluation_setup, export, train
from hyperrecon_jax.models.export import named, plain
from hyperrecon_jax.models.model import at_condition, reconstruct
from hyperrecon_jax.physics.acquisition import Acquisition, encode
from hyperrecon_jax.physics.net_input import physics_input
from hyperrecon_jax.physics.operators import csmri
from hyperrecon_jax.physics.sample import Sample
from hyperrecon_jax.runs.config import complete
from hyperrecon_jax.runs.experiment import build
from hyperrecon_jax.runs.load import load, load_run, load_state, read_config
from hyperrecon_jax.runs.task import acquisition_range
from hyperrecon_jax.runtime.errors import InputError

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("small_network")]


def quiet(_):
    """Take a line for the user."""


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for name, count in (("train", 6), ("val", 2), ("test", 3)):
        np.save(folder / f"{name}.npy", rng.random((count, 16, 16), np.float32))
    return {
        "data": {"source": "arrays", **{name: str(folder / f"{name}.npy") for name in ("train", "val", "test")}},
        "loss": {"terms": ("data_consistency", "total_variation"), "scales": (1.0, 0.1), "ground_truth": False},
        "model": {"network": "unrolled", "iterations": 2, "width": 2, "hyper_width": 3},
        "dhs": {"keep": 2},
        "task": {"acceleration": (2.0, 4.0), "sigma": (0.0, 0.1), "mask": ("equispaced_lines", "random_lines")},
        "train": {"steps": 4, "batch": 4, "save_every": 2, "log_every": 1},
    }


@pytest.fixture(scope="module")
def run(settings, tmp_path_factory, small_network):
    folder = tmp_path_factory.mktemp("runs") / "range"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(evaluation_setup, "POINTS", {1: 3, 2: 3})
        assert train.train(complete(settings), folder, say=quiet)
        evaluate.load_or_evaluate(folder, say=quiet)
    return folder


def test_training_changes_the_parameters_and_scores_the_middle_of_the_range(settings, run):
    before = build(complete(settings)).state.params
    after = load_state(run)[1].params
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), before, after)
    assert max(jax.tree.leaves(moved)) > 1e-4
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after))
    assert (run / "reconstructions.png").exists()
    assert (run / "dhs_histogram.png").exists()
    trained = load_run(run)
    assert (trained.config.task.acceleration, trained.config.task.mask) == (pytest.approx(8**0.5), "equispaced_lines")
    scored = xr.load_dataset(run / "evaluation" / "scores.nc")["psnr"].sel(lam_1=0.5).mean()
    summary = json.loads((run / "summary.json").read_text())["test"]["0.5"]["psnr"]
    np.testing.assert_allclose(scored, summary, rtol=1e-4)


def test_interrupted_and_resumed_equals_uninterrupted(settings, run, tmp_path, monkeypatch):
    original = train.fit

    def fit(*args, on_log, **options):
        def log(step, *values):
            on_log(step, *values)
            if step == 3:
                signal.raise_signal(signal.SIGTERM)

        return original(*args, on_log=log, **options)

    with monkeypatch.context() as patched:
        patched.setattr(train, "fit", fit)
        assert not train.train(complete(settings), tmp_path / "run", say=quiet)
    assert train.train(complete(settings), tmp_path / "run", say=quiet)
    states = (jax.device_get(load_state(folder)[1]) for folder in (tmp_path / "run", run))
    jax.tree.map(np.testing.assert_array_equal, *states)


def test_a_run_is_used_at_the_middle_of_its_range_or_at_another_acquisition(run):
    acquisition = Acquisition(4.0, 0.0, "random_lines")
    middle, other = load_run(run), load_run(run, acquisition=acquisition)
    ranges = acquisition_range(read_config(run))
    np.testing.assert_array_equal(other.variables["condition"], encode(ranges, acquisition))
    image = np.random.default_rng(1).random((16, 16, 1), np.float32)
    sampled = [np.mean(run.problem.observe(jax.random.key(0), Sample(image)) != 0) for run in (middle, other)]
    assert sampled[0] > sampled[1] == pytest.approx(1 / 4, abs=0.05)


@pytest.mark.parametrize("options", [{"metric": "psnr"}, {"metric": "held_out", "per_image": True}])
def test_lambda_is_chosen(run, options):
    choice = choose.choose(run, say=quiet, **options)
    assert np.isfinite(choice["value"])
    assert np.shape(choice["lambda"]) == ((3, 1) if options.get("per_image") else (1,))
    assert choice["test"]["psnr"]["best_per_image"]["mean"] >= choice["test"]["psnr"]["best"]["mean"]


def test_it_is_compared_with_an_ensemble_of_unrolled_networks(settings, run, tmp_path):
    ensemble = {
        **settings,
        "model": {**settings["model"], "hyper_width": 0},
        "lam": {"sampling": "ensemble", "axes": ((0.0, 1.0),)},
        "dhs": {},
        "train": {"steps": 1, "batch": 4},
    }
    train.train(complete(ensemble), tmp_path / "ensemble", say=quiet)
    (gap,) = compare.compare([run, tmp_path / "ensemble"], tmp_path / "both", say=quiet)
    assert np.isfinite(gap["psnr"]["at_lambdas"]).all()


def test_the_exported_program_takes_kspace(run, tmp_path):
    lines = []
    export.export_run(run, tmp_path / "model.jaxexport", say=lines.append)
    assert "the whole model for acceleration 2.83, noise 0.025 and the mask equispaced_lines, " in lines[0]
    assert lines[-1].endswith(".call(kspace, lam)")
    program = jax.export.deserialize((tmp_path / "model.jaxexport").read_bytes())
    rng = np.random.default_rng(1)
    kspace = np.fft.fft2(rng.random((2, 16, 16)), norm="ortho") * (rng.random((2, 16, 16)) < 0.5)
    kspace, lams = kspace.astype(np.complex64), np.array([[0.2], [0.9]], np.float32)
    x_hat = program.call(kspace, lams)
    model, variables = load(run)
    apply = jax.jit(partial(reconstruct, model, variables))
    for i in range(2):
        expected = apply(lams[i], physics_input(csmri(kspace[i] != 0), kspace[i, ..., None]))
        np.testing.assert_allclose(x_hat[i], expected, rtol=1e-4, atol=1e-5)


def test_a_file_is_for_the_acquisition_that_is_asked_for(run, tmp_path):
    lines, out = [], tmp_path / "ours.npz"
    text = "acceleration=4,sigma=0,mask=random_lines"
    export.export_run(run, out, lam=[0.5], names="ours", acquisition=text, say=lines.append)
    assert "for acceleration 4, noise 0 and the mask random_lines, " in lines[0]
    assert not any("Outside" in line for line in lines)
    _, expected = plain(*load(run, acquisition=Acquisition(4.0, 0.0, "random_lines")), [0.5])
    stored = np.load(out)
    for name, value in named(expected).items():
        np.testing.assert_array_equal(stored[name], value)
    middle = named(plain(*load(run), [0.5])[1])
    assert any(np.abs(stored[name] - value).max() > 1e-6 for name, value in middle.items())


def test_an_acquisition_outside_of_the_range_is_told(run, tmp_path):
    lines = []
    export.export_run(run, tmp_path / "a.npz", lam=[0], names="ours", acquisition="acceleration=16", say=lines.append)
    assert lines[0].startswith("Outside of the training: The network was trained for acceleration")
    assert " for acceleration 4, noise 0.025 and the mask equispaced_lines, " in lines[1]
    with pytest.raises(InputError, match=r"`acquisition` must be left out: .* whole range"):
        export.export_run(run, tmp_path / "a.run", acquisition="acceleration=2", say=quiet)
    with pytest.raises(InputError, match="There must be one acquisition"):
        export.export_run(run, tmp_path / "b.npz", lam=[0], names="ours", acquisition="acceleration=2:4", say=quiet)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def test_other_files_name_what_an_unrolled_network_has(run, tmp_path):
    for name in ("unet.onnx", "unet.npz", "unet.safetensors"):
        with pytest.raises(InputError, match=r"`out` must end with \.jaxexport.* holds an unrolled network"):
            export.export_run(run, tmp_path / name, lam=[0.5], say=quiet)
    lines = []
    export.export_run(run, tmp_path / "ours.npz", lam=[0.5], names="ours", say=lines.append)
    assert "Unrolled(2, 2, norm='instance', normalize=True).apply" in lines[-1]
    assert "params/iterations/log_weight" in np.load(tmp_path / "ours.npz")


def test_a_model_with_conditions_needs_them(run):
    model, variables = load(run)
    del variables["condition"]
    with pytest.raises(InputError, match="`variables` must have the 4 conditions of the model"):
        jax.eval_shape(lambda: reconstruct(model, variables, np.zeros(1), None))
    assert at_condition(variables, np.zeros(4))["condition"].shape == (4,)
