"""The plan: reading a plan file, what a selection needs, how far a piece is, and what a piece's commands are."""

import json

import pytest
from helper import ROOT

from hyperrecon_jax.runs.config import complete, flatten
from hyperrecon_jax.runtime.errors import InputError
from hyperrecon_jax.studies import plan
from hyperrecon_jax.studies.paper.pieces import SCALES
from hyperrecon_jax.studies.paper.report import make_plan

CONFIGS = ROOT / "configs"


@pytest.fixture(scope="module")
def laptop():
    return make_plan(SCALES["laptop"](CONFIGS))


@pytest.mark.parametrize("name", ["baselines", "dhs", "improvements"])
def test_the_plans_of_the_docs_have_their_figures(name):
    study = plan.read_plan(str(CONFIGS / "plans" / f"{name}.py"), {})
    assert study.labels == ("seed-0", "seed-1", "seed-2")
    configs = {piece.name: plan.settings(piece, ROOT / "nowhere") for piece in study.groups[0]}
    rates = {name: config.train.learning_rate for name, config in configs.items()}
    if name == "baselines":
        assert rates == {"hyperrecon-0": 2e-3, "unets-0": 1e-2}
    elif name == "dhs":
        assert rates == {f"d{d}-{s}-0": rate for d, rate in ((4, 1e-2), (32, 3e-3), (128, 1e-3)) for s in ("uhs", "dhs")}
        assert {piece.evaluations[0].points for piece in study.pieces} == {11}
    else:
        variants = {"paper": 2e-3, "circle": 2e-3, "low_rank": 4e-3, "mixture": 1e-2, "film": 1e-2, "circle+film": 1e-2}
        assert rates == {f"{name}-0": rate for name, rate in (variants | {"unets": 1e-2}).items()}
        assert {(config.train.steps, config.model.rank) for config in configs.values()} == {(1200, 4)}
    if name != "dhs":
        assert configs["unets-0"].lam.axes == ((0.0, 0.25, 0.5, 0.75, 0.95),)


def test_a_config_of_ones_own_brings_its_learning_rate():
    config = plan.read_config(CONFIGS, "ao_quickstart.py")
    config.train.learning_rate = 5e-4
    study = plan.read_plan(str(CONFIGS / "plans" / "dhs.py"), {"config": config, "widths": [4, 32], "seeds": 1})
    assert {plan.settings(piece, ROOT / "nowhere").train.learning_rate for piece in study.pieces} == {5e-4}


@pytest.mark.parametrize(
    ("text", "file", "options", "message"),
    [
        (None, "none.py", {}, r"The plan file .*none.py does not exist"),
        ("get_config = None", "plan.py", {}, "cannot be used: it has no function get_plan"),
        ("def get_plan(): return 1 / 0", "plan.py", {}, "cannot be used: ZeroDivisionError: division by zero"),
        ("def get_plan(): return 1", "plan.py", {}, r"get_plan\(\) of .*plan.py must return a Plan, got int"),
        ("def get_plan(*, seeds=1): return 1", "plan.py", {"widths": [4]}, "has no option --widths; it has seeds"),
        ("def get_plan(): return 1", "plan.py:big", {}, "has no variants, so nothing may follow a colon; got 'big'"),
    ],
)
def test_a_plan_file_that_cannot_be_used(tmp_path, text, file, options, message):
    if text is not None:
        (tmp_path / "plan.py").write_text(text)
    with pytest.raises(InputError, match=message):
        plan.read_plan(str(tmp_path / file), options)


def test_the_scale_must_be_one_of_three():
    for variant in ("", ":huge"):
        with pytest.raises(InputError, match="The scale must be one of laptop, gpu, paper"):
            plan.read_plan(f"{CONFIGS / 'plans' / 'reproduce.py'}{variant}", {})


def test_a_figure_brings_what_its_pieces_need(laptop):
    gpu = make_plan(SCALES["gpu"](CONFIGS))
    fig5 = [piece.name for piece in plan.select(laptop, ["fig5"])]
    assert fig5[0] == "segmenter"  # the Dice of csmri-L
    assert {"denoising-L", "superres-unets"} <= {*fig5}
    assert not any(name.startswith("ao-") for name in fig5)
    assert [piece.name for piece in plan.select(laptop, ["fig7"])] == ["ao-L-dhs-0"]
    assert plan.select(gpu, ["fig4"])[0].name == "ao-L-dhs-0"  # whose loss scales the others take
    assert len(plan.select(laptop, [])) == len(laptop.pieces)
    with pytest.raises(InputError, match="--only must be among table1, fig3.*; got 'fig9'"):
        plan.select(laptop, ["fig4", "fig9"])


def test_the_loss_scales_of_another_piece_are_taken(tmp_path):
    piece = next(piece for piece in SCALES["gpu"](CONFIGS).pieces if piece.name == "ao-unets")
    (tmp_path / "ao-L-dhs-0").mkdir()
    magnitudes = {"data_consistency": 4.0, "weight_l1": 2.0, "total_variation": 0.5}
    (tmp_path / "ao-L-dhs-0" / "scales.json").write_text(json.dumps({"magnitudes": magnitudes}))
    assert plan.settings(piece, tmp_path).loss.scales == (0.25, 0.5, 2.0)


def test_what_was_begun_counts_by_its_own_steps(laptop, tmp_path):
    piece = laptop.pieces[1]
    folder = tmp_path / piece.name
    (folder / "checkpoints" / "500").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(plan.settings(piece, tmp_path).to_dict()))
    rows = [{"step": step, "seconds": 0.2 * step} for step in (100, 300, 500)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    state = plan.progress(laptop, piece, tmp_path)
    assert (state.done, state.measured, state.finished) == (500, True, False)
    fresh = plan.progress(laptop, piece, tmp_path / "other")
    assert state.seconds - fresh.seconds == pytest.approx(0.2 * (2000 - 500) - piece.step_seconds * 2000)
    assert "500 steps" in plan.table(laptop, [piece], [state])
    other = complete(flatten(plan.settings(piece, tmp_path)) | {"train.batch": 16})
    (folder / "config.json").write_text(json.dumps(other.to_dict()))
    with pytest.raises(InputError, match=r"train.batch \(16 there, 8 here\).*--out"):
        plan.progress(laptop, piece, tmp_path)


def test_without_rough_figures_the_time_is_unknown_until_a_run_has_begun(laptop, tmp_path):
    piece = laptop.pieces[1]._replace(step_seconds=None)
    state = plan.progress(laptop, piece, tmp_path)
    assert state.seconds is None
    assert "unknown" in plan.table(laptop, [piece], [state])
    assert "once a run has logged some steps" in plan.table(laptop, [piece], [state])


def test_a_missing_config_is_named(tmp_path):
    with pytest.raises(InputError, match="must hold nothing.py"):
        plan.read_config(tmp_path, "nothing.py:y")
