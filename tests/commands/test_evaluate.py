"""Evaluation through the real command line, and what it writes against NumPy."""

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from helper import run_python, write_splits

from hyperrecon_jax.commands import compare, evaluate, evaluation_setup, train
from hyperrecon_jax.runs.config import complete
from hyperrecon_jax.runs.load import load_state
from hyperrecon_jax.runtime.errors import InputError

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, small_network):
    """A HyperRecon and an ensemble of two U-Nets, trained next to nothing, and images that neither has seen."""
    folder = tmp_path_factory.mktemp("runs")
    write_splits(folder, shape=(16, 24), wider=2)
    settings = {
        "data": write_splits(folder, train=4, val=2, test=5),
        "loss": {"terms": ("mae", "ssim"), "scales": (1.0, 1.0)},
        "model": {"width": 2, "hyper_width": 3},
        "task": {"acceleration": 2.0, "sigma": 0.05},
        "train": {"steps": 2, "batch": 4},
    }
    networks = {"model": {"width": 2, "hyper_width": 0}, "lam": {"sampling": "ensemble", "axes": ((0.0, 0.7),)}}
    train.train(complete(settings), folder / "hyper", say=lambda _: None)
    train.train(complete({**settings, **networks}), folder / "unets", say=lambda _: None)
    return folder


def command(folder, *args):
    return run_python("-m", "bin.evaluate", *args, cwd=folder, small=True)


