"""A choice of lambda through the real command line, and what it says that is worth against the scores themselves."""

import json
import shutil
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from helper import run_python, train_explorable

from hyperrecon_jax.commands import choose, evaluate, evaluation_results, evaluation_setup, train
from hyperrecon_jax.evaluation import scoring
from hyperrecon_jax.losses import metrics
from hyperrecon_jax.models.model import reconstruct
from hyperrecon_jax.runs.config import complete
from hyperrecon_jax.runs.load import load_run
from hyperrecon_jax.runtime.errors import InputError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory, small_network):
    """A HyperRecon of two losses for the command, evaluated at five lambdas; others of three losses and of one lambda."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(evaluation_setup, "POINTS", {1: 5, 2: 3})
        patched.setattr(evaluation_results, "draw", lambda *_, **__: [])
        train_explorable(folder)
        evaluate.load_or_evaluate(folder / "run", say=lambda _: None)
        settings = {
            "data": {"source": "arrays", **{name: str(folder / f"{name}.npy") for name in ("train", "val", "test")}},
            "loss": {"terms": ("data_consistency", "weight_l1", "total_variation"), "scales": (1.0, 1e-3, 1e-2)},
            "model": {"hyper_width": 3},
            "task": {"acceleration": 2.0, "sigma": 0.02},
            "train": {"steps": 2, "batch": 4},
        }
        fixed = {"model": {"hyper_width": 0}, "lam": {"sampling": "constant", "value": (0.3, 0.3)}}
        train.train(complete(settings), folder / "three", say=lambda _: None)
        train.train(complete(settings | fixed), folder / "fixed", say=lambda _: None)
        for name, task in (("denoiser", {"name": "denoising"}), ("whole", {"acceleration": 1.0})):
            shutil.copytree(folder / "three", folder / name)
            config = json.loads((folder / name / "config.json").read_text())
            config["task"] |= task
            (folder / name / "config.json").write_text(json.dumps(config))
        yield folder


def numbers(run, per_image=False, metric="psnr"):
    return json.loads((run / f"choice-{metric}{'-per_image' if per_image else ''}.json").read_text())


def test_one_lambda_from_the_validation_images(folder):
    """Its value is the metric's mean there, as good as a fine grid's best; its worth is that of the test scores."""
    result = run_python("-m", "bin.choose", "--run", "run", "--metric", "mae", cwd=folder, small=True)
    assert result.returncode == 0, result.stderr
    choice = numbers(folder / "run", metric="mae")
    run = load_run(folder / "run", splits=("val", "test"))
    names = ("mae",)
    scorer = scoring.Scorer(run.model, run.objective, run.problem, names=names)
    lams = np.concatenate([np.linspace(0, 1, 41)[:, None], [choice["lambda"]]]).astype(np.float32)
    on_validation = scorer.run(run.variables, run.dataset.val.samples, lams, run.keys.validation)[0]["mae"].mean(1)
    np.testing.assert_allclose(-choice["value"], on_validation[-1], rtol=1e-4)
    assert on_validation[-1] <= on_validation.min() * (1 + 1e-5)

    on_test = scorer.run(run.variables, run.dataset.test.samples, lams, run.keys.test)[0]["mae"].mean(1)
    scored = xr.load_dataset(folder / "run" / "evaluation" / "scores.nc")["mae"]
    test = choice["test"]["mae"]
    np.testing.assert_allclose(test["chosen"]["mean"], on_test[-1], rtol=1e-4)
    np.testing.assert_allclose(test["middle"]["mean"], on_test[20], rtol=1e-4)
    np.testing.assert_allclose(test["best"]["mean"], scored.mean("image").min(), rtol=1e-5)
    np.testing.assert_allclose(test["best_per_image"]["mean"], scored.min("lam_1").mean(), rtol=1e-5)
    for kind in ("chosen", "middle", "best", "best_per_image"):
        np.testing.assert_allclose(test[kind]["regret"], test[kind]["mean"] - test["best"]["mean"], atol=1e-6)
        assert test[kind]["low"] - 1e-7 <= test[kind]["regret"] <= test[kind]["high"] + 1e-7
    assert f"{test['chosen']['mean']:.4f}" in result.stdout


@pytest.mark.parametrize("metric", ["psnr", "held_out"])
def test_with_three_losses_a_lambda_for_each_image(folder, metric):
    """It is what the network does with ALL of the samples there; no lambda but that of the truth is sure to be better."""
    choice = choose.choose(folder / "three", metric=metric, per_image=True, say=lambda _: None)
    assert choice == numbers(folder / "three", True, metric)
    lams = np.array(choice["lambda"], np.float32)
    assert lams.shape == (3, 2)
    run = load_run(folder / "three")
    samples = run.dataset.test.samples.take(np.arange(3))
    net_input = scoring.make_net_inputs(run.problem, run.keys.test, samples, np.arange(3))
    x_hat = jax.vmap(partial(reconstruct, run.model, run.variables))(jnp.asarray(lams), net_input)
    test = choice["test"]["psnr"]
    np.testing.assert_allclose(test["chosen"]["mean"], np.mean(metrics.psnr(x_hat, samples.image)), rtol=1e-4)
    assert set(choice["test"]) == ({"psnr"} if metric == "psnr" else {"psnr", "ssim"})
    if metric == "psnr":
        assert test["chosen"]["mean"] >= test["best_per_image"]["mean"] - 0.02  # the climb starts from a coarser grid
        assert test["chosen"]["mean"] == pytest.approx(choice["value"], rel=1e-5)


def test_without_the_truth_one_lambda_for_all(folder):
    choice = choose.choose(folder / "three", metric="held_out", fraction=0.3, say=lambda _: None)
    assert (choice["fraction"], len(choice["lambda"])) == (0.3, 2)
    other = choose.choose(folder / "three", metric="held_out", fraction=0.1, say=lambda _: None)
    assert choice["value"] != other["value"]


def test_scores_of_other_images_are_noticed(folder, tmp_path):
    """They were written with --out RUN/evaluation."""
    run = shutil.copytree(folder / "run", tmp_path / "run", ignore=shutil.ignore_patterns("choice-*"))  # of other tests
    images = np.load(folder / "test.npy")
    np.save(tmp_path / "other.npy", images[:, ::-1])
    other = {"source": "arrays", **dict.fromkeys(("train", "val", "test"), str(tmp_path / "other.npy"))}
    evaluate.evaluate(run, run / "evaluation", data=other, say=lambda _: None)
    with pytest.raises(InputError, match=f"The evaluation of {run} must be that of its test images, got other images: "):
        choose.choose(run, say=lambda _: None)
    assert not list(run.glob("choice-*"))


def test_a_metric_that_the_evaluation_lacks(folder):
    choose.choose(folder / "three", metric="psnr", say=lambda _: None)
    with pytest.raises(InputError, match="must have mse: python -m bin.evaluate --run .*three --metrics mse"):
        choose.choose(folder / "three", metric="mse", say=lambda _: None)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "three",
            {"metric": "sim"},
            "`metric` must be one of psnr, ssim, mae, mse, hfen, edges, texture, held_out, got 'sim'",
        ),
        ("three", {"metric": "held_out", "fraction": 1.0}, "`fraction` must be above 0 and below 1, got 1.0"),
        ("denoiser", {"metric": "held_out"}, "held_out needs k-space to withhold, got a run of the task 'denoising'"),
        ("whole", {"metric": "held_out"}, "held_out needs samples outside of the fully sampled centre"),
        ("fixed", {}, "for more than one lambda; in this one none can be chosen"),
    ],
)
def test_what_cannot_be_chosen_is_told_before_anything_is_done(folder, name, options, message):
    files_before = sorted(path.name for path in (folder / name).iterdir())
    with pytest.raises(InputError, match=message):
        choose.choose(folder / name, say=lambda _: None, **options)
    assert sorted(path.name for path in (folder / name).iterdir()) == files_before


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "Say for which run to choose: --run RUN"),
        (("--run", "none"), "none/config.json cannot be read"),
    ],
)
def test_mistakes_are_told_in_a_sentence(folder, args, message):
    result = run_python("-m", "bin.choose", *args, cwd=folder)
    assert (result.returncode, "Traceback" in result.stderr) == (2, False)
    assert message in result.stderr
