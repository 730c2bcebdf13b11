"""The study of lambda's corners: its numbers against a loop, its statistics against NumPy, and its files."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from helper import ROOT, small_networks
from random_models import random_variables
from skimage.metrics import structural_similarity

from hyperrecon_jax import figures
from hyperrecon_jax.models.model import reconstruct
from hyperrecon_jax.runs.config import complete
from hyperrecon_jax.runs.experiment import make_model
from hyperrecon_jax.runtime.errors import InputError
from hyperrecon_jax.studies import lambda_choice
from hyperrecon_jax.studies import reconstruction_methods as methods
from hyperrecon_jax.studies.plan import read_plan
from hyperrecon_jax.studies.study import run_study
from tests.studies.test_real_people import root  # noqa: F401, a fixture

PLAN = str(ROOT / "configs" / "plans" / "lambda_choice.py")
SIZE = 32
TERMS = ("mae", "ssim", "mse")
LAMS = {"mae": [1.0, 0.0], "ssim": [0.0, 1.0], "mse": [0.0, 0.0]}
CONFIG = complete(
    {"model": {"width": 2, "hyper_width": 3}, "loss": {"terms": TERMS, "scales": (1.0, 2.0, 3.0)}, "lam": {"value": (0, 0)}}
)


@pytest.fixture(scope="module", autouse=True)
def network():
    """Every folder holds a small network of three loss terms, which was not trained."""
    with pytest.MonkeyPatch.context() as patched:
        with small_networks():
            model, shapes, _ = make_model(CONFIG)
        variables = random_variables(shapes)
        patched.setattr(methods, "read_config", lambda run: CONFIG)
        patched.setattr(lambda_choice, "load", lambda run, acquisition: (model, variables))
        yield model, variables


def test_scores_equal_a_loop(network):
    image = np.random.default_rng(0).random((SIZE, SIZE, 1), np.float32)
    task = methods.TASKS[0]
    y = methods.observe(task, image[None], 0)
    x_hat, losses, distances = lambda_choice.make_corners(Path("run"), task, (SIZE, SIZE))(y, image)
    problem = methods.make_task_problem(CONFIG, task, (SIZE, SIZE))
    for j, term in enumerate(TERMS):
        expected = reconstruct(*network, jnp.array(LAMS[term]), problem.to_net_input(jnp.asarray(y)))
        np.testing.assert_allclose(x_hat[j], expected, atol=1e-5)
        a, b = x_hat[j, ..., 0].astype(float), image[..., 0].astype(float)
        ssim = structural_similarity(a, b, data_range=1.0, gaussian_weights=True, use_sample_covariance=False)
        assert losses[j] == pytest.approx([np.abs(a - b).mean(), 1 - ssim, np.square(a - b).mean()], rel=1e-4)
        for k in range(3):
            reference = b if j == k else x_hat[k, ..., 0].astype(float)
            assert distances[j, k] == pytest.approx(np.sqrt(np.square(a - reference).mean()), rel=1e-4)


def test_statistics_are_those_of_people():
    """Two slices of one person weigh as much as one of another. The first term is worst at its own corner."""
    losses = np.array([[[3.0, 9.0], [1.0, 5.0]], [[5.0, 9.0], [1.0, 5.0]], [[8.0, 8.0], [2.0, 6.0]]])
    distances = np.array([[[2.0, 1.0], [1.0, 4.0]], [[2.0, 1.0], [1.0, 4.0]], [[1.0, 1.0], [1.0, 2.0]]])
    summary = lambda_choice.summarize(losses, distances, np.array([0, 0, 1]), ["mae", "ssim"])
    mae, ssim = summary["losses"]
    assert (mae["term"], mae["own"]["mean"], mae["ssim"]["mean"]) == ("mae", 6.0, -4.5)
    assert (mae["ssim"]["low"], mae["ssim"]["high"]) == (-6.0, -3.0)
    assert (ssim["term"], ssim["own"]["mean"], ssim["mae"]["mean"]) == ("ssim", 5.5, 3.0)
    (difference,) = summary["differences"]
    assert (difference["first"], difference["second"], difference["mean"]) == ("mae", "ssim", 0.75)


def test_the_plan_writes_the_tables_and_the_picture(root, tmp_path, monkeypatch):  # noqa: F811
    drawn = []
    monkeypatch.setattr(figures, "image_rows", lambda path, rows: drawn.append(rows))
    lines = []
    plan = read_plan(PLAN, {"root": str(root), "runs": ["runs/a"], "slices": 2})
    assert run_study(plan, tmp_path, say=lines.append)
    report = json.loads((tmp_path / "choice.json").read_text())
    assert (report["people"], report["slices"], len(report["rows"])) == (2, 4, 3)
    assert [row["term"] for row in report["rows"][0]["losses"]] == list(TERMS)
    assert [(row["first"], row["second"]) for row in report["rows"][0]["differences"]] == [
        ("mae", "ssim"),
        ("mae", "mse"),
        ("ssim", "mse"),
    ]
    text = (tmp_path / "choice.md").read_text()
    assert text.count("| a | SSIM | ") == 3
    assert text.count("| a | MAE, SSIM | ") == 3
    assert text in "\n".join(lines) + "\n"
    assert list(drawn[0]) == ["a\nanna", "a\nbert"]
    images, titles = drawn[0]["a\nanna"]
    assert titles == ["reference", "MAE alone", "SSIM alone", "MSE alone"]
    assert images.shape == (4, 256, 256)


def test_mistakes(root, tmp_path):  # noqa: F811
    with pytest.raises(InputError, match="--root must be a folder"):
        read_plan(PLAN, {})
    with pytest.raises(InputError, match="at least 1 slice of each person, got 0"):
        read_plan(PLAN, {"root": str(root), "slices": 0})
    single = complete({"loss": {"terms": ("mae",), "scales": (1.0,)}})
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(methods, "read_config", lambda run: single)
        with pytest.raises(InputError, match="with 2 to 4 loss terms"):
            read_plan(PLAN, {"root": str(root)})
