"""The benchmark: the figures it computes from times, the check that candidates agree, the command. No time is tested."""

import itertools
import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helper import run_python

from hyperrecon_jax import benchmarks, data
from hyperrecon_jax.benchmarks import (
    convolutions,
    feed,
    floor,
    landscape,
    naive,
    networks,
    regression,
    startup,
    steps,
    timing,
)
from hyperrecon_jax.benchmarks.floor import Rates, Work
from hyperrecon_jax.benchmarks.timing import Candidate
from hyperrecon_jax.data import prepare
from hyperrecon_jax.models.model import init
from hyperrecon_jax.models.unet import UNet
from hyperrecon_jax.runtime.errors import InputError

ROOT = Path(__file__).parents[2]
SMALL = benchmarks.Scale(size=16, batch=4, width=2, hyper_widths=(2, 3))

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("small_network")]


def measure(candidates, rounds=1):
    return timing.measure("s", candidates, rounds=rounds, rates=lambda dtype: Rates(2e9, 1e9), say=lambda line: None)


@pytest.fixture
def clock(monkeypatch):
    """A clock that only the candidates move."""
    seconds = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: seconds[0])
    monkeypatch.setattr(timing.time, "sleep", lambda duration: None)
    return seconds


def test_medians_and_ratios_to_the_first_of_a_case(clock):
    """The candidates of a case alternate, and the first call does not count."""
    durations = {
        "a": itertools.cycle([50.0, 2.0, 3.0, 9.0]),
        "b": itertools.cycle([50.0, 1.0, 1.5, 1.0]),
        "slow": itertools.cycle([50.0, 12.0]),
        "c": itertools.repeat(7.0),
    }
    calls = []

    def candidate(case, name, **fields):
        def run():
            calls.append(name)
            clock[0] += next(durations[name])

        return Candidate(case, name, run, **fields)

    rows = measure(
        [candidate("x", "a"), candidate("x", "b"), candidate("x", "slow", max_rounds=1), candidate("y", "c")], rounds=3
    )
    assert calls == ["a", "b", "slow"] * 2 + ["a", "b"] * 2 + ["c"] * 4
    assert [(row.case, row.implementation, row.seconds) for row in rows] == [
        ("x", "a", 3),
        ("x", "b", 1),
        ("x", "slow", 12),
        ("y", "c", 7),
    ]
    assert [row.ratio for row in rows] == pytest.approx([1, 1 / 3, 4, 1])
    assert "b" in benchmarks.table(rows).splitlines()[2]


def test_intervals_of_medians():
    """Up to seven calls: the smallest and the largest; of 20, the sixth ones from both ends (a table of the sign test)."""
    assert timing.percentile_interval([3.0, 1.0, 2.0]) == (1, 3)
    assert timing.percentile_interval(range(7)) == (0, 6)
    assert timing.percentile_interval(range(8)) == (1, 6)
    assert timing.percentile_interval(range(20)) == (5, 14)


def test_changes_between_two_runs(tmp_path):
    def row(name, seconds, low, high):
        return timing.Row("s", "x", name, seconds, 1.0, low, high)

    old = [row("a", 2.0, 1.9, 2.2), row("b", 1.0, 0.9, 1.1), row("c", 1.0, 0.9, 1.1), row("gone", 1.0, 1.0, 1.0)]
    file = tmp_path / "rows.json"
    file.write_text(json.dumps([row._asdict() for row in old]))
    new = [row("a", 3.0, 2.85, 3.3), row("b", 1.0, 0.8, 1.2), row("c", 0.5, 0.45, 0.55), row("added", 1.0, 1.0, 1.0)]
    changes = regression.find_changes(regression.read_rows(file), new)
    assert [change.verdict for change in changes] == ["slower", "same", "faster"]
    assert changes[0][1:] == pytest.approx((1.5, 2.85 / 2.2, 3.3 / 1.9))
    assert "x, a    1.50  1.30 to 1.74  slower" in regression.change_table(changes)


