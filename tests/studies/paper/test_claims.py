"""The paper's claims: every verdict both ways, from invented numbers; and the numbers themselves against closed forms."""

import copy

import numpy as np
import pytest
import xarray as xr
from helper import ROOT

from hyperrecon_jax.studies.paper import look, numbers
from hyperrecon_jax.studies.paper.pieces import laptop
from hyperrecon_jax.studies.paper.verdicts import FAILS, HOLDS, UNTESTABLE, UNTESTED, judge


def supervised(gap):
    """HyperRecon-L better by `gap` times what is tolerated in the mean, at each of three lambdas."""
    unets = {"psnr": 30.0, "ssim": 0.9, "mae": 0.02, "hfen": 0.5}
    tolerated = {"psnr": 0.1, "ssim": 0.003, "mae": 0.02 * 0.02, "hfen": 0.02 * 0.5}
    rows = {name: {"unets": [value] * 3, "gaps": [gap * tolerated[name]] * 3} for name, value in unets.items()}
    return {"lambdas": [0.0, 0.5, 1.0], "metrics": rows}


GOOD = {
    "counted": {"unet": 149_409, "S": 743_533, "M": 4_905_089, "L": 19_208_993},
    "supervised": {task: supervised(0.5) for task in ("csmri", "csmri4x", "denoising", "superres")},
    "dice": {
        "csmri": {
            "lambdas": [0.0, 0.25, 1.0],
            "values": [0.80, 0.85, 0.70],
            "input": 0.5,
            "unets_lambdas": [0.0, 0.5],
            "unets": [0.80, 0.852],
        }
    },
    "look": {
        "csmri": {
            "lambdas": [0.0, 0.95],
            "sharpness": [[0.5, 0.6], [0.5, 0.7]],
            "contrast": [[0.9, 1.0], [0.9, 1.1]],
            "distance": [0.01, 0.01],
            "error": [0.03, 0.03],
        }
    },
    "ao": {
        "uhs": {"S": [1.0, 1.2], "M": [1.5, 1.5], "L": [2.0, 2.0]},
        "dhs": {"S": [1.6, 1.6], "M": [2.0, 2.0], "L": [2.1, 2.1]},
        "unets": 2.5,
        "total_variation": -3.0,
        "points": 21,
    },
    "histogram": {"busiest_quarter": 0.7},
    "pairs": [{"psnr": [26.0, 26.2], "l2_distance": 2.5, "pixels": 64 * 64}],  # an error of 64 * 10**(-1.3) = 3.2
    "table": {
        "csmri-unets": {"members": 5, "parameters": 5, "step_seconds": 0.16, "inference_seconds": 0.01},
        "csmri-S": {"members": 1, "parameters": 1, "step_seconds": 0.04, "inference_seconds": 0.011},
        "csmri-M": {"members": 1, "parameters": 1, "step_seconds": 0.042, "inference_seconds": 0.012},
        "csmri-L": {"members": 1, "parameters": 1, "step_seconds": 0.047, "inference_seconds": 0.015},
    },
}


def changed(path, value):
    values = copy.deepcopy(GOOD)
    *groups, last = path
    inner = values
    for key in groups:
        inner = inner[key]
    inner[last] = value
    return values


def test_what_can_be_tested_holds_by_good_numbers():
    verdicts = judge(GOOD)
    assert len({v.claim for v in verdicts}) == len(verdicts)
    untestable = {row[0] for row in UNTESTABLE}
    for verdict in verdicts:
        assert verdict.verdict == (UNTESTED if verdict.claim in untestable else HOLDS), verdict
        assert bool(verdict.number) == (verdict.claim not in untestable)


def test_nothing_is_judged_without_numbers():
    for verdict in judge({"counted": GOOD["counted"]}):
        counted = verdict.claim.startswith(("Parameters", "The largest HyperRecon"))
        assert verdict.verdict == (HOLDS if counted else UNTESTED), verdict
        assert verdict.why


@pytest.mark.parametrize(
    ("path", "value", "claim", "number"),
    [
        (("supervised", "denoising"), supervised(-1.5), "over all of λ: denoising", "PSNR −0.15 dB"),
        (("dice", "csmri", "values"), [0.85, 0.80, 0.70], "best λ for segmenting", "at λ = 0.00"),
        (("dice", "csmri", "unets"), [0.80, 0.86], "reaches the Dice score", "0.8500 against 0.8600"),
        (("look", "csmri", "sharpness"), [[0.5, 0.6], [0.7, 0.6]], "blurrier", "0.700 at λ = 0 → 0.600 at 0.95"),
        (("look", "csmri", "contrast"), [[0.5, 0.6], [0.7, 0.6]], "accentuates contrast", "U-Nets 0.500 → 0.600"),
        (("look", "csmri", "distance"), [0.02, 0.02], "look alike", "0.67"),
        (("ao", "total_variation"), 0.5, "no acceptable reconstruction", "+0.50 dB"),
        (("ao", "unets"), 3.0, "higher capacity", "U-Nets 3.00 dB"),
        (("ao", "uhs"), {"S": [2.1], "M": [1.0], "L": [2.0]}, "higher capacity", "UHS 2.10 → 1.00 → 2.00"),
        (("ao", "dhs"), {"S": [1.0], "M": [2.0], "L": [2.1]}, "better than UHS", "S −0.10"),
        (("ao", "dhs"), {"S": [1.6], "M": [2.0], "L": [3.0]}, "large hypernetwork least", "L +1.00 dB, mean of 1 seed"),
        (("histogram", "busiest_quarter"), 0.3, "part of the square", "30%"),
        (("pairs",), [{"psnr": [26.0, 26.2], "l2_distance": 1.0, "pixels": 64 * 64}], "10,000", "0.31 of the error"),
        (("pairs",), [{"psnr": [26.0, 26.8], "l2_distance": 2.5, "pixels": 64 * 64}], "10,000", "0.80 dB"),
        (("counted", "S"), 800_000, "Parameters", "S 800,000"),
        (("counted", "L"), 40_000_000, "The largest HyperRecon", "1.3 times"),
        (("table", "csmri-L", "step_seconds"), 0.08, "slightly longer", "2.50 times"),
        (("table", "csmri-M", "step_seconds"), 0.03, "the wider", "40.0 → 30.0 → 47.0 ms"),
        (("table", "csmri-L", "inference_seconds"), 0.3, "equally fast", "L 300.0 ms"),
    ],
)
def test_each_verdict_can_be_that_it_does_not_hold(path, value, claim, number):
    (verdict,) = (v for v in judge(changed(path, value)) if claim in v.claim)
    assert verdict.verdict == FAILS, verdict
    assert number in verdict.number


