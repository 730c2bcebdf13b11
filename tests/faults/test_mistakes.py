"""Mistakes on the command lines of all commands get one sentence and status 2 at once, and leave nothing behind.

All of them are slow; a sample of the kinds is not.
"""

import json
import shlex

import pytest
from faults.mistakes import GROUPS, MISTAKES, SAMPLE
from faults.try_mistakes import Outcome, faults
from helper import ROOT, run_python

from hyperrecon_jax.cli import COMMANDS


def try_lines(lines, *, timeout, **options):
    """The outcome of each command line; a process tries them (`try_mistakes.py`)."""
    result = run_python(
        *("-W", "ignore", "-m", "faults.try_mistakes", "--json"),
        cwd=ROOT / "tests",
        timeout=timeout,
        stdin=json.dumps([list(lines), options]),
    )
    assert result.returncode == 0, result.stderr
    outcomes = [Outcome(*json.loads(line)) for line in result.stdout.splitlines()]
    return dict(zip(lines, outcomes, strict=True))


def test_there_are_hundreds_for_all_commands():
    assert len(MISTAKES) == sum(map(len, GROUPS)) >= 400
    for command in COMMANDS:
        assert sum(line.startswith(f"{command} ") for line in MISTAKES) >= 30, command


@pytest.fixture(scope="module")
def sample():
    imports = ["hyperrecon_jax.cli.main", "hyperrecon_jax.runs.config"]
    return try_lines(SAMPLE, timeout=300, imports=imports, has_runs=False)


@pytest.mark.slow
@pytest.mark.parametrize("line", SAMPLE, ids=lambda line: ascii(line)[:60])
def test_a_mistake_gets_one_sentence_and_leaves_nothing(sample, line):
    assert faults(sample[line], MISTAKES[line]) == []


@pytest.mark.slow
def test_every_mistake_gets_one_sentence_and_leaves_nothing():
    outcomes = try_lines(MISTAKES, timeout=3600)
    wrong = {
        line[:200]: (problems, outcomes[line]) for line in MISTAKES if (problems := faults(outcomes[line], MISTAKES[line]))
    }
    assert not wrong


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_a_process_of_its_own_says_the_same(command, tmp_path):
    """Through the other door, `python -m bin.COMMAND`, without a fork."""
    line = next(line for line in SAMPLE if line.startswith(command))
    (tmp_path / "file.txt").touch()
    result = run_python("-m", f"bin.{command}", *shlex.split(line)[1:], cwd=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]
