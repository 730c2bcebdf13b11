"""A run as functions, against what the run itself reported."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helper import write_splits

import hyperrecon_jax as hr
from hyperrecon_jax.commands import train
from hyperrecon_jax.evaluation import scoring
from hyperrecon_jax.runs import load as load_module
from hyperrecon_jax.runs import run_folder
from hyperrecon_jax.runs.config import complete
from hyperrecon_jax.runs.experiment import build

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("small_network")]

PRIORS = {"terms": ("data_consistency", "weight_l1", "total_variation"), "ground_truth": False}


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    return {
        "data": write_splits(tmp_path_factory.mktemp("data"), shape=(16, 24), train=4, val=2, test=3),
        "task": {"acceleration": 2.0, "sigma": 0.05},
        "train": {"steps": 3, "batch": 4},
    }


@pytest.mark.parametrize(
    ("model", "more"),
    [
        ({"width": 2, "hyper_width": 3, "norm": "batch"}, {}),
        ({"width": 2, "hyper_width": 3}, {"loss": PRIORS | {"scales": ("auto",), "pilot_steps": 4}}),
        ({"width": 2, "hyper_width": 0}, {"lam": {"sampling": "ensemble", "axes": ((0.0, 0.7),)}}),
    ],
    ids=["hyper", "pilot", "ensemble"],
)
def test_what_is_loaded_scores_as_the_run_did(settings, tmp_path, model, more):
    config = complete({**settings, "model": model, **more})
    assert train.train(config, tmp_path, say=lambda line: None)
    network, variables = hr.load(str(tmp_path))
    problem, objective = hr.load_task(tmp_path)
    experiment = build(config)
    test = experiment.dataset.test.samples.arrays
    y = scoring.observe_samples(problem, experiment.keys.test, test, np.arange(3))
    reported = json.loads((tmp_path / run_folder.SUMMARY).read_text())["test"]
    assert len(reported) == len(experiment.lams)
    for lam, row in zip(experiment.lams, reported.values(), strict=True):
        x_hat = jax.vmap(lambda y: hr.reconstruct(network, variables, jnp.asarray(lam), problem.to_net_input(y)))(y)  # noqa: B023
        assert float(hr.metrics.psnr(x_hat, test.image).mean()) == pytest.approx(row["psnr"], rel=1e-4)
    assert objective.scales == load_module.load_run(tmp_path).objective.scales
    assert "scales" not in more.get("loss", {}) or objective.scales != (1.0, 1.0, 1.0)


def test_what_cannot_be_loaded_says_why(settings, tmp_path):
    with pytest.raises(hr.InputError, match=r"config\.json cannot be read"):
        hr.load(tmp_path)
    run_folder.write_json(tmp_path / run_folder.CONFIG, complete(settings).to_dict())
    with pytest.raises(hr.InputError, match="holds no run that was trained"):
        hr.load_task(tmp_path)
    (tmp_path / run_folder.CHECKPOINTS).mkdir()
    with pytest.raises(hr.InputError, match="holds no checkpoint yet"):
        hr.load(tmp_path)
    assert load_module.image_shape(tmp_path) == (16, 24)
    moved = complete({**settings, "data": {**settings["data"], "train": "elsewhere.npy"}})
    run_folder.write_json(tmp_path / run_folder.CONFIG, moved.to_dict())
    with pytest.raises(hr.InputError, match=r"elsewhere\.npy"):
        hr.load_task(tmp_path)
    hr.load_task(tmp_path, shape=(16, 24))
