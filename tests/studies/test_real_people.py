"""The study of real people: its statistics against NumPy, its files, and how it resumes."""

import json
from pathlib import Path

import numpy as np
import pytest
from helper import ROOT
from PIL import Image

from hyperrecon_jax import figures
from hyperrecon_jax.runtime.errors import InputError
from hyperrecon_jax.studies import classical, real_people
from hyperrecon_jax.studies import reconstruction_methods as methods
from hyperrecon_jax.studies.people import read_people
from hyperrecon_jax.studies.plan import read_plan
from hyperrecon_jax.studies.study import run_study, show_plan
from tests.studies.test_reconstruction_methods import replace_run

PLAN = str(ROOT / "configs" / "plans" / "real_people.py")
SIZE = 32


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two people with three slices each."""
    folder, rng = tmp_path_factory.mktemp("people"), np.random.default_rng(0)
    for person in ("anna", "bert"):
        (folder / person).mkdir()
        for k in range(3):
            pixels = np.zeros((SIZE, SIZE), np.uint8)
            pixels[8:24, 6 + k : 26] = 100 + rng.integers(0, 80, (16, 20 - k))
            Image.fromarray(pixels).save(folder / person / f"{k}.png")
    return folder


@pytest.fixture(scope="module", autouse=True)
def network():
    """There is a run in every folder; wavelets take two iterations, and pictures are not drawn."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(classical, "WAVELET_ITERATIONS", 2)
        patched.setattr(figures, "image_rows", lambda path, rows: path.touch())
        yield replace_run(patched)


@pytest.fixture(scope="module")
def study(root, tmp_path_factory):
    """The folder of a study, and the lines that the user saw."""
    lines, out = [], tmp_path_factory.mktemp("study") / "out"
    plan = real_people.make_plan(root=str(root), runs=["runs/run"], slices=2, size=SIZE)
    assert run_study(plan, out, say=lines.append)
    return out, "\n".join(lines)


def test_statistics_are_over_people():
    """Three slices of one person weigh as much as one of another."""
    subjects = np.array([0, 0, 0, 1], np.int32)
    psnr, ssim, mae = np.array([30.0, 31.0, 32.0, 25.0]), np.array([0.9, 0.8, 0.7, 0.6]), np.array([1.0, 2.0, 3.0, 4.0])
    rows = [{"psnr": a, "ssim": b, "mae": c} for a, b, c in zip(psnr, ssim, mae, strict=True)]
    inputs = [{"psnr": value} for value in (20.0, 20.0, 20.0, 26.0)]
    summary = real_people.summarize(rows, inputs, subjects)
    assert (summary["psnr"]["mean"], summary["psnr"]["worst"]) == (28.0, 25.0)
    assert summary["psnr"]["low"] == 25.0  # of two people, a quarter of the resamples has one of them twice
    assert summary["psnr"]["high"] == 31.0
    assert (summary["ssim"]["mean"], summary["ssim"]["worst"]) == pytest.approx((0.7, 0.6))
    assert (summary["mae"]["mean"], summary["mae"]["worst"]) == (3.0, 4.0)  # the largest error is the worst
    assert summary["gain"] == {"mean": 5.0, "worst": -1.0}


@pytest.mark.slow
def test_a_study_has_a_row_for_each_method_and_task(study, root):
    out, text = study
    names = [
        "zero-filled",
        "total variation",
        "wavelet l1",
        *(f"run, λ = {lam}" for lam in ("0", "0.25", "0.5", "0.75", "1")),
    ]
    report = json.loads((out / "table.json").read_text())
    assert (report["people"], report["slices"]) == (2, 4)
    assert [(row["task"], row["method"]) for row in report["rows"]] == [(t.title, n) for t in methods.TASKS for n in names]
    people = read_people(root, slices=2, size=SIZE)
    task = methods.TASKS[0]
    x_hats = [np.abs(np.fft.ifft2(methods.observe(task, people.images, i)[..., 0], norm="ortho")) for i in range(4)]
    psnr = [-10 * np.log10(np.mean((x - image[..., 0]) ** 2)) for x, image in zip(x_hats, people.images, strict=True)]
    assert report["rows"][0]["psnr"]["mean"] == pytest.approx(np.mean(psnr), abs=1e-3)
    assert report["rows"][1]["gain"]["worst"] > 1  # total variation, on images of rectangles
    assert (out / "table.md").read_text() in text + "\n"
    assert (out / "table.md").read_text().count("| run, λ = 0.5 | ") == 3


@pytest.mark.slow
def test_the_picture_has_the_reference_and_one_lambda_of_each_run(study, root, monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr(figures, "image_rows", lambda path, rows: drawn.append(rows))
    people = read_people(root, slices=2, size=SIZE)
    selected = [*methods.classical_methods()[:2], methods.run_methods(Path("runs/run"))[2]]
    real_people.draw_people(tmp_path / "a.png", people, selected)
    assert (study[0] / "people.png").exists()
    assert len(drawn[0]) == 2 * 3  # people and tasks
    images, titles = next(iter(drawn[0].values()))
    assert [title.split("\n")[0] for title in titles] == ["reference", "zero-filled", "total variation", "run, λ = 0.5"]
    assert next(iter(drawn[0])) == "anna\n4-fold Poisson-disc\nσ = 0.02"
    np.testing.assert_array_equal(images[0], people.images[1, ..., 0])


@pytest.mark.slow
def test_a_study_resumes(study, root, monkeypatch):
    out, _ = study
    before = (out / "table.md").read_text()
    lines = (out / "scores.jsonl").read_text().splitlines()
    (out / "scores.jsonl").write_text("\n".join(lines[:-1]) + "\n" + lines[-1][:30])  # cut off while it was written
    computed = []
    compute = real_people.observe
    monkeypatch.setattr(real_people, "observe", lambda *arguments: computed.append(1) or compute(*arguments))
    monkeypatch.setattr(real_people, "draw_people", lambda *arguments: None)
    plan = real_people.make_plan(root=str(root), runs=["runs/run"], slices=2, size=SIZE)
    run_study(plan, out, say=lambda _: None)
    assert len(computed) == 1
    assert (out / "table.md").read_text() == before
    assert len(real_people.read_scores(out / "scores.jsonl")) == 3 * 8 * 4


def test_the_plan_file(root, tmp_path):
    lines = []
    plan = read_plan(PLAN, {"root": str(root), "runs": ["runs/quickstart"], "slices": 5})
    assert show_plan(plan, tmp_path, say=lines.append) == []
    assert lines[0].startswith(f"Reconstructions of the people in {root}, slices of each: 5, by zero-filled, ")
    assert lines[0].endswith(", runs/quickstart.")
    with pytest.raises(InputError, match="--root must be a folder"):
        read_plan(PLAN, {})
    with pytest.raises(InputError, match="at least 1 slice of each person, got 0"):
        read_plan(PLAN, {"root": str(root), "slices": 0})
    with pytest.raises(InputError, match="--only must be among nothing; got 'x'"):
        run_study(plan, tmp_path, only=["x"])
