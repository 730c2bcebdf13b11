"""The pieces of the three scales: their settings, what differs between them, and the commands they stand for."""

import shlex
import sys

import pytest
from absl import flags
from helper import ROOT, run_python
from ml_collections import config_flags

from hyperrecon_jax.runs.config import complete, differences
from hyperrecon_jax.runtime.errors import InputError
from hyperrecon_jax.studies import plan
from hyperrecon_jax.studies.paper.pieces import SCALES
from hyperrecon_jax.studies.paper.report import make_plan
from hyperrecon_jax.studies.paper.scale import FIGURES, SIZES

CONFIGS = ROOT / "configs"


@pytest.fixture(scope="module")
def scales():
    return {name: make_scale(CONFIGS) for name, make_scale in SCALES.items()}


@pytest.fixture(scope="module")
def configs(scales, tmp_path_factory):
    """The settings of all pieces, by scale and name."""
    out = tmp_path_factory.mktemp("out")
    return {name: {piece.name: plan.settings(piece, out) for piece in scale.pieces} for name, scale in scales.items()}


@pytest.mark.parametrize("name", SCALES)
def test_every_piece_has_settings_that_an_experiment_can_have(name, scales, configs, tmp_path):
    scale = scales[name]
    names = [piece.name for piece in scale.pieces]
    assert len({*names}) == len(names)
    assert {label for piece in scale.pieces for label in piece.labels} == {*FIGURES}
    study = make_plan(scale)
    states = [plan.progress(study, piece, tmp_path / "out") for piece in scale.pieces]
    assert not (tmp_path / "out").exists()
    assert "nothing yet" in plan.table(study, scale.pieces, states)
    if name == "laptop":
        assert sum(state.seconds for state in states) < 100 * 60  # of the two hours that it may take
    else:
        assert {config.data.size for config in configs[name].values()} == {256}
        assert {config.train.steps for config in configs[name].values()} == {4000 if name == "gpu" else 35_625}
        members = 1
        for axis in configs[name]["ao-unets"].lam.axes:
            members *= len(axis)
        assert members == (12 if name == "gpu" else 324)


def test_uhs_and_dhs_differ_in_sampling_alone_and_unets_in_what_they_must(scales, configs):
    for name, scale in scales.items():
        config = configs[name]
        for size in SIZES:
            dhs, uhs = (config[f"ao-{size}-{sampling}-0"].to_dict() for sampling in ("dhs", "uhs"))
            assert [line.split()[0] for line in differences(dhs, uhs)] == ["dhs.keep"]
        for task in scale.tasks:
            changed = differences(config[f"{task}-L"].to_dict(), config[f"{task}-unets"].to_dict())
            allowed = {"lam.sampling", "lam.axes", "model.hyper_width", "train.learning_rate"}
            assert {line.split()[0] for line in changed} <= allowed, task


@pytest.mark.filterwarnings("ignore:the load_module")  # of config_flags
@pytest.mark.parametrize("name", ["laptop", *(pytest.param(name, marks=pytest.mark.slow) for name in ("gpu", "paper"))])
def test_the_commands_give_the_same_settings(name, scales, configs, tmp_path, monkeypatch):
    monkeypatch.chdir(CONFIGS.parent)
    for piece in scales[name].pieces:
        train, *evaluations = plan.commands(piece._replace(scales_from=""), tmp_path)
        values = flags.FlagValues()
        config_flags.DEFINE_config_file("config", None, flag_values=values)
        flags.DEFINE_string("workdir", None, "", flag_values=values)
        monkeypatch.setattr("sys.argv", shlex.split(train)[2:])  # where config_flags looks
        values(sys.argv)
        assert values.workdir == str(tmp_path / piece.name)
        assert complete(values.config).to_dict() == configs[name][piece.name].to_dict(), piece.name
        assert len(evaluations) == len(piece.evaluations)


def test_an_unknown_scale_is_named():
    with pytest.raises(InputError, match=r"one of laptop, gpu, paper, as in reproduce\.py:laptop; got 'huge'"):
        plan.read_plan(f"{CONFIGS / 'plans' / 'reproduce.py'}:huge", {})


@pytest.mark.slow
def test_the_command_shows_the_plan_and_names_mistakes(tmp_path):
    reproduce = CONFIGS / "plans" / "reproduce.py"
    options = ("--dry-run", "--only", "fig7", "--out", "out")
    shown = run_python("-m", "bin.study", "--plan", f"{reproduce}:paper", *options, cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "ao-L-dhs-0" in shown.stdout
    assert "35625" in shown.stdout
    assert list(tmp_path.iterdir()) == []
    refused = run_python("-m", "bin.study", "--plan", f"{reproduce}:huge", cwd=tmp_path)
    message = "The scale must be one of laptop, gpu, paper, as in reproduce.py:laptop; got 'huge'."
    assert (refused.returncode, refused.stderr) == (2, f"error: {message}\n")
    assert list(tmp_path.iterdir()) == []