@pytest.mark.parametrize("content", [None, "{", "{}", "[1]", '[{"suite": "s"}]'])
def test_a_file_to_compare_with_that_is_none(tmp_path, content):
    file = tmp_path / "rows.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(InputError, match="^--compare must be a file that"):
        regression.read_rows(file)


def test_floors_and_rates(clock):
    """On a machine of 2e9 operations and 1e9 bytes a second."""

    def run():
        clock[0] += 4.0

    compute_bound, memory_bound = Work(flops=4e9, bytes=1e9), Work(flops=1e9, bytes=3e9)
    compute_row, image_row, bare_row = measure(
        [
            Candidate("x", "a", run, work=compute_bound),
            Candidate("x", "b", run, work=memory_bound, images=8),
            Candidate("x", "c", run),
        ]
    )
    assert (compute_row.floor_seconds, compute_row.floor_fraction, compute_row.bound) == (2, 0.5, "arithmetic")
    assert (compute_row.rate, compute_row.unit) == (1, "GF/s")
    assert (image_row.floor_seconds, image_row.floor_fraction, image_row.bound) == (3, 0.75, "memory")
    assert (image_row.rate, image_row.unit) == (2, "images/s")
    assert (bare_row.floor_seconds, bare_row.floor_fraction, bare_row.rate) == (None, None, None)
    text = benchmarks.table([compute_row, image_row, bare_row])
    assert "50.0% arithmetic" in text
    assert "2 images/s" in text


@pytest.mark.parametrize("wrong", [1.01, np.nan])
def test_disagreement_stops_the_benchmark(wrong):
    """Here in the second call: it shows how the first call changed the state."""
    results = iter([1.0, wrong])
    candidates = [Candidate("x", "a", lambda: 1.0), Candidate("x", "b", lambda: next(results), tolerance=1e-3)]
    with pytest.raises(RuntimeError, match=r"^x: b is off by .* from a\.$"):
        measure(candidates)


@pytest.fixture(scope="module")
def paper():
    """The paper's U-Net with the smallest hypernetwork."""
    return init(jax.random.key(0), UNet(), jnp.zeros((8, 8, 2)), num_terms=2, hyper_width=4)


def shape(size):
    return jax.ShapeDtypeStruct((size, size, 2), jnp.float32)


def test_the_work_of_a_forward_pass(paper):
    """Multiplications and additions of each 3x3 convolution and of the head, and every input and output once."""
    work = floor.forward_work(*paper, shape(256), terms=2)
    w = 32
    at_level = [2 * w + w * w + 2 * w * w + w * w, *[w * w * 2 + w * w * 3] * 2, 2 * w * w]  # input times output channels
    macs = sum(9 * channels * (256 >> level) ** 2 for level, channels in enumerate(at_level)) + w * 256**2
    assert work.flops == 2 * macs
    assert work.flops == pytest.approx(6.84e9, rel=1e-2)
    channels_moved = [2 + 5 * w + 3 * w + w + 1, *[(2 + 2 + 3 + 2) * w] * 2, 4 * w]
    kernels = 148_513 - (14 * w + 1)  # without the biases
    assert work.bytes == 4 * (sum(c * (256 >> level) ** 2 for level, c in enumerate(channels_moved)) + kernels)


def test_the_work_of_a_training_step(paper):
    params = paper[1]["params"]
    hyper, trained = (sum(leaf.size for leaf in jax.tree.leaves(params[part])) for part in ("hyper", "main"))
    assert hyper == 743_533 - trained
    forward = floor.forward_work(*paper, shape(128), terms=2)
    step = floor.training_step_work(*paper, shape(128), terms=2, batch=8)
    assert 24 * forward.flops == pytest.approx(41e9, rel=1e-2)
    assert step.flops == 24 * (forward.flops + 2 * hyper)
    assert step.bytes == 24 * forward.bytes + 7 * 4 * (hyper + trained)
    half = floor.training_step_work(*paper, shape(128), terms=2, batch=8, keep=4)
    assert half.flops / step.flops == pytest.approx((1 + 2 * 4 / 8) / 3)