def test_evaluate_then_compare(folder):
    """The scores of the test set equal those of the run's own summary where the lambdas are the same."""
    result = command(folder, "--run", "hyper", "--lams", "9")
    assert result.returncode == 0, result.stderr
    out = folder / "hyper" / "evaluation"
    assert {path.name for path in out.iterdir()} == {
        *("scores.nc", "scores.csv", "evaluation.json"),
        *(f"{name}.{kind}" for name in ("curves", "slices", "pairs") for kind in ("png", "pdf")),
    }
    ds = xr.open_dataset(out / "scores.nc")
    assert ds["psnr"].sizes == {"lam_1": 9, "image": 5}
    summary = json.loads((folder / "hyper" / "summary.json").read_text())["test"]
    for lam in (0, 0.25, 1):
        for name in ("psnr", "ssim", "mae", "hfen", "rpsnr"):
            np.testing.assert_allclose(ds[name].sel(lam_1=lam).mean(), summary[f"{lam:g}"][name], rtol=1e-4)
    results = json.loads((out / "evaluation.json").read_text())
    assert results["best"]["mae"]["mean"] == pytest.approx(float(ds["mae"].mean("image").min()), rel=1e-5)
    pair = results["diverse_pairs"][0]
    assert len(pair["lambdas"]) == 2
    psnr = ds["psnr"].sel(image=pair["image"]).values
    assert min(pair["psnr"]) >= np.sort(psnr)[-2] - 1e-4  # of nine the best tenth is one, and so the best two

    compared = command(folder, "--compare", "hyper", "unets", "--out", "both")
    assert compared.returncode == 0, compared.stderr
    assert {path.name for path in (folder / "both").iterdir()} == {
        *("comparison.md", "comparison.json"),
        *(f"{name}.{kind}" for name in ("comparison", "gaps") for kind in ("png", "pdf")),
    }
    (gap,) = json.loads((folder / "both" / "comparison.json").read_text())["gaps"]
    assert (gap["of"], gap["to"]) == ("hyper", "unets")
    unets = xr.open_dataset(folder / "unets" / "evaluation" / "scores.nc")
    np.testing.assert_array_equal(unets["lam_1"], [0, 0.7])
    for name, sign in (("psnr", 1), ("mae", -1)):
        hyperrecon = np.interp([0, 0.7], ds["lam_1"], ds[name].mean("image"))
        expected = sign * (hyperrecon - unets[name].mean("image").values)
        np.testing.assert_allclose(gap[name]["at_lambdas"], expected, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose([gap[name]["mean"], gap[name]["worst"]], [expected.mean(), expected.min()], atol=1e-5)
    assert "hyper against unets at 2 lambdas" in compared.stdout


def test_a_finished_evaluation_scores_nothing_again(folder, tmp_path, monkeypatch):
    out, lines = tmp_path / "out", []
    options = {"points": 3, "metrics": ("psnr", "mae"), "say": lines.append}
    first = evaluate.evaluate(folder / "hyper", out, **options)
    table = lines[2:]
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    with monkeypatch.context() as patched:
        patched.setattr(evaluate, "score_on_grid", None)
        again = evaluate.evaluate(folder / "hyper", out, **options)
    assert lines[len(table) + 2 :] == ["This evaluation is finished already.", *table]
    xr.testing.assert_identical(first, again)
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before
    assert evaluate.evaluate(folder / "hyper", out, **{**options, "points": 4})["psnr"].sizes["lam_1"] == 4
    (out / "evaluation.json").unlink()  # killed before it was written
    assert "Scoring 5 images of 16 x 16 at 4 lambdas ..." in lines
    lines.clear()
    evaluate.evaluate(folder / "hyper", out, **{**options, "points": 4})
    assert lines[0] == "Scoring 5 images of 16 x 16 at 4 lambdas ..."
    assert {path.name for path in out.glob("*.png")} == {"slices.png", "pairs.png", "curves.png"}
    evaluate.evaluate(folder / "hyper", out, **{**options, "metrics": ("mae",)})  # without PSNR there are no pictures
    assert [*out.glob("*.p*")] == []
    assert lines[-1] == f"The scores are in {out}/scores.nc."


def test_gaps_to_networks_at_different_lambdas_are_drawn_each_at_its_own(tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(compare.figures, "comparison", lambda path, **options: drawn.update(options))
    rows = [
        {"lambdas": [[lam] for lam in lams], "mae": {key: [*values] for key in ("at_lambdas", "low", "high")}}
        for lams, values in (((0.0, 0.5, 1.0), (1, 2, 3)), ((0.5, 0.7), (4, 5)))
    ]
    compare.draw_gaps(tmp_path / "gaps.png", rows, ["a", "b"])
    np.testing.assert_array_equal(drawn["lams"], [0, 0.5, 0.7, 1])
    nan = np.nan
    np.testing.assert_array_equal(drawn["gaps"]["nmae"], [[1, 2, nan, 3], [nan, 4, 5, nan]])


def test_images_that_the_run_has_never_seen(folder):
    """Of another shape, and fewer than a batch; the run's task is done to them."""
    out = folder / "other"
    result = command(
        folder,
        "--run",
        "hyper",
        "--data",
        "wider.npy",
        "--lams",
        "3",
        "--metrics",
        "mse,data_consistency",
        "--out",
        "other",
    )
    assert result.returncode == 0, result.stderr
    ds = xr.open_dataset(out / "scores.nc")
    assert set(ds.data_vars) == {"mse", "data_consistency", "input_mse", "input_data_consistency"}
    images = np.load(folder / "wider.npy")[..., None]
    np.testing.assert_array_less(ds["input_mse"], np.square(images).mean((1, 2, 3)))
    assert ds["mse"].sizes == {"lam_1": 3, "image": 2}


def test_scores_of_other_images_are_not_taken_for_the_runs_own(folder):
    files_before = sorted(path.name for path in (folder / "hyper").iterdir())
    result = command(folder, "--run", "hyper", "--data", "wider.npy")
    assert (result.returncode, "that are not the run's own go: --out DIR" in result.stderr) == (2, True)
    assert sorted(path.name for path in (folder / "hyper").iterdir()) == files_before


def test_members_are_told_apart(folder):
    """An ensemble's score at a member's lambda is that member's, evaluated as a plain network."""
    prepared = evaluation_setup.load_evaluation(folder / "unets")
    np.testing.assert_allclose(prepared.axes, [[0, 0.7]], rtol=1e-6)
    _, state = load_state(folder / "unets")
    members = np.asarray(state.params["main"]["head"]["bias"])
    assert members.shape == (2, 1)
    assert members[0] != members[1]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "Say what to evaluate: --run RUN"),
        (("hyper",), "Say what to evaluate: --run RUN, not 'hyper'"),
        (("--run", "none"), "none/config.json cannot be read"),
        (("--run", "hyper", "--metrics", "psnr,sim"), "A metric must be one of psnr"),
        (("--run", "hyper", "--metrics", "dice"), "The metric dice needs a network that segments"),
        (("--run", "hyper", "--lams", "1"), "needs at least 2 points, got 1"),
        (("--run", "hyper", "--images", "6"), "must be in [1, 5], got 6"),
        (("--run", "hyper", "--data", "none.npy"), "no such file"),
        (("--run", "hyper", "--segmenter", "unets"), 'must hold a run of config.task.name "segmentation"'),
        (("--compare", "hyper"), "--compare takes the folders of two runs"),
    ],
)
def test_mistakes_are_told_in_a_sentence(folder, args, message):
    result = command(folder, *args, *(("--out", "refused") if "--compare" not in args else ()))
    assert result.returncode == 2, result.stderr
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not (folder / "refused").exists()


def test_runs_of_other_images_do_not_compare(folder, tmp_path):
    scores = folder / "hyper" / "evaluation" / "scores.nc"
    if not scores.exists():
        evaluate.evaluate(folder / "hyper", scores.parent, points=3, say=lambda _: None)
    other = tmp_path / "other"
    (other / "evaluation").mkdir(parents=True)
    ds = xr.load_dataset(scores).assign_attrs(test_images="0", steps=0)
    ds.to_netcdf(other / "evaluation" / "scores.nc")
    with pytest.raises(InputError, match="must have the same test images: hyper and other do not"):
        compare.compare([folder / "hyper", other], tmp_path / "out", say=lambda _: None)
