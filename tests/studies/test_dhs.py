"""The plan of DHS against UHS: its figures against NumPy, and its mistakes. `test_study.py` carries it out."""

import numpy as np
import pytest

from hyperrecon_jax.runs.config import complete
from hyperrecon_jax.runtime.errors import InputError
from hyperrecon_jax.studies import dhs
from hyperrecon_jax.studies.study import run_study

SETTINGS = {
    "loss": {"terms": ("data_consistency", "weight_l1", "total_variation"), "scales": (1.0, 1e-3, 1e-2)},
    "model": {"width": 2},
    "train": {"steps": 2, "batch": 4},
    "dhs": {"keep": 2},
}


def test_the_best_quarter_is_the_mean_of_the_highest():
    landscapes = np.random.default_rng(0).random((3, 2, 6, 6))
    expected = [[sorted(landscape.ravel())[-9:] for landscape in row] for row in landscapes]
    np.testing.assert_allclose(dhs.best_quarter(landscapes), np.mean(expected, -1))


def test_the_summary_compares_seed_by_seed():
    """Constant landscapes: UHS 0, 1, 2 dB and DHS 1, 2, 6 dB for three seeds."""
    values = np.array([[0.0, 1.0, 2.0], [1.0, 2.0, 6.0]])
    (row,) = dhs.summarize(np.broadcast_to(values[None, :, :, None, None], (1, 2, 3, 4, 4)), [32])
    assert (row["d"], row["seeds"], row["uhs"], row["dhs"], row["gain"]) == (32, 3, 1, 3, 2)
    np.testing.assert_allclose([row["uhs_sd"], row["gain_sd"]], [1, np.std([1, 1, 4], ddof=1)])
    np.testing.assert_allclose([row["uhs_above_input"], row["dhs_above_input"]], [2 / 3, 1])
    assert "| 32 | 1.00 ± 1.00 | 3.00 ± 2.65 | +2.00 ± 1.73 | 1.00, 3.00 | 67%, 100% |" in dhs.table([row])


@pytest.mark.parametrize(
    ("changed", "options", "message"),
    [
        ({"dhs": {"keep": 4}}, {}, "config.dhs.keep below"),
        ({"dhs": {}}, {}, "config.dhs.keep below"),
        ({"loss": {"terms": ("data_consistency", "total_variation"), "scales": (1.0, 1.0)}}, {}, "three loss terms"),
        ({}, {"seeds": 0}, "The study needs at least 1 seed and at most 1000, got 0"),
        ({}, {"points": 1}, "The study needs at least 2 points and at most 1000, got 1"),
        ({}, {"rates": (1e-3, 1e-2)}, "a learning rate for each of its 1 widths, got 2"),
        ({}, {"rates": (0.0,)}, "learning_rate must be above 0"),
    ],
)
def test_what_cannot_be_studied(tmp_path, changed, options, message):
    config = complete({**SETTINGS, **changed})
    with pytest.raises(InputError, match=message):
        run_study(dhs.make_plan(config, **{"widths": [4], "seeds": 1, "points": 3, **options}), tmp_path / "study")
    assert list(tmp_path.iterdir()) == []
