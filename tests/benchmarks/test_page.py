"""The benchmark of the explorer's page drives both pages in a browser. No time is tested."""

import numpy as np
import pytest

from hyperrecon_jax import benchmarks
from hyperrecon_jax.benchmarks import page
from hyperrecon_jax.benchmarks.timing import percentile_interval
from hyperrecon_jax.runtime.errors import InputError
from tests.explorer.chromium import needs_chromium

SMALL = benchmarks.Scale(size=32, batch=4, width=2, hyper_widths=(2,))


@pytest.mark.slow
@needs_chromium
def test_moves_of_lambda_are_timed_to_the_painted_picture(monkeypatch):
    monkeypatch.setattr(page, "MOVES", 4)
    rows = benchmarks.run("page", SMALL, rounds=1, say=lambda line: None)
    assert [(row.case, row.implementation) for row in rows] == [
        (f"{picture}, {words}, 32 x 32", name)
        for picture in ("first picture", "exact picture")
        for words in ("median", "95th percentile")
        for name in ("served page", "page from a file")
    ]
    seconds = {(row.case.partition(" p")[0], row.case.split(", ")[1], row.implementation): row.seconds for row in rows}
    for name in ("served page", "page from a file"):
        for picture in ("first", "exact"):
            assert 0 < seconds[picture, "median", name] <= seconds[picture, "95th percentile", name]
        assert seconds["first", "median", name] <= seconds["exact", "median", name]
    assert [row.ratio for row in rows[::2]] == [1] * 4


@pytest.mark.parametrize("percentile", [50, 95])
def test_the_interval_holds_the_percentile_in_nine_of_ten_samples(percentile):
    """Of a distribution whose percentiles are known: uniform in [0, 1]."""
    rng = np.random.default_rng(0)
    intervals = np.array([percentile_interval(rng.random(100), percentile) for _ in range(1000)])
    share = np.mean((intervals[:, 0] <= percentile / 100) & (percentile / 100 <= intervals[:, 1]))
    assert 0.9 <= share < 0.98


@pytest.mark.slow
def test_without_a_browser_there_is_a_sentence(monkeypatch):
    pytest.importorskip("playwright.sync_api")
    monkeypatch.setattr(page, "BROWSERS", ("no-such-browser",))
    with pytest.raises(InputError, match="--suite page needs a browser that is installed: no-such-browser"):
        benchmarks.run("page", SMALL, rounds=1, say=lambda line: None)
