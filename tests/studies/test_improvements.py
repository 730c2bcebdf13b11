"""The plan of other hypernetworks: its figures against NumPy, and its mistakes. `test_study.py` carries it out."""

import numpy as np
import pytest

from hyperrecon_jax.runs.config import complete
from hyperrecon_jax.runtime.errors import InputError
from hyperrecon_jax.studies import improvements
from hyperrecon_jax.studies.study import run_study
from tests.studies.test_baselines import SETTINGS


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
    rows = improvements.summarize(gaps, times, {"paper": 1000, "circle+film": 20, "unets": 30})
    assert [row["variant"] for row in rows] == ["paper", "circle+film", "unets"]
    assert [row["seeds"] for row in rows] == [2, 2, 2]
    for row, values in zip(rows, psnr.values(), strict=False):
        expected = values.mean(), values.mean(1).std(ddof=1), values.mean(0).min()
        np.testing.assert_allclose([row["psnr"][name] for name in ("mean", "sd", "worst")], expected)
    first, other = psnr.values()
    ahead = (other - first).mean(1)
    np.testing.assert_allclose(rows[1]["psnr"]["ahead"], ahead)
    mean_and_sd = rows[1]["ssim"]["ahead_mean"], rows[1]["ssim"]["ahead_sd"]
    np.testing.assert_allclose(mean_and_sd, [ahead.mean(), ahead.std(ddof=1)], atol=1e-12)
    lines = improvements.table(rows).splitlines()
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
        ({"seeds": 0}, "at least 1 seed and at most 1000, got 0"),
    ],
)
def test_what_cannot_be_studied(tmp_path, options, message):
    options = {"variants": ("paper", "film"), "lams": (0.0, 1.0), "seeds": 1, **options}
    with pytest.raises(InputError, match=message):
        run_study(improvements.make_plan(complete(SETTINGS), **options), tmp_path / "study")
    assert list(tmp_path.iterdir()) == []