def test_the_worst_lambda_alone_can_decide():
    values = copy.deepcopy(GOOD)
    values["supervised"]["csmri"]["metrics"]["ssim"]["gaps"] = [0.01, 0.01, -0.0095]  # 0.0035 in the mean
    (verdict,) = (v for v in judge(values) if "8-fold" in v.claim)
    assert verdict.verdict == FAILS


def test_the_busiest_quarter():
    even, single = np.ones((8, 8)), np.zeros((10, 10))
    single[3, 4] = 7
    assert numbers.busiest_quarter(even) == 0.25
    half = np.zeros((8, 8))
    half[:, 4:] = 1
    assert numbers.busiest_quarter(half) == 0.5
    drawn = np.random.default_rng(0).random((2, 144))  # an epoch at the laptop's scale: chance alone does not do
    assert numbers.busiest_quarter(np.histogram2d(*drawn, bins=10, range=[[0, 1]] * 2)[0]) < 0.45
    assert numbers.busiest_quarter(single) == 1
    assert numbers.busiest_quarter(np.zeros((10, 10))) == 0


def test_the_papers_networks_are_counted():
    assert numbers.count_paper_networks() == {"unet": 149_409, "S": 743_533, "M": 4_905_089, "L": 19_208_993}


def test_sharpness_and_contrast_are_relative_to_the_truth():
    rng = np.random.default_rng(0)
    truth = np.zeros((3, 24, 24))
    truth[:2, 4:20, 4:20] = 0.5 + 0.1 * rng.random((2, 16, 16))  # the last slice is empty and does not count
    blurred = truth.copy()
    blurred[:2, 4:20, 4:20] = 0.55
    shifted = np.where(truth > 0, 0.3 + 2 * (truth - 0.5), 0.0)
    sharpness, contrast = look.relative_looks(np.stack([truth, shifted, blurred]), truth)
    np.testing.assert_allclose(sharpness, [1, 2, 0], atol=1e-9)
    np.testing.assert_allclose(contrast, [1, 2, 0], atol=1e-9)


def test_landscapes_are_by_size_sampling_and_complete_seed(monkeypatch, tmp_path):
    """Of names alone: S, M, L are 1, 2, 3, DHS adds 10, the seed 100; lambda_1 is the first axis."""
    scale = laptop(ROOT / "configs")
    existing = {f"ao-{size}-{sampling}-0" for size in "SML" for sampling in ("uhs", "dhs")} | {"ao-L-dhs-1", "ao-unets"}

    def read_scores(scale, out, name):
        if name not in existing:
            return None
        if name == "ao-unets":
            axes, values = {"lam_1": [0.0, 1.0], "lam_2": [0.0, 1.0]}, np.array([[0.0, 0.0], [2.0, 2.0]])
        else:
            _, size, sampling, seed = name.split("-")
            axes = {"lam_1": np.linspace(0, 1, 21), "lam_2": np.linspace(0, 1, 21)}
            values = np.full((21, 21), "SML".index(size) + 1.0 + 10 * (sampling == "dhs") + 100 * int(seed))
        return xr.Dataset({"rpsnr": (("image", "lam_2", "lam_1"), np.stack([values.T - 1, values.T + 1]))}, axes)

    monkeypatch.setattr(numbers, "read_scores", read_scores)
    values, fixed = numbers.landscapes(scale, tmp_path)
    assert values.shape == (3, 2, 1, 21, 21)  # the second seed is not complete
    np.testing.assert_allclose(values[:, :, 0, 3, 4], [[1, 11], [2, 12], [3, 13]])
    np.testing.assert_allclose(fixed[:, 7], np.linspace(0, 2, 21), atol=1e-12)
    existing |= {f"ao-{size}-{sampling}-1" for size in "SML" for sampling in ("uhs", "dhs")}
    values, _ = numbers.landscapes(scale, tmp_path)
    np.testing.assert_allclose(values[2, 1, :, 0, 0], [13, 113])
