"""The table of metrics: its facts are consistent, and its means and differences treat infinite and missing values."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperrecon_jax.losses import metric_table, metrics
from hyperrecon_jax.losses.metric_table import DICE, FULL_REFERENCE, METRICS, NO_REFERENCE
from hyperrecon_jax.runtime.errors import InputError


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_has_its_facts_and_one_function(name):
    metric = METRICS[name]
    assert metric.label
    assert metric.long_name
    assert (metric.compare is None) != (metric.compute is None)
    assert metric.compare is None or metric.needs_reference


def test_groups_of_metrics():
    assert {name for name, metric in METRICS.items() if metric.higher_is_better} == {"psnr", "rpsnr", "ssim", *DICE}
    assert set(FULL_REFERENCE) == {"psnr", "ssim", "mae", "mse", "hfen", "edges", "texture"}
    assert set(NO_REFERENCE) == {"data_consistency", "total_variation", "wavelet_l1", "weight_l1"}
    assert DICE == ("dice", "dice_background", "dice_gray_matter", "dice_white_matter", "dice_csf", "dice_cortex")


def test_an_unknown_metric_is_named():
    with pytest.raises(InputError, match="A metric must be one of psnr, .*; got 'sharpness'"):
        metric_table.check_name("sharpness")


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("psnr", [30.0, 32.0], 31.0),
        ("psnr", [30.0, np.inf], 30.0),
        ("psnr", [np.inf, np.inf], 100.0),
        ("psnr", [30.0, np.nan], np.nan),
        ("psnr", [30.0, -np.inf], -np.inf),
        ("dice", [0.5, np.nan], 0.5),
        ("dice_csf", [np.nan, np.nan], np.nan),
        ("mae", [0.5, np.inf], np.inf),
    ],
)
def test_average(name, values, expected):
    np.testing.assert_equal(metric_table.average(name, np.array(values)), expected)


def test_values_are_bounded_before_they_are_subtracted():
    np.testing.assert_array_equal(metric_table.bound("psnr", np.array([30.0, np.inf])), [30, 100])
    np.testing.assert_array_equal(metric_table.bound("mae", np.array([0.5, 200.0])), [0.5, 200])


@pytest.mark.parametrize("name", FULL_REFERENCE)
def test_what_is_maximized_rises_with_quality_and_has_a_finite_gradient(name):
    x = jnp.asarray(np.random.default_rng(0).random((16, 16, 1), np.float32))
    maximized = jax.jit(metric_table.function_to_maximize(name))
    expected = METRICS[name].sign * FULL_REFERENCE[name](0.9 * x, x)
    np.testing.assert_allclose(maximized(0.9 * x, x), expected, rtol=1e-6)
    assert maximized(x, x) > maximized(0.9 * x, x)
    if name != "hfen":  # its norm has a kink at equal images
        slope = jax.jit(jax.grad(maximized))
        for x_hat in (x, 0.9 * x):
            assert np.isfinite(slope(x_hat, x)).all()


def test_bounded_psnr_is_psnr_up_to_100_db():
    x = np.random.default_rng(0).random((2, 16, 16, 1), np.float32)
    np.testing.assert_allclose(metrics.bounded_psnr(0.9 * x, x), metrics.psnr(0.9 * x, x), rtol=1e-6)
    np.testing.assert_allclose(metrics.bounded_psnr(x, x), 100)


def test_the_facts_of_the_page_are_json():
    facts = metric_table.page_facts(("psnr", "mae", "data_consistency"))
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts
    assert (facts["psnr"]["label"], facts["psnr"]["unit"], facts["psnr"]["digits"]) == ("PSNR", "dB", 2)
    assert [facts[name]["higher_is_better"] for name in facts] == [True, False, None]
