"""The study of HyperRecon against U-Nets: its figures against NumPy, and the whole of it on next to nothing."""

import json

import numpy as np
import pytest
from helper import python

from hyperrecon_jax.runs.config import complete
from hyperrecon_jax.runtime.errors import InputError
from hyperrecon_jax.studies import baseline_study

SETTINGS = {
    "loss": {"terms": ("mae", "ssim"), "scales": (1.0, 1.0)},
    "model": {"width": 2, "hyper_width": 3},
    "task": {"acceleration": 2.0, "sigma": 0.05},
    "train": {"steps": 2, "batch": 4},
}


def test_rows_are_means_and_worst_over_lambda_of_each_seed_and_of_their_mean():
    psnr, mae = np.array([[0.1, -0.3, 0.2], [0.3, 0.1, -0.4]]), np.array([[0.0, 1.0, 2.0], [0.0, 3.0, -6.0]])
    gaps = [{"psnr": {"at_lambdas": a.tolist()}, "mae": {"at_lambdas": b.tolist()}} for a, b in zip(psnr, mae, strict=True)]
    rows = baseline_study.rows(gaps)
    assert [row["seed"] for row in rows] == ["0", "1", "mean"]
    for row, a, b in zip(rows, [*psnr, psnr.mean(0)], [*mae, mae.mean(0)], strict=True):
        for found, expected in ((row["psnr"], a), (row["mae"], b)):
            np.testing.assert_allclose([found["mean"], found["worst"]], [expected.mean(), expected.min()])
    lines = baseline_study.table(rows).splitlines()
    assert lines[0] == "| seed | ΔPSNR (dB), mean and worst | ΔnMAE, mean and worst |"
    assert lines[2] == "| 0 | +0.0000, -0.3000 | +1.0000, +0.0000 |"
    assert lines[4] == "| mean | +0.0000, -0.1000 | +0.0000, -2.0000 |"
    assert len(baseline_study.rows(gaps[:1])) == 1


@pytest.mark.parametrize(
    ("changed", "options", "message"),
    [
        (
            {"model": {"hyper_width": 0}, "lam": {"sampling": "constant", "value": (0.5,)}},
            {},
            "hyper_width 0 and the terms mae",
        ),
        ({"loss": {"terms": ("mae", "mse", "ssim"), "scales": (1.0, 1.0, 1.0)}}, {}, "two loss terms"),
        ({}, {"seeds": 0}, "at least 1 seed, got 0"),
        ({}, {"lams": (0.5, 0.2)}, "lam.axes"),
        ({}, {"lams": (0.5, 2.0)}, "lam.axes"),
        ({}, {"learning_rate": 0.0}, "train.learning_rate must be above 0"),
    ],
)
def test_what_cannot_be_studied(tmp_path, changed, options, message):
    config = complete({**SETTINGS, **changed})
    with pytest.raises(InputError, match=message):
        baseline_study.study(config, tmp_path / "study", **{"lams": (0.0, 1.0), "seeds": 1, **options})
    assert list(tmp_path.iterdir()) == []


def test_the_command_trains_compares_and_goes_on(tmp_path):
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2), ("test", 3)):
        np.save(tmp_path / f"{split}.npy", rng.random((count, 16, 16), np.float32))
    data = {split: str(tmp_path / f"{split}.npy") for split in ("train", "val", "test")}
    settings = {**SETTINGS, "data": {"source": "arrays", **data}}
    (tmp_path / "tiny.py").write_text(
        f"from hyperrecon_jax.config import complete\ndef get_config():\n    return complete({settings!r})\n"
    )

    def command(*args):
        return python("-m", "bin.baseline_study", "--config", "tiny.py", "--out", "study", *args, cwd=tmp_path, small=True)

    refused = command("--lams", "0,x")
    assert (refused.returncode, refused.stderr) == (2, "error: --lams must be numbers, got 0,x.\n")
    assert not (tmp_path / "study").exists()

    options = ("--lams", "0,0.7", "--rate", "1e-2")
    result = command(*options)
    assert result.returncode == 0, result.stderr
    study = tmp_path / "study"
    assert {path.name for path in study.iterdir()} == {
        *(f"{kind}-0" for kind in ("hyperrecon", "unets", "comparison")),
        *("table.md", "table.json", "gaps.png", "gaps.pdf"),
    }
    assert "Look at study/gaps.png; the table is in study/table.md." in result.stdout
    settings = {kind: json.loads((study / f"{kind}-0" / "config.json").read_text()) for kind in ("hyperrecon", "unets")}
    for kind, rate, width in (("hyperrecon", 1e-3, 3), ("unets", 1e-2, 0)):
        assert (settings[kind]["train"]["learning_rate"], settings[kind]["model"]["hyper_width"]) == (rate, width)
    found = json.loads((study / "table.json").read_text())
    (gap,) = json.loads((study / "comparison-0" / "comparison.json").read_text())["gaps"]
    assert found["gaps"] == [gap]
    assert found["rows"][0]["hfen"]["worst"] == min(gap["hfen"]["at_lambdas"])
    for low, middle, high in zip(*(gap["ssim"][name] for name in ("low", "at_lambdas", "high")), strict=True):
        assert low <= middle <= high

    again = command(*options)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("This run is finished already.") == 2
    assert "Scoring" not in again.stdout
