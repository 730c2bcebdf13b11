"""The plan: what each figure needs, what is there, how long the rest takes, and the commands it stands for."""

import json
import shlex
import sys
from pathlib import Path

import pytest
from absl import flags
from helper import python
from ml_collections import config_flags

from hyperrecon_jax.runs.config import complete, differences, flatten
from hyperrecon_jax.runtime.errors import InputError
from hyperrecon_jax.studies.paper import plan
from hyperrecon_jax.studies.paper.plan import Piece
from hyperrecon_jax.studies.paper.sizes import SCALES

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize("name", SCALES)
def test_every_piece_has_settings_that_an_experiment_can_have(name, tmp_path):
    scale = SCALES[name]()
    names = [piece.name for piece in scale.pieces]
    assert len({*names}) == len(names)
    assert {figure for piece in scale.pieces for figure in piece.figures} == {*plan.FIGURES}
    states = [plan.state(scale, piece, CONFIGS, tmp_path / "out") for piece in scale.pieces]
    assert not (tmp_path / "out").exists()
    assert "nothing yet" in plan.table(scale, scale.pieces, states)
    if name == "laptop":
        assert sum(one.seconds for one in states) < 100 * 60  # of the two hours that it may take
    else:
        configs = {piece.name: plan.read_config(piece, CONFIGS, tmp_path) for piece in scale.pieces}
        assert {config.data.size for config in configs.values()} == {256}
        assert {config.train.steps for config in configs.values()} == {4000 if name == "gpu" else 35_625}
        members = 1
        for axis in configs["ao-unets"].lam.axes:
            members *= len(axis)
        assert members == (12 if name == "gpu" else 324)


def test_uhs_and_dhs_differ_in_sampling_alone_and_unets_in_what_they_must(tmp_path):
    for make in SCALES.values():
        config = {piece.name: plan.read_config(piece, CONFIGS, tmp_path) for piece in make().pieces}
        for size in plan.SIZES:
            dhs, uhs = (config[f"ao-{size}-{sampling}-0"].to_dict() for sampling in ("dhs", "uhs"))
            assert [line.split()[0] for line in differences(dhs, uhs)] == ["dhs.keep"]
        for task in make().tasks:
            changed = differences(config[f"{task}-L"].to_dict(), config[f"{task}-unets"].to_dict())
            allowed = {"lam.sampling", "lam.axes", "model.hyper_width", "train.learning_rate"}
            assert {line.split()[0] for line in changed} <= allowed, task


def test_a_figure_brings_what_its_pieces_need():
    laptop, gpu = SCALES["laptop"](), SCALES["gpu"]()
    fig5 = [piece.name for piece in plan.chosen(laptop, ["fig5"])]
    assert fig5[0] == "segmenter"  # the Dice of csmri-L
    assert {"denoising-L", "superres-unets"} <= {*fig5}
    assert not any(name.startswith("ao-") for name in fig5)
    assert [piece.name for piece in plan.chosen(laptop, ["fig7"])] == ["ao-L-dhs-0"]
    assert plan.chosen(gpu, ["fig4"])[0].name == "ao-L-dhs-0"  # whose loss scales the others take
    assert len(plan.chosen(laptop, [])) == len(laptop.pieces)
    with pytest.raises(InputError, match="--only must be among table1, fig3.*; got 'fig9'"):
        plan.chosen(laptop, ["fig4", "fig9"])


def test_the_loss_scales_of_another_piece_are_taken(tmp_path):
    piece = next(piece for piece in SCALES["gpu"]().pieces if piece.name == "ao-unets")
    (tmp_path / "ao-L-dhs-0").mkdir()
    magnitudes = {"data_consistency": 4.0, "weight_l1": 2.0, "total_variation": 0.5}
    (tmp_path / "ao-L-dhs-0" / "scales.json").write_text(json.dumps({"magnitudes": magnitudes}))
    assert plan.read_config(piece, CONFIGS, tmp_path).loss.scales == (0.25, 0.5, 2.0)


def test_what_was_begun_counts_by_its_own_steps(tmp_path):
    scale = SCALES["laptop"]()
    piece = scale.pieces[1]
    folder = tmp_path / piece.name
    (folder / "checkpoints" / "500").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(plan.read_config(piece, CONFIGS, tmp_path).to_dict()))
    rows = [{"step": step, "seconds": 0.2 * step} for step in (100, 300, 500)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    state = plan.state(scale, piece, CONFIGS, tmp_path)
    assert (state.done, state.measured, state.finished(piece)) == (500, True, False)
    fresh = plan.state(scale, piece, CONFIGS, tmp_path / "other")
    assert state.seconds - fresh.seconds == pytest.approx(0.2 * (2000 - 500) - piece.step * 2000)
    assert "500 steps" in plan.table(scale, [piece], [state])
    other = complete(flatten(plan.read_config(piece, CONFIGS, tmp_path)) | {"train.batch": 16})
    (folder / "config.json").write_text(json.dumps(other.to_dict()))
    with pytest.raises(InputError, match=r"train.batch \(16 there, 8 here\).*--out"):
        plan.state(scale, piece, CONFIGS, tmp_path)


def test_a_missing_config_is_told(tmp_path):
    with pytest.raises(InputError, match="must hold nothing.py"):
        plan.read_config(Piece("x", ("fig3",), "nothing.py:y", {}, 1.0), tmp_path, tmp_path)


@pytest.mark.filterwarnings("ignore:the load_module")  # of config_flags
@pytest.mark.parametrize("name", SCALES)
def test_the_commands_give_the_same_settings(name, tmp_path, monkeypatch):
    monkeypatch.chdir(CONFIGS.parent)
    for piece in SCALES[name]().pieces:
        train, *evaluations = plan.commands(piece._replace(scales_of=""), tmp_path)
        values = flags.FlagValues()
        config_flags.DEFINE_config_file("config", None, flag_values=values)
        flags.DEFINE_string("workdir", None, "", flag_values=values)
        monkeypatch.setattr("sys.argv", shlex.split(train)[2:])  # where config_flags looks
        values(sys.argv)
        assert values.workdir == str(tmp_path / piece.name)
        there = complete(values.config)
        assert there.to_dict() == plan.read_config(piece, CONFIGS, tmp_path).to_dict(), piece.name
        assert len(evaluations) == len(piece.evaluations)


def test_the_command_shows_the_plan_and_names_mistakes(tmp_path):
    shown = python("-m", "bin.reproduce", "--scale", "paper", "--dry-run", "--only", "fig7", "--out", "out", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "ao-L-dhs-0" in shown.stdout
    assert "35625" in shown.stdout
    assert list(tmp_path.iterdir()) == []
    refused = python("-m", "bin.reproduce", "--scale", "huge", cwd=tmp_path)
    assert (refused.returncode, refused.stderr) == (2, "error: --scale must be one of laptop, gpu, paper; got 'huge'.\n")
    assert list(tmp_path.iterdir()) == []
