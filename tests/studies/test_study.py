"""The studies on next to nothing: planned, trained, compared and resumed. They share what they train."""

import json
import shutil

import numpy as np
import pytest
from helper import ROOT, run_python, small_networks

from hyperrecon_jax.commands import train
from hyperrecon_jax.evaluation import scores
from hyperrecon_jax.figures import style
from hyperrecon_jax.runs.config import complete
from hyperrecon_jax.runtime.errors import Diverged
from hyperrecon_jax.studies import baselines, dhs, improvements
from hyperrecon_jax.studies.study import run_study
from tests.studies import test_baselines, test_dhs

pytestmark = pytest.mark.slow

OPTIONS = {"lams": (0.0, 0.7), "unets_rate": 1e-2, "seeds": 1}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Settings of images of noise."""
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2), ("test", 4)):
        np.save(folder / f"{split}.npy", rng.random((count, 16, 16), np.float32))
    return {"source": "arrays", **{split: str(folder / f"{split}.npy") for split in ("train", "val", "test")}}


@pytest.fixture(scope="module")
def config(data):
    """A HyperRecon with the heads of the paper, which the study of improvements is about."""
    settings = test_baselines.SETTINGS
    return complete({**settings, "model": {**settings["model"], "conditioning": "dense"}, "data": data})


@pytest.fixture(scope="module")
def small():
    """Networks that compile quickly, and pictures of few pixels."""
    with small_networks(), pytest.MonkeyPatch.context() as patched:
        patched.setitem(style.PAPER, "savefig.dpi", 40)
        yield


@pytest.fixture(scope="module")
def study(config, tmp_path_factory, small):
    """The folder of HyperRecon against U-Nets, and the lines that the user saw."""
    lines, folder = [], tmp_path_factory.mktemp("baselines") / "study"
    assert run_study(baselines.make_plan(config, **OPTIONS), folder, say=lines.append)
    return folder, "\n".join(lines)


def read_json(*parts):
    return json.loads(parts[0].joinpath(*parts[1:]).read_text())


def test_hyperrecon_is_compared_with_unets(study):
    folder, text = study
    assert {path.name for path in folder.iterdir()} == {
        *(f"{kind}-0" for kind in ("hyperrecon", "unets", "comparison")),
        *("table.md", "table.json", "gaps.png", "gaps.pdf"),
    }
    assert f"Look at {folder}/gaps.png; the table is in {folder}/table.md." in text
    for kind, rate, width in (("hyperrecon", 1e-3, 3), ("unets", 1e-2, 0)):
        settings = read_json(folder, f"{kind}-0", "config.json")
        assert (settings["train"]["learning_rate"], settings["model"]["hyper_width"]) == (rate, width)
    table = read_json(folder, "table.json")
    (gap,) = read_json(folder, "comparison-0", "comparison.json")["gaps"]
    assert table["gaps"] == [gap]
    assert table["rows"][0]["hfen"]["worst"] == min(gap["hfen"]["at_lambdas"])
    for low, middle, high in zip(*(gap["ssim"][name] for name in ("low", "at_lambdas", "high")), strict=True):
        assert low <= middle <= high


def test_a_finished_study_trains_and_scores_nothing(study, config, monkeypatch):
    folder, _ = study
    lines = []
    monkeypatch.setattr(train, "train", lambda *args, **options: pytest.fail("it must not train"))
    assert run_study(baselines.make_plan(config, **OPTIONS), folder, say=lines.append)
    text = "\n".join(lines)
    assert text.count("finished") == 2
    assert "Scoring" not in text
    assert "one reconstruction" not in text  # the table of a comparison


def test_a_further_seed_trains_alone_and_one_that_diverges_is_left_out(study, config, tmp_path, monkeypatch):
    folder, calls = tmp_path / "study", []
    shutil.copytree(study[0], folder)

    def diverging(config, workdir, **options):
        calls.append(workdir.name)
        raise Diverged("NaN at step 1.")

    monkeypatch.setattr(train, "train", diverging)
    plan = baselines.make_plan(config, **{**OPTIONS, "seeds": 2})
    with pytest.raises(Diverged, match=r"hyperrecon-1: NaN at step 1\. unets-1: NaN at step 1\."):
        run_study(plan, folder, say=lambda _: None)
    assert calls == ["hyperrecon-1", "unets-1"]
    assert [row["seed"] for row in read_json(folder, "table.json")["rows"]] == ["0"]
    calls.clear()
    assert run_study(plan, folder, only=["seed-0"], say=lambda _: None)
    assert calls == []


@pytest.mark.usefixtures("small")
def test_other_hypernetworks_are_timed_and_compared(study, config, tmp_path):
    """The study of improvements, which resumes from the runs of the other study: they are alike."""
    folder, lines = tmp_path / "study", []
    shutil.copytree(study[0] / "unets-0", folder / "unets-0")
    shutil.copytree(study[0] / "hyperrecon-0", folder / "paper-0")
    variants = ("paper", "circle+low_rank")
    plan = improvements.make_plan(config, **OPTIONS, variants=variants, rates=(1e-3, 2e-3))
    assert run_study(plan, folder, say=lines.append)
    assert {path.name for path in folder.iterdir()} == {
        *(f"{kind}-0" for kind in (*variants, "unets", "comparison")),
        *("table.md", "table.json", "step_times.json"),
    }
    settings = [read_json(folder, f"{kind}-0", "config.json") for kind in (*variants, "unets")]
    assert [values["train"]["learning_rate"] for values in settings] == [1e-3, 2e-3, 1e-2]
    assert [values["model"]["conditioning"] for values in settings] == ["dense", "low_rank", "dense"]
    assert [values["model"]["encoding"] for values in settings[:2]] == ["coefficients", "circle"]
    rows, times = read_json(folder, "table.json")["rows"], read_json(folder, "step_times.json")
    assert [*times] == [*variants, "unets"]
    assert times["paper"]["ratio"] == 1
    for row in rows:
        assert (row["seconds"], row["ratio"]) == (times[row["variant"]]["seconds"], times[row["variant"]]["ratio"])
    gaps = read_json(folder, "comparison-0", "comparison.json")["gaps"]
    assert rows[1]["ssim"]["worst"] == gaps[1]["ssim"]["worst"]

    lines.clear()
    assert run_study(plan, folder, say=lines.append)
    assert "\n".join(lines).count("finished") == 3
    assert read_json(folder, "step_times.json") == times  # not measured again


@pytest.mark.usefixtures("small")
def test_dhs_is_compared_with_uhs(data, tmp_path):
    folder, lines = tmp_path / "study", []
    config = complete({**test_dhs.SETTINGS, "data": data})
    plan = dhs.make_plan(config, widths=[3], rates=[1e-2], seeds=1, points=3)
    assert run_study(plan, folder, say=lines.append)
    assert f"Look at {folder}/landscapes.png; the table is in {folder}/table.md." in lines[-1]
    names = {"d3-uhs-0", "d3-dhs-0", "landscapes.png", "landscapes.pdf", "table.json", "table.md"}
    assert {path.name for path in folder.iterdir()} == names
    rpsnr = scores.load(folder / "d3-dhs-0" / "evaluation" / "scores.nc")["rpsnr"].transpose("lam_1", "lam_2", "image")
    assert rpsnr.shape == (3, 3, 4)  # of the 32 test images that it would take
    (row,) = read_json(folder, "table.json")
    np.testing.assert_allclose(row["dhs"], dhs.best_quarter(rpsnr.values.mean(-1)), rtol=1e-6)
    settings = read_json(folder, "d3-dhs-0", "config.json")
    assert (settings["train"]["learning_rate"], settings["dhs"]["keep"]) == (1e-2, 2)

    lines.clear()
    assert run_study(plan, folder, say=lines.append)
    assert "\n".join(lines).count("finished") == 2
    assert "Scoring" not in "\n".join(lines)


def test_the_command_takes_a_config_and_options(study, config, tmp_path):
    """The command resumes the study above: it is the same one."""
    shutil.copytree(study[0], tmp_path / "study")
    (tmp_path / "tiny.py").write_text(
        f"from hyperrecon_jax.runs.config import complete\ndef get_config():\n    return complete({config.to_dict()!r})\n"
    )
    plan = ROOT / "configs" / "plans" / "baselines.py"

    def command(*args):
        fixed = ("--plan", plan, "--config", "tiny.py", "--out", "study")
        return run_python("-m", "bin.study", *fixed, *args, cwd=tmp_path, small=True)

    options = ("--lams", "0,0.7", "--seeds", "1")
    other = command(*options, "--unets_rate", "1e-3")
    assert other.returncode == 2
    assert "train.learning_rate (0.01 there, 0.001 here)" in other.stderr
    assert "choose another --out" in other.stderr
    result = command(*options, "--unets_rate", "1e-2", "--config.train.log_every=7")
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("finished") == 2
    assert "Look at study/gaps.png; the table is in study/table.md." in result.stdout


def test_the_command_names_mistakes(tmp_path):
    plans = ROOT / "configs" / "plans"
    for args, message in (
        ((), "Say what to study: --plan configs/plans/baselines.py (see --help)."),
        (("--plan", plans / "dhs.py", "--rates", "1,x"), "--rates must be numbers, got 1,x."),
        (("--plan", plans / "baselines.py", "--lams", "0,x"), "--lams must be numbers, got 0,x."),
        (("--plan", plans / "dhs.py", "--widths", "4,0"), "--widths must be whole numbers above 0, got 4,0."),
        (
            ("--plan", plans / "improvements.py", "--variants", "paper,fourier"),
            "A variant must be paper or one or two of low_rank, mixture, film, circle with + between, got 'fourier'.",
        ),
    ):
        result = run_python("-m", "bin.study", *args, cwd=tmp_path)
        assert (result.returncode, result.stderr) == (2, f"error: {message}\n")
    assert list(tmp_path.iterdir()) == []
