"""The study of DHS: its figures against NumPy, and the whole of it on next to nothing."""

import json
from pathlib import Path

import numpy as np
import pytest
from helper import python

from hyperrecon_jax.runs.config import complete
from hyperrecon_jax.runtime.errors import InputError
from hyperrecon_jax.studies import dhs_study

ROOT = Path(__file__).parents[2]
SETTINGS = {
    "loss": {"terms": ("data_consistency", "weight_l1", "total_variation"), "scales": (1.0, 1e-3, 1e-2)},
    "model": {"width": 2},
    "train": {"steps": 2, "batch": 4},
    "dhs": {"keep": 2},
}


def test_the_best_quarter_is_the_mean_of_the_highest():
    landscapes = np.random.default_rng(0).random((3, 2, 6, 6))
    expected = [[sorted(one.ravel())[-9:] for one in row] for row in landscapes]
    np.testing.assert_allclose(dhs_study.best_quarter(landscapes), np.mean(expected, -1))


def test_the_summary_compares_seed_by_seed():
    """Constant landscapes: UHS 0, 1, 2 dB and DHS 1, 2, 6 dB for three seeds."""
    values = np.array([[0.0, 1.0, 2.0], [1.0, 2.0, 6.0]])
    (row,) = dhs_study.summary(np.broadcast_to(values[None, :, :, None, None], (1, 2, 3, 4, 4)), [32])
    assert (row["d"], row["seeds"], row["uhs"], row["dhs"], row["gain"]) == (32, 3, 1, 3, 2)
    np.testing.assert_allclose([row["uhs_sd"], row["gain_sd"]], [1, np.std([1, 1, 4], ddof=1)])
    np.testing.assert_allclose([row["uhs_above_input"], row["dhs_above_input"]], [2 / 3, 1])
    assert "| 32 | 1.00 ± 1.00 | 3.00 ± 2.65 | +2.00 ± 1.73 | 1.00, 3.00 | 67%, 100% |" in dhs_study.table([row])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"dhs": {"keep": 4}}, "config.dhs.keep below"),
        ({"dhs": {}}, "config.dhs.keep below"),
        ({"loss": {"terms": ("data_consistency", "total_variation"), "scales": (1.0, 1.0)}}, "three loss terms"),
    ],
)
def test_what_cannot_be_studied(tmp_path, changed, message):
    with pytest.raises(InputError, match=message):
        dhs_study.study(complete({**SETTINGS, **changed}), tmp_path / "study", widths=[4], seeds=1, points=3)
    assert list(tmp_path.iterdir()) == []


def test_the_command_trains_maps_and_goes_on(tmp_path):
    rng = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        np.save(tmp_path / f"{split}.npy", rng.random((4, 16, 16), np.float32))
    data = {split: str(tmp_path / f"{split}.npy") for split in ("train", "val", "test")}
    settings = {**SETTINGS, "data": {"source": "arrays", **data}}
    (tmp_path / "tiny.py").write_text(
        f"from hyperrecon_jax.config import complete\ndef get_config():\n    return complete({settings!r})\n"
    )

    def command(*args):
        fixed = ("--config", "tiny.py", "--widths", "3", "--out", "study")
        return python("-m", "bin.dhs_study", *fixed, *args, cwd=tmp_path, small=True)

    refused = command("--seeds", "0")
    assert (refused.returncode, refused.stderr[:24]) == (2, "error: The study needs a")
    assert not (tmp_path / "study").exists()
    for rates, expected in (
        ("1e-3,1e-2", "a learning rate for each of its 1 widths, got 2"),
        ("0", "learning_rate must be above 0"),
        ("x", "--rates must be numbers"),
    ):
        refused = command("--seeds", "1", "--points", "3", "--rates", rates)
        assert (refused.returncode, expected in refused.stderr) == (2, True), refused.stderr
    assert not (tmp_path / "study").exists()
    result = command("--seeds", "1", "--points", "3", "--rates", "1e-2")
    assert result.returncode == 0, result.stderr
    assert "Look at study/landscapes.png; the table is in study/table.md." in result.stdout
    assert {path.name for path in (tmp_path / "study").iterdir()} == {
        "d3-uhs-0",
        "d3-dhs-0",
        "landscapes.png",
        "landscapes.pdf",
        "table.json",
        "table.md",
    }
    with np.load(tmp_path / "study" / "d3-dhs-0" / dhs_study.LANDSCAPE) as saved:
        assert saved["rpsnr"].shape == (3, 3, 4)
        expected = dhs_study.best_quarter(saved["rpsnr"].mean(-1))
    (row,) = json.loads((tmp_path / "study" / "table.json").read_text())
    np.testing.assert_allclose(row["dhs"], expected, rtol=1e-6)

    settings = json.loads((tmp_path / "study" / "d3-dhs-0" / "config.json").read_text())
    assert (settings["train"]["learning_rate"], settings["dhs"]["keep"]) == (1e-2, 2)

    again = command("--seeds", "1", "--points", "3", "--rates", "1e-2")
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("This run is finished already.") == 2
    assert "Evaluating" not in again.stdout
