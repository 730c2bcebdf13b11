"""The plan of HyperRecon against U-Nets: its figures against NumPy, and its mistakes. `test_study.py` carries it out."""

import numpy as np
import pytest

from hyperrecon_jax.runs.config import complete
from hyperrecon_jax.runtime.errors import InputError
from hyperrecon_jax.studies import baselines
from hyperrecon_jax.studies.study import run_study

SETTINGS = {
    "loss": {"terms": ("mae", "ssim"), "scales": (1.0, 1.0)},
    "model": {"width": 2, "hyper_width": 3},
    "task": {"acceleration": 2.0, "sigma": 0.05},
    "train": {"steps": 2, "batch": 4},
}


def test_rows_are_means_and_worst_over_lambda_of_each_seed_and_of_their_mean():
    psnr, mae = np.array([[0.1, -0.3, 0.2], [0.3, 0.1, -0.4]]), np.array([[0.0, 1.0, 2.0], [0.0, 3.0, -6.0]])
    gaps = [{"psnr": {"at_lambdas": a.tolist()}, "mae": {"at_lambdas": b.tolist()}} for a, b in zip(psnr, mae, strict=True)]
    rows = baselines.summarize(gaps, [0, 1])
    assert [row["seed"] for row in rows] == ["0", "1", "mean"]
    for row, a, b in zip(rows, [*psnr, psnr.mean(0)], [*mae, mae.mean(0)], strict=True):
        for gap, expected in ((row["psnr"], a), (row["mae"], b)):
            np.testing.assert_allclose([gap["mean"], gap["worst"]], [expected.mean(), expected.min()])
    lines = baselines.table(rows).splitlines()
    assert lines[0] == "| seed | ΔPSNR (dB), mean and worst | ΔnMAE, mean and worst |"
    assert lines[2] == "| 0 | +0.0000, -0.3000 | +1.0000, +0.0000 |"
    assert lines[4] == "| mean | +0.0000, -0.1000 | +0.0000, -2.0000 |"
    assert len(baselines.summarize(gaps[:1], [0])) == 1


@pytest.mark.parametrize(
    ("changed", "options", "message"),
    [
        (
            {"model": {"hyper_width": 0}, "lam": {"sampling": "constant", "value": (0.5,)}},
            {},
            "hyper_width 0 and the terms mae",
        ),
        ({"loss": {"terms": ("mae", "mse", "ssim"), "scales": (1.0, 1.0, 1.0)}}, {}, "two loss terms"),
        ({}, {"seeds": 0}, "at least 1 seed and at most 1000, got 0"),
        ({}, {"lams": (0.5, 0.2)}, "lam.axes"),
        ({}, {"lams": (0.5, 2.0)}, "lam.axes"),
        ({}, {"unets_rate": 0.0}, "train.learning_rate must be above 0"),
    ],
)
def test_what_cannot_be_studied(tmp_path, changed, options, message):
    config = complete({**SETTINGS, **changed})
    with pytest.raises(InputError, match=message):
        run_study(baselines.make_plan(config, **{"lams": (0.0, 1.0), "seeds": 1, **options}), tmp_path / "study")
    assert list(tmp_path.iterdir()) == []
