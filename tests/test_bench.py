"""The benchmark: what it computes from times, and that the command runs. No time is tested."""

import itertools
from pathlib import Path

import jax
import pytest
from helper import python

from hyperrecon_jax import bench, data
from hyperrecon_jax.data import prepared

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.usefixtures("small_network")


def test_medians_and_ratios_to_the_first_of_a_case(monkeypatch):
    """On a clock of our own, in alternation, without the first call."""
    now = [0.0]
    lasts = {
        "a": itertools.cycle([50.0, 2.0, 3.0, 9.0]),
        "b": itertools.cycle([50.0, 1.0, 1.5, 1.0]),
        "c": itertools.repeat(7.0),
    }
    called = []

    def candidate(case, name):
        def run():
            called.append(name)
            now[0] += next(lasts[name])

        return bench.Candidate(case, name, run, 2**20)

    monkeypatch.setattr(bench.time, "perf_counter", lambda: now[0])
    candidates = [candidate("x", "a"), candidate("x", "b"), candidate("y", "c")]
    rows = bench.measure("s", candidates, rounds=3, say=lambda line: None)
    assert called == ["a", "b", "c"] * 4
    assert [(row.case, row.implementation, row.seconds) for row in rows] == [("x", "a", 3), ("x", "b", 1), ("y", "c", 7)]
    assert [row.ratio for row in rows] == pytest.approx([1, 1 / 3, 1])
    assert "b" in bench.table(rows).splitlines()[2]


def test_dhs_steps_of_both_kinds():
    """The first two of the suite for real: uniform sampling, and half of the batch pulled back."""
    candidates = list(itertools.islice(bench.dhs(size=16, batch=4, width=2, hyper_width=2), 2))
    rows = bench.measure("dhs", candidates, rounds=1, say=lambda line: None)
    names = [(row.case, row.implementation) for row in rows]
    assert names == [("instance norm", "UHS"), ("instance norm", "DHS 2 of 4, pull back")]
    assert rows[0].ratio == 1
    assert all(row.seconds > 0 and row.peak_bytes > 0 for row in rows)


def test_landscapes_are_timed_against_forward_passes():
    rows = bench.measure("landscape", list(bench.landscape(size=16, batch=4, width=2, hyper_width=2)), rounds=1, say=len)
    assert [row.implementation for row in rows] == ["forward pass", "scored: J alone", "scored: all that is reported"]
    assert {row.case for row in rows} == {f"{4 * len(jax.devices())} x 4 images"}


def test_feeds_are_timed_alone_and_beside_a_step(tmp_path, monkeypatch):
    monkeypatch.setenv("HYPERRECON_JAX_CACHE", str(tmp_path))
    monkeypatch.setattr(data, "mni_folder", lambda **options: prepared.mni_folder(**{**options, "slices": 2}))
    candidates = [c for c in bench.feed(size=16, batch=4, width=2, hyper_width=2) if "processes" not in c.implementation]
    rows = bench.measure("feed", candidates, rounds=1, say=len)
    ways = ["memory", "disk, threads"]
    assert [row.implementation for row in rows] == [*ways, "on the device", *ways]
    assert [row.case for row in rows] == ["192 images"] * 2 + ["a step"] * 3


def test_the_command_knows_every_suite():
    assert all(f"`{suite}`" in (ROOT / "bin" / "bench.py").read_text() for suite in bench.SUITES)


@pytest.mark.parametrize(
    "args", [["--suite", "nothing"], ["--batch", "2"], ["--rounds", "many"], ["extra"], ["--size", "20"]]
)
def test_mistakes_on_the_command_line(args):
    result = python("-m", "bin.bench", *args, cwd=ROOT, timeout=100)
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("error: ")