def test_dhs_skips_nothing_where_the_norm_couples_samples():
    work = {norm: networks.step_work(networks.amortized_task(SMALL, norm=norm, keep=2)) for norm in ("instance", "batch")}
    assert work["instance"].flops / work["batch"].flops == pytest.approx(2 / 3)


@pytest.mark.parametrize("name", convolutions.IMPLEMENTATIONS)
@pytest.mark.parametrize("side", [3, 5])
def test_convolutions_agree(name, side):
    rng = np.random.default_rng(0)
    shapes = (3, 8, 6, 2), (3, side, side, 2, 4), (3, 8, 6, 4)
    x, kernel, ct = (rng.standard_normal(shape, np.float32) for shape in shapes)
    expected, expected_pull_back = jax.vjp(jax.vmap(naive.conv2d), x, kernel)
    y, pull_back = jax.vjp(convolutions.IMPLEMENTATIONS[name], x, kernel)
    for actual, reference in zip((y, *pull_back(ct)), (expected, *expected_pull_back(ct)), strict=True):
        np.testing.assert_allclose(actual, reference, rtol=1e-4, atol=1e-4)


def test_convolutions_and_the_naive_step_are_compared_with_the_library(monkeypatch):
    implementations = {name: convolutions.IMPLEMENTATIONS[name] for name in ("ours", "naive vmap")}  # to compile less
    monkeypatch.setattr(convolutions, "IMPLEMENTATIONS", implementations)
    kernel_shapes, conv2d = [], naive.conv2d

    def record_shape(x, kernel, **options):
        kernel_shapes.append(kernel.shape)
        return conv2d(x, kernel)

    monkeypatch.setattr(naive, "conv2d", record_shape)
    *layers, library_step, naive_step = measure(convolutions.candidates(SMALL))
    assert [row.implementation for row in layers] == [*implementations] * 6
    assert {row.case for row in layers} >= {"2 -> 2, 16 px x 4", "4 -> 2, 8 px x 4", "2 -> 2, 4 px x 4"}
    assert [library_step.implementation, naive_step.implementation] == ["ours", "naive vmap"]
    assert all(row.peak_bytes > 0 and row.floor_seconds > 0 for row in (*layers, library_step, naive_step))
    assert {(3, 3, 2, 3), (1, 1, 3, 1)} <= set(kernel_shapes)  # the network of the naive step had this convolution


def test_training_steps_of_every_width_and_norm():
    rows = measure(steps.train_candidates(SMALL))
    assert [row.implementation for row in rows] == [
        f"d = {d}, {norm} norm" for norm in ("instance", "batch") for d in (2, 3)
    ]
    assert {row.case for row in rows} == {"16 px x 4"}
    assert all(row.unit == "images/s" for row in rows)


def test_dhs_steps_of_both_kinds():
    """Run the first two of the suite: uniform sampling, and DHS that selects half of the batch."""
    rows = measure(itertools.islice(steps.dhs_candidates(SMALL), 2))
    names = [(row.case, row.implementation) for row in rows]
    assert names == [("16 px x 4, instance norm", "UHS"), ("16 px x 4, instance norm", "DHS 2 of 4, alone")]
    assert rows[0].ratio == 1
    assert all(row.seconds > 0 and row.peak_bytes > 0 for row in rows)


def test_landscapes_are_timed_against_forward_passes():
    rows = measure(landscape.candidates(SMALL))
    names = ["forward passes", "scored: J alone", "scored: all that is reported"]
    networks = [*(f"d = {width}" for width in SMALL.hyper_widths), "unrolled"]
    assert [row.implementation for row in rows] == names * len(networks)
    assert [row.case for row in rows[::3]] == [
        f"16 px, {network}, {4 * len(jax.devices())} lambdas x 4" for network in networks
    ]


