"""`hyperrecon`: its commands, their help, and mistakes in one sentence."""

import re

import pytest
from helper import run_python

from hyperrecon_jax import __version__, cli

HYPERRECON = "import sys; sys.argv[0] = '/env/bin/hyperrecon'; from hyperrecon_jax.cli.main import main; main()"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("elsewhere")


def hyperrecon(*args, cwd):
    return run_python("-c", HYPERRECON, *args, cwd=cwd)


@pytest.mark.parametrize("args", [(), ("--help",), ("-h",)])
def test_it_lists_its_commands_with_a_line_for_each(args, folder):
    result = hyperrecon(*args, cwd=folder)
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.partition("Commands:\n")[2].splitlines()
    assert [re.fullmatch(r"  (\w+) +\S.*\.", line)[1] for line in lines] == list(cli.COMMANDS)
    assert "  train " in result.stdout
    assert "Train a reconstruction network for every lambda." in result.stdout


def test_it_has_a_version(folder):
    result = hyperrecon("--version", cwd=folder)
    assert (result.returncode, result.stdout, result.stderr) == (0, f"{__version__}\n", "")


@pytest.mark.parametrize(("name", "similar"), [("trian", "train"), ("--verison", "--version"), ("--run", ""), ("main", "")])
def test_an_unknown_command_is_a_mistake(name, similar, folder):
    result = hyperrecon(name, cwd=folder)
    assert (result.returncode, result.stdout) == (2, "")
    advice = f"did you mean {similar}? See" if similar else "see"
    assert result.stderr == f"error: Unknown command {name!r}; {advice} hyperrecon --help.\n"


@pytest.mark.slow
@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_is_the_same_through_both_doors_but_for_the_form_of_its_commands(name, folder):
    installed, checkout = hyperrecon(name, "--help", cwd=folder), run_python("-m", f"bin.{name}", "--help", cwd=folder)
    for result in (installed, checkout):
        assert (result.returncode, result.stderr) == (0, "")
    assert f"    hyperrecon {name}" in installed.stdout
    assert "python -m" not in installed.stdout
    assert f"    python -m bin.{name}" in checkout.stdout
    assert "hyperrecon " not in checkout.stdout
    flags = [result.stdout.partition("Flags:\n")[2] for result in (installed, checkout)]
    assert flags[0] == flags[1] != ""


def test_mistakes_name_configs_in_the_form_of_the_door(folder):
    for result, config in (
        (hyperrecon("train", cwd=folder), "quickstart"),
        (run_python("-m", "bin.train", cwd=folder), "configs/quickstart.py"),
    ):
        assert (result.returncode, result.stdout) == (2, "")
        assert result.stderr == f"error: Say what to train: --config {config} (see --help).\n"


@pytest.mark.slow
def test_a_shipped_config_is_named(folder):
    """The run is not started: its folder, `runs/` and the name of the config with its variant, holds something else."""
    for config, name in (("quickstart", "quickstart"), ("paper_denoise:S", "paper_denoise-S")):
        (folder / "runs" / name).mkdir(parents=True)
        (folder / "runs" / name / "notes.txt").touch()
        for result in (
            hyperrecon("train", "--config", config, cwd=folder),
            run_python("-m", "bin.train", f"--config={config}", "--config.train.steps=300", cwd=folder),
        ):
            assert (result.returncode, result.stdout) == (2, "")
            assert f"The work folder runs/{name} is not empty and holds no config.json" in result.stderr


@pytest.mark.parametrize("config", ["quickstrt", "configs", "paper:S"])
def test_an_unknown_config_is_told_with_those_that_exist(config, folder):
    result = hyperrecon("train", "--config", config, cwd=folder)
    assert (result.returncode, result.stdout) == (2, "")
    name = config.partition(":")[0]
    assert re.fullmatch(rf"error: --config must be a file or one of .*quickstart.*; got '{name}'\.\n", result.stderr)
