"""What the settings become: the lambdas that are reported, and scales that come later."""

import jax
import numpy as np
import pytest

from hyperrecon_jax.models.hyperparams import coefficients
from hyperrecon_jax.runs.config import complete
from hyperrecon_jax.runs.experiment import build, reported_lams, with_scales
from hyperrecon_jax.runs.task import make_task_scorer
from hyperrecon_jax.runtime.errors import InputError

TERMS = ("data_consistency", "weight_l1", "total_variation", "wavelet_l1")


def settings(count, **groups):
    loss = {"terms": TERMS[:count], "scales": (1.0,) * count, "ground_truth": False}
    return complete({"loss": loss, **groups})


@pytest.mark.parametrize(("count", "rows"), [(1, 1), (2, 5), (3, 5), (4, 5)])
def test_reported_lambdas_fit_any_number_of_terms(count, rows):
    lams = reported_lams(settings(count))
    assert lams.shape == (rows, count - 1)
    weights = np.asarray(coefficients(lams))
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-6)
    assert len(np.unique(weights, axis=0)) == rows
    if count > 2:
        assert (weights[:, 0] > 0).all()
        assert weights[-1, 0] == 1


def test_a_constant_lambda_is_the_one_reported():
    lams = reported_lams(settings(3, lam={"sampling": "constant", "value": (0.25, 0.5)}))
    np.testing.assert_array_equal(lams, [[0.25, 0.5]])


@pytest.mark.parametrize("name", ["width", "hyper_width", "rank"])
def test_a_network_that_no_machine_can_hold_is_refused_before_any_work(name):
    groups = {"data": {"size": 16, "slices": 2}, "task": {"acceleration": 2.0}}
    config = settings(2, model={"width": 2, "hyper_width": 3, name: 10**9}, **groups)
    with pytest.raises(
        InputError, match=rf"config\.model\.{name} 1000000000.* parameters, whose training needs .* of memory"
    ):
        build(config)


@pytest.mark.slow
def test_scales_may_come_later(tmp_path):
    images = np.random.default_rng(0).random((4, 16, 16), np.float32)
    np.save(tmp_path / "a.npy", images)
    data = {"source": "arrays", **{split: str(tmp_path / "a.npy") for split in ("train", "val", "test")}}
    network = {"width": 2, "hyper_width": 3}
    experiment = build({**settings(2, data=data, model=network, train={"batch": 2}).to_dict()})
    doubled = with_scales(experiment, (2.0, 4.0))
    assert doubled.setup.objective.scales == (2.0, 4.0)
    assert experiment.setup.objective.scales == (1.0, 1.0)
    variables = {"params": experiment.state.params, "batch_stats": experiment.state.batch_stats}
    samples, ends, key = experiment.dataset.test.samples, np.array([[0.0], [1.0]], np.float32), jax.random.key(0)
    losses, doubled_losses = (
        make_task_scorer(config, setup.model, setup.problem, setup.objective).run(variables, samples, ends, key)[0]["loss"]
        for config, setup in ((experiment.config, experiment.setup), (doubled.config, doubled.setup))
    )
    np.testing.assert_allclose(doubled_losses, losses * np.array([[2.0], [4.0]]), rtol=1e-5)
