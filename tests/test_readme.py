"""The README keeps its word: its two commands stand first, what it names exists, its Python example runs."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)


def test_the_two_commands_stand_first():
    commands = [line.partition("#")[0].strip() for line in blocks("bash")[0].splitlines()]
    assert commands == [
        "pip install -e . && python -m bin.train --config configs/quickstart.py",
        'pip install -e ".[test]" && python -m pytest',
    ]


def test_files_that_are_named_exist():
    links = re.findall(r"\]\(((?!https?:)[\w/]+[.\w/]+)\)", README.replace("M[H(λ)](y)", ""))
    configs = [f"configs/{name}" for name in re.findall(r"`(\w+\.py)`", README)]
    assert links
    assert configs
    for name in {*links, *configs}:
        assert (ROOT / name).exists(), name


def test_every_config_is_listed():
    for path in (ROOT / "configs").glob("*.py"):
        assert f"`{path.name}`" in README, path.name


def test_the_python_example_runs(capsys):
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), {})
    assert capsys.readouterr().out == "(100, 64, 64, 1)\n"
