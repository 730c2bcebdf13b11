"""Sweeps over lambda: in blocks, resumed after an interruption, and on a grid."""

import numpy as np
import pytest
from helper import Net
from random_models import random_model

from hyperrecon_jax.evaluation.scoring import Scorer
from hyperrecon_jax.evaluation.sweep import score_at_lambdas, score_on_grid
from hyperrecon_jax.losses.objective import Objective, make_terms
from tests.evaluation.test_scoring import KEY, LAMS, PROBLEM, SAMPLES, VARIABLES, make_scorer


def test_an_interrupted_sweep_resumes_at_its_block(tmp_path, monkeypatch):
    monkeypatch.setattr("hyperrecon_jax.evaluation.sweep.LAMBDAS_PER_DEVICE", 1)  # on each of two devices
    lams = np.linspace(0, 1, 5, dtype=np.float32)[:, None]
    scorer = make_scorer(names=("psnr", "rpsnr", "loss"), chunk=5)
    expected, expected_input = scorer.run(VARIABLES, SAMPLES, lams, KEY)
    file, calls = tmp_path / "unfinished.npz", []

    run = scorer.run

    def run_or_interrupt(*args):
        calls.append(args[2])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return run(*args)

    monkeypatch.setattr(scorer, "run", run_or_interrupt)
    with pytest.raises(KeyboardInterrupt):
        score_at_lambdas(scorer, VARIABLES, SAMPLES, lams, KEY, resume_file=file)
    assert file.exists()
    scores, input_scores = score_at_lambdas(scorer, VARIABLES, SAMPLES, lams, KEY, resume_file=file)
    np.testing.assert_array_equal(np.concatenate(calls)[:, 0], [0, 0.25, 0.5, 0.75, 0.5, 0.75, 1, 1])
    assert list(tmp_path.iterdir()) == []
    assert scores.keys() == expected.keys()
    for name in scores:
        np.testing.assert_allclose(scores[name], expected[name], rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(input_scores["psnr"], expected_input["psnr"], rtol=1e-5)


@pytest.mark.parametrize("left", ["of another call", "damaged", "empty"])
def test_a_file_of_another_call_is_ignored(tmp_path, left):
    scorer, file = make_scorer(names=("psnr",), chunk=5), tmp_path / "unfinished.npz"
    if left != "of another call":
        file.write_bytes(b"PK" if left == "damaged" else b"")
    else:
        np.savez(file, identity="other", score_psnr=np.zeros((1, 5)), input_psnr=np.zeros(5))
    scores, _ = score_at_lambdas(scorer, VARIABLES, SAMPLES, LAMS, KEY, resume_file=file)
    np.testing.assert_allclose(scores["psnr"], scorer.run(VARIABLES, SAMPLES, LAMS, KEY)[0]["psnr"], rtol=1e-5)


def test_a_landscape_has_an_axis_for_each_lambda():
    model, variables = random_model(Net("instance"), num_terms=3, hyper_width=3)
    objective = Objective(make_terms(("data_consistency", "weight_l1", "total_variation"), PROBLEM), (1.0, 2.0, 3.0))
    scorer = Scorer(model, objective, PROBLEM, names=("loss", "weight_l1"))
    axes = [np.array([0.0, 0.3, 1.0]), np.array([0.2, 0.9])]
    scores, _ = score_on_grid(scorer, variables, SAMPLES, axes, KEY)
    assert scores["loss"].shape == (3, 2, 5)
    point, _ = scorer.run(variables, SAMPLES, np.array([[0.3, 0.9]], np.float32), KEY)
    np.testing.assert_allclose(scores["loss"][1, 1], point["loss"][0], rtol=1e-5)
