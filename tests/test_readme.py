"""The README is right and short: its two commands come first, its links exist, its Python example runs."""

import re

import jax
import pytest
from helper import ROOT, train_explorable

README = (ROOT / "README.md").read_text()


def find_blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)


def test_the_two_commands_stand_first():
    commands = [line.partition("#")[0].strip() for line in find_blocks("bash")[0].splitlines()]
    assert commands == [
        "pip install -e . && python -m bin.train --config configs/quickstart.py",
        'pip install -e ".[test]" && python -m pytest',
    ]


def test_it_is_short():
    assert len(README.splitlines()) < 160


def test_files_that_are_named_exist():
    links = re.findall(r"\]\(((?!https?:)[\w/]+[.\w/]+)\)", README.replace("M[H(λ)](y)", ""))
    configs = re.findall(r"configs/\w+\.py", README)
    assert links
    assert configs
    for name in {*links, *configs}:
        assert (ROOT / name).exists(), name


@pytest.mark.slow
@pytest.mark.usefixtures("small_network")
def test_the_python_example_runs(tmp_path, capsys):
    """On a run like the quickstart's, with smaller images."""
    (code,) = find_blocks("python")
    run = train_explorable(tmp_path) / "run"
    small = code.replace("96", "16").replace("24:72", "4:12").replace('"runs/quickstart"', repr(str(run)))
    with jax.numpy_rank_promotion("allow"):
        exec(compile(small, "README.md", "exec"), {})
    assert capsys.readouterr().out == "(5, 16, 16, 1)\n"
    assert "# (5, 96, 96, 1)" in code
