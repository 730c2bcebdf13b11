"""The study of other hypernetworks: its figures against NumPy, its mistakes, and the whole of it on next to nothing."""

import json

import numpy as np
import pytest
from helper import python, small_networks

from hyperrecon_jax.runs.config import complete
from hyperrecon_jax.runtime.errors import InputError
from hyperrecon_jax.studies import improvement_study
from tests.studies.test_baseline_study import SETTINGS


def test_rows_are_over_seeds_of_each_variant():
    psnr = {"paper": np.array([[0.1, -0.3], [0.3, 0.1]]), "circle+film": np.array([[1.0, 2.0], [3.0, -6.0]])}
    gaps = [
        {"of": f"{name}-{seed}", "to": f"unets-{seed}", "psnr": {"at_lambdas": values[seed].tolist()}}
        for seed in range(2)
        for name, values in psnr.items()
    ]
    for gap in gaps:
        gap["ssim"] = gap["psnr"]
    times = {name: {"seconds": 0.1, "ratio": 1.25} for name in (*psnr, "unets")}
    rows = improvement_study.rows(gaps, times, {"paper": 1000, "circle+film": 20, "unets": 30})
    assert [row["variant"] for row in rows] == ["paper", "circle+film", "unets"]
    assert [row["seeds"] for row in rows] == [2, 2, 2]
    for row, values in zip(rows, psnr.values(), strict=False):
        expected = values.mean(), values.mean(1).std(ddof=1), values.mean(0).min()
        np.testing.assert_allclose([row["psnr"][name] for name in ("mean", "sd", "worst")], expected)
    first, other = psnr.values()
    ahead = (other - first).mean(1)
    np.testing.assert_allclose(rows[1]["psnr"]["ahead"], ahead)
    found = rows[1]["ssim"]["ahead_mean"], rows[1]["ssim"]["ahead_sd"]
    np.testing.assert_allclose(found, [ahead.mean(), ahead.std(ddof=1)], atol=1e-12)
    lines = improvement_study.table(rows).splitlines()
    assert lines[0] == "| variant | parameters | step | ΔPSNR (dB), mean ± sd, worst | ΔSSIM, mean ± sd, worst |"
    assert lines[2] == "| paper | 1,000 | 1.25 | +0.0500 ± 0.2121, -0.1000 | +0.0500 ± 0.2121, -0.1000 |"
    assert lines[4] == "| unets | 30 | 1.25 |  |  |"
    assert lines[6] == "| ahead of paper in | PSNR (dB), each seed | mean ± sd | SSIM, each seed | mean ± sd |"
    assert lines[8].startswith(f"| circle+film | {ahead[0]:+.4f}, {ahead[1]:+.4f} | ")
    assert len(lines) == 9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variants": ("paper", "fourier")}, "A variant must be paper or one or two of low_rank, mixture, film, circle"),
        ({"variants": ("film+low_rank",)}, r"with \+ between, got 'film\+low_rank'"),
        ({"variants": ()}, "variants of which none comes twice, got none"),
        ({"variants": ("paper", "paper")}, "none comes twice, got paper,paper"),
        ({"rates": (1e-3,)}, "a learning rate for each of its 2 variants, got 1"),
        ({"rates": (1e-3, -1.0)}, "train.learning_rate must be above 0"),
        ({"seeds": 0}, "at least 1 seed, got 0"),
    ],
)
def test_what_cannot_be_studied(tmp_path, options, message):
    options = {"variants": ("paper", "film"), "lams": (0.0, 1.0), "seeds": 1, **options}
    with pytest.raises(InputError, match=message):
        improvement_study.study(complete(SETTINGS), tmp_path / "study", **options)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def config(tmp_path):
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2), ("test", 3)):
        np.save(tmp_path / f"{split}.npy", rng.random((count, 16, 16), np.float32))
    data = {split: str(tmp_path / f"{split}.npy") for split in ("train", "val", "test")}
    model = {**SETTINGS["model"], "conditioning": "dense"}  # the paper's, of which the study is
    return complete({**SETTINGS, "model": model, "data": {"source": "arrays", **data}})


def test_it_times_trains_compares_and_goes_on(config, tmp_path):
    said = []
    options = {"lams": (0.0, 0.7), "unets_rate": 1e-2, "seeds": 1, "say": said.append}
    options |= {"variants": ("paper", "circle+low_rank"), "rates": (1e-3, 2e-3)}
    with small_networks():
        assert improvement_study.study(config, tmp_path / "study", **options)
        study = tmp_path / "study"
        assert {path.name for path in study.iterdir()} == {
            *(f"{kind}-0" for kind in ("paper", "circle+low_rank", "unets", "comparison")),
            *("table.md", "table.json", "step_times.json"),
        }
        settings = {kind: json.loads((study / f"{kind}-0" / "config.json").read_text()) for kind in ("paper", "unets")}
        settings["other"] = json.loads((study / "circle+low_rank-0" / "config.json").read_text())
        assert [settings[k]["train"]["learning_rate"] for k in ("paper", "other", "unets")] == [1e-3, 2e-3, 1e-2]
        assert [settings[k]["model"]["conditioning"] for k in ("paper", "other", "unets")] == ["dense", "low_rank", "dense"]
        assert [settings[k]["model"]["encoding"] for k in ("paper", "other")] == ["coefficients", "circle"]
        rows = json.loads((study / "table.json").read_text())["rows"]
        times = json.loads((study / "step_times.json").read_text())
        assert [*times] == ["paper", "circle+low_rank", "unets"]
        assert times["paper"]["ratio"] == 1
        for row in rows:
            assert (row["seconds"], row["ratio"]) == (times[row["variant"]]["seconds"], times[row["variant"]]["ratio"])
        gaps = json.loads((study / "comparison-0" / "comparison.json").read_text())["gaps"]
        assert rows[1]["ssim"]["worst"] == gaps[1]["ssim"]["worst"]

        said.clear()
        assert improvement_study.study(config, study, **options)
    assert sum(line.startswith("This run is finished already.") for line in said) == 3
    assert json.loads((study / "step_times.json").read_text()) == times  # not measured again


def test_the_command_tells_of_a_mistake(tmp_path):
    def command(*args):
        return python("-m", "bin.improvement_study", *args, cwd=tmp_path)

    (tmp_path / "tiny.py").write_text(
        f"from hyperrecon_jax.config import complete\ndef get_config():\n    return complete({SETTINGS!r})\n"
    )
    for args, message in (
        ((), "Say what to study: --config configs/laptop_sl.py:csmri (see --help)."),
        (("--config", "tiny.py", "--rates", "1,x"), "--rates must be numbers, got 1,x."),
        (
            ("--config", "tiny.py", "--variants", "paper,fourier"),
            "A variant must be paper or one or two of low_rank, mixture, film, circle with + between, got 'fourier'.",
        ),
    ):
        result = command(*args)
        assert (result.returncode, result.stderr) == (2, f"error: {message}\n")
    assert [path.name for path in tmp_path.iterdir() if path.is_dir() and path.name != "__pycache__"] == []
