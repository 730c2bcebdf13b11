"""Evaluation at several acquisitions through the real command line."""

import csv

import numpy as np
import pytest
from helper import run_python, train_explorable

from hyperrecon_jax.commands.choose import choose
from hyperrecon_jax.commands.evaluate_acquisitions import evaluate_acquisitions, format_table
from hyperrecon_jax.evaluation import scores
from hyperrecon_jax.runtime.errors import InputError

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("small_network")]

RANGE = {"acceleration": (2.0, 8.0), "sigma": (0.0, 0.1), "mask": ("random_lines", "equispaced_lines")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, small_network):
    """A run with a range of acquisitions."""
    return train_explorable(tmp_path_factory.mktemp("runs"), task=RANGE)


@pytest.fixture(scope="module")
def single(tmp_path_factory, small_network):
    """A run with one acquisition: 2-fold, without noise, Poisson-disc."""
    return train_explorable(tmp_path_factory.mktemp("runs"))


def test_each_acquisition_gets_its_folder_and_its_row(folder):
    args = ("--run", "run", "--acquisition", "acceleration=2:4,mask=equispaced_lines", "--lams", "3")
    result = run_python("-m", "bin.evaluate", *args, cwd=folder, small=True)
    assert result.returncode == 0, result.stderr
    out = folder / "run" / "evaluation"
    names = [f"acceleration={a},sigma=0.025,mask=equispaced_lines" for a in (2, 4)]
    assert {path.name for path in out.iterdir()} == {*names, "acquisitions.csv", "acquisitions.png", "acquisitions.pdf"}
    with (out / "acquisitions.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [float(row["acceleration"]) for row in rows] == [2, 4]
    for name, row in zip(names, rows, strict=True):
        ds = scores.load(out / name / "scores.nc")
        np.testing.assert_allclose(float(row["psnr"]), ds["psnr"].mean("image").max(), rtol=1e-5)
        np.testing.assert_allclose(float(row["input_psnr"]), ds["input_psnr"].mean(), rtol=1e-5)
        np.testing.assert_allclose(float(row["psnr_gain"]), float(row["psnr"]) - float(row["input_psnr"]), rtol=1e-4)
    assert float(rows[0]["input_psnr"]) > float(rows[1]["input_psnr"])  # twice as many lines
    assert "equispaced_lines" in result.stdout


def test_another_acquisition_than_the_trained_one_is_told(single):
    lines = []
    text = "acceleration=4,sigma=0.1,mask=random_lines"
    (row,) = evaluate_acquisitions(single / "run", single / "out", text, points=2, say=lines.append)
    sentences = [line for line in lines if line.startswith("The network was trained for")]
    assert len(sentences) == 3
    assert "acceleration 2, this is 4" in sentences[0]
    assert format_table([row]) in "\n".join(lines)
    assert not (single / "out" / "acquisitions.png").exists()  # over one acceleration there is nothing to draw


def test_lambda_is_chosen_at_an_acquisition(folder):
    text = "acceleration=8,sigma=0,mask=random_lines"
    evaluate_acquisitions(folder / "run", folder / "run" / "evaluation", text, points=3, say=lambda _: None)
    result = choose(folder / "run", acquisition=text, say=lambda _: None)
    assert result["acquisition"] == text
    assert (folder / "run" / f"choice-psnr-{text}.json").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [("speed=2", "An acquisition must be"), ("mask=poisson_disc", "mask of an acquisition must be one of random_lines")],
)
def test_mistakes_in_the_flag_are_one_sentence(folder, text, message):
    for command in ("bin.evaluate", "bin.choose"):
        result = run_python("-m", command, "--run", "run", "--acquisition", text, cwd=folder, small=True)
        assert result.returncode == 2
        assert result.stdout == ""
        assert result.stderr.startswith("error: ")
        assert message in result.stderr
        assert result.stderr.count("\n") == 1


def test_impossible_masks_are_found_before_any_work(single):
    with pytest.raises(InputError, match="acceleration"):
        evaluate_acquisitions(single / "run", single / "never", "acceleration=2:200,mask=poisson_disc", say=lambda _: None)
    assert not (single / "never").exists()
    with pytest.raises(InputError, match="psnr and ssim"):
        evaluate_acquisitions(single / "run", single / "never", "sigma=0", metrics=("psnr",), say=lambda _: None)