def test_an_unrolled_network_has_the_work_of_its_unets():
    """An iteration has the convolutions of a U-Net with two channels out, twice the head of a U-Net with one."""
    unrolled, unet = networks.unrolled_task(SMALL), networks.amortized_task(SMALL)
    flops = [floor.forward_work(task.setup.model, task.variables, task.example, terms=3).flops for task in (unrolled, unet)]
    head = floor.convolution_work(1, (16, 16, 1), (1, 1, 3, 1)).flops  # 3 channels: `helper.Net`
    assert flops[0] == 3 * (flops[1] + head)


def test_feeds_are_timed_alone_and_beside_a_step(tmp_path, monkeypatch):
    monkeypatch.setenv("HYPERRECON_JAX_CACHE", str(tmp_path))
    monkeypatch.setattr(data, "mni_folder", lambda **options: prepare.mni_folder(**{**options, "slices": 2}))
    rows = measure(c for c in feed.candidates(SMALL) if "processes" not in c.implementation)
    feeds = ["memory", "disk, threads"]
    assert [row.implementation for row in rows] == [*feeds, "on the device", *feeds]
    assert [row.case for row in rows] == ["16 px x 4, 48 batches"] * 2 + ["16 px x 4, a step"] * 3


def test_two_starts_in_fresh_processes(monkeypatch):
    code = "import helper, hyperrecon_jax.benchmarks.startup as s\nwith helper.small_networks(): s.time_parts()"
    monkeypatch.setattr(startup, "CHILD_CODE", code)
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests"))
    rows = benchmarks.run("startup", SMALL, rounds=1, say=lambda line: None)
    parts = ["import", "build and compile", "first step", "second step", "all"]
    assert [row.case for row in rows[::2]] == [f"{part}, 16 px x 4" for part in parts]
    assert [row.implementation for row in rows] == ["first start", "second start"] * len(parts)
    assert sum(row.seconds for row in rows[:-2:2]) == pytest.approx(rows[-2].seconds)
    assert all(row.ratio == 1 for row in rows[::2])
    assert all(row.seconds > 0 and row.peak_bytes > 0 for row in rows)


def test_the_command_describes_every_suite():
    text = (ROOT / "hyperrecon_jax" / "cli" / "bench.py").read_text()
    assert sorted(re.findall(r"^    (\w+) {2,}\w", text, re.MULTILINE)) == sorted(benchmarks.SUITES)
    *names, last = benchmarks.QUICK
    assert f"it times {', '.join(names)} and {last}," in text


def test_the_command(tmp_path):
    """At the smallest size; the floors are this machine's own."""
    options = [
        "--suite",
        "landscape",
        "--size",
        "16",
        "--batch",
        "4",
        "--width",
        "1",
        "--hyper_width",
        "1",
        "--rounds",
        "1",
    ]
    result = run_python("-m", "bin.bench", *options, "--json", tmp_path / "rows.json", cwd=ROOT, timeout=200)
    assert result.returncode == 0, result.stderr
    assert "GF/s in float32 matrix products" in result.stdout
    assert f"jax {jax.__version__}, " in result.stdout  # so that the output is a report that somebody else can read
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [row["implementation"] for row in rows] == [
        "forward passes",
        "scored: J alone",
        "scored: all that is reported",
    ] * 2
    assert all(row["suite"] == "landscape" and 0 < row["floor_fraction"] < 1 for row in rows)


@pytest.mark.parametrize(
    "args",
    [
        ["--suite", "nothing"],
        ["--batch", "2"],
        ["--rounds", "many"],
        ["extra"],
        ["--size", "128,20"],
        ["--hyper_width", "wide"],
        ["--compare", "no_such_file.json"],
    ],
)
def test_mistakes_on_the_command_line(args):
    result = run_python("-m", "bin.bench", *args, cwd=ROOT, timeout=100)
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("error: ")
