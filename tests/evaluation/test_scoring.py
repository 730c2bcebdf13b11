"""Scores over lambda and images against a loop, whatever the chunks."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helper import Net

from hyperrecon_jax import losses
from hyperrecon_jax.data import in_memory
from hyperrecon_jax.evaluation.scoring import (
    AT_ONCE,
    DICE,
    METRICS,
    curve,
    images_at_once,
    inputs,
    landscape,
    make_scorer,
    reconstructions,
)
from hyperrecon_jax.losses import metrics
from hyperrecon_jax.losses.objective import Objective, Outcome, make_terms, term_values, weighted_loss
from hyperrecon_jax.models.model import generate_weights, init, reconstruct, without_norms
from hyperrecon_jax.physics.operators import awgn, denoising, magnitude
from hyperrecon_jax.physics.problem import simulated
from hyperrecon_jax.physics.sample import Sample
from hyperrecon_jax.runtime.errors import InputError

OPERATOR = denoising()
PROBLEM = simulated(OPERATOR, partial(awgn, sigma=0.1))
IMAGES = np.random.default_rng(0).random((5, 16, 16, 1), np.float32)
SAMPLES = in_memory(Sample(IMAGES))
LAMS = np.array([[0.0], [0.6]], np.float32)
KEY = jax.random.key(5)
OBJECTIVE = Objective(make_terms(("mae", "mse"), PROBLEM), (2.0, 3.0))
MODEL, VARIABLES = init(jax.random.key(0), Net("instance"), jnp.zeros((16, 16, 2)), num_terms=2, hyper_width=3)


def score(**options):
    return make_scorer(MODEL, OBJECTIVE, PROBLEM, **options)


def segment(x_hat):
    return jnp.digitize(x_hat[..., 0], jnp.array([0.5, 0.8]))


def dice(found, labels):
    """Of the three regions that there are."""
    pairs = [(np.asarray(found) == c, labels == c) for c in range(3)]
    return [2 * np.sum(a & b) / (np.sum(a) + np.sum(b)) for a, b in pairs]


def test_scores_equal_a_loop_and_do_not_depend_on_the_chunk():
    labels = np.digitize(IMAGES[..., 0], [0.5, 0.8])
    samples = in_memory(Sample(IMAGES, labels.astype(np.uint8)))
    scores, of_input = score(names=METRICS, chunk=2, segment=segment).run(VARIABLES, samples, LAMS, KEY)
    whole, _ = score(names=METRICS, chunk=8, segment=segment).run(VARIABLES, samples, LAMS, KEY)
    assert tuple(scores) == METRICS
    assert set(of_input) == {*METRICS} - {"rpsnr", "weight_l1", "loss"}
    one = jax.jit(lambda lam, y: reconstruct(MODEL, VARIABLES, lam, OPERATOR.to_net_input(y)))
    for j, x in enumerate(IMAGES):
        y = awgn(jax.random.fold_in(KEY, j), jnp.asarray(x), sigma=0.1)
        before = magnitude(OPERATOR.to_net_input(y))
        np.testing.assert_allclose(of_input["psnr"][j], metrics.psnr(before, x), rtol=1e-4)
        np.testing.assert_allclose(of_input["total_variation"][j], losses.total_variation(before), rtol=1e-4)
        np.testing.assert_allclose(of_input["dice"][j], np.mean(dice(segment(before), labels[j])), rtol=1e-5)
        for i, lam in enumerate(LAMS):
            x_hat = one(lam, y)
            theta = generate_weights(MODEL, VARIABLES["params"], lam)
            expected = {
                "psnr": metrics.psnr(x_hat, x),
                "ssim": metrics.ssim(x_hat, x),
                "mae": losses.mae(x_hat, x),
                "mse": np.mean(np.square(x_hat - x)),
                "hfen": metrics.hfen(x_hat, x),
                "rpsnr": metrics.psnr(x_hat, x) - of_input["psnr"][j],
                "data_consistency": np.sum(np.square(x_hat - y)),
                "total_variation": losses.total_variation(x_hat),
                "wavelet_l1": losses.wavelet_l1(x_hat),
                "weight_l1": losses.weight_l1(without_norms(theta)),
                "dice": np.mean(dice(segment(x_hat), labels[j])),
                "loss": weighted_loss(OBJECTIVE, lam, term_values(OBJECTIVE, Outcome(x_hat, Sample(x), y, theta))),
            }
            assert scores.keys() == expected.keys()
            for name, value in expected.items():
                np.testing.assert_allclose(scores[name][i, j], value, rtol=1e-4, atol=1e-4, err_msg=name)
                np.testing.assert_allclose(whole[name][i, j], value, rtol=1e-4, atol=1e-4, err_msg=name)


def test_dice_of_a_network_that_segments():
    """Of each region, NaN where it is in neither map; of all that are in one; none of the input, which is an image."""
    model, variables = init(jax.random.key(2), Net("instance", 5), jnp.zeros((16, 16, 2)), num_terms=1, hyper_width=None)
    objective = Objective(make_terms(("soft_dice",), PROBLEM), (1.0,))

    def three(logits):
        return jnp.argmax(logits[..., :3], -1)

    scorer = make_scorer(model, objective, simulated(OPERATOR), names=(*DICE, "loss"), segment=three)
    labels = np.random.default_rng(1).integers(0, 3, (5, 16, 16))
    samples = in_memory(Sample(IMAGES, labels.astype(np.uint8)))
    scores, of_input = scorer.run(variables, samples, np.zeros((1, 0), np.float32), KEY)
    assert of_input == {}
    for j, x in enumerate(IMAGES):
        logits = reconstruct(model, variables, jnp.zeros(0), OPERATOR.to_net_input(jnp.asarray(x)))
        expected = dice(three(logits), labels[j])
        np.testing.assert_allclose([scores[name][0, j] for name in DICE[1:]], [*expected, np.nan, np.nan], rtol=1e-5)
        np.testing.assert_allclose(scores["dice"][0, j], np.mean(expected), rtol=1e-5)
        np.testing.assert_allclose(scores["loss"][0, j], losses.soft_dice(logits, labels[j]), rtol=1e-5)


def test_a_chunk_is_what_memory_has_room_for(monkeypatch):
    """An upper bound of one image's share: the network's activations, counted by hand to a factor."""
    args = MODEL, PROBLEM, VARIABLES, SAMPLES.example, LAMS[0]
    assert images_at_once(*args) == AT_ONCE  # a small network on any machine
    activations = 4 * 16 * 16 * 3  # bytes of the one layer of three channels
    monkeypatch.setattr("hyperrecon_jax.runtime.memory.free_bytes", lambda: 4 * 100 * activations)
    assert 5 < images_at_once(*args) < AT_ONCE
    monkeypatch.setattr("hyperrecon_jax.runtime.memory.free_bytes", lambda: 0)
    assert images_at_once(*args) == 1


def test_a_curve_is_scored_in_blocks_and_goes_on_where_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr("hyperrecon_jax.evaluation.scoring.BLOCK", 1)  # on each of two devices
    lams = np.linspace(0, 1, 5, dtype=np.float32)[:, None]
    scorer = score(names=("psnr", "rpsnr", "loss"), chunk=5)
    expected, expected_input = scorer.run(VARIABLES, SAMPLES, lams, KEY)
    kept, calls = tmp_path / "kept.npz", []

    def interrupted(*args):
        calls.append(args[2])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return scorer.run(*args)

    counted = scorer._replace(run=interrupted)
    with pytest.raises(KeyboardInterrupt):
        curve(counted, VARIABLES, SAMPLES, lams, KEY, kept=kept)
    assert kept.exists()
    scores, of_input = curve(counted, VARIABLES, SAMPLES, lams, KEY, kept=kept)
    np.testing.assert_array_equal(np.concatenate(calls)[:, 0], [0, 0.25, 0.5, 0.75, 0.5, 0.75, 1, 1])
    assert list(tmp_path.iterdir()) == []
    assert scores.keys() == expected.keys()
    for name in scores:
        np.testing.assert_allclose(scores[name], expected[name], rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(of_input["psnr"], expected_input["psnr"], rtol=1e-5)


@pytest.mark.parametrize("left", ["of another call", "damaged"])
def test_what_another_call_left_is_not_taken(tmp_path, left):
    scorer, kept = score(names=("psnr",), chunk=5), tmp_path / "kept.npz"
    if left == "damaged":
        kept.write_bytes(b"PK")
    else:
        np.savez(kept, identity="other", score_psnr=np.zeros((1, 5)), input_psnr=np.zeros(5))
    scores, _ = curve(scorer, VARIABLES, SAMPLES, LAMS, KEY, kept=kept)
    np.testing.assert_allclose(scores["psnr"], scorer.run(VARIABLES, SAMPLES, LAMS, KEY)[0]["psnr"], rtol=1e-5)


def test_a_landscape_has_an_axis_for_each_lambda():
    model, variables = init(jax.random.key(1), Net("instance"), jnp.zeros((16, 16, 2)), num_terms=3, hyper_width=3)
    objective = Objective(make_terms(("data_consistency", "weight_l1", "total_variation"), PROBLEM), (1.0, 2.0, 3.0))
    scorer = make_scorer(model, objective, PROBLEM, names=("loss", "weight_l1"))
    axes = [np.array([0.0, 0.3, 1.0]), np.array([0.2, 0.9])]
    scores, _ = landscape(scorer, variables, SAMPLES, axes, KEY)
    assert scores["loss"].shape == (3, 2, 5)
    one, _ = scorer.run(variables, SAMPLES, np.array([[0.3, 0.9]], np.float32), KEY)
    np.testing.assert_allclose(scores["loss"][1, 1], one["loss"][0], rtol=1e-5)


def test_what_cannot_be_scored():
    with pytest.raises(InputError, match="must be one of psnr.*got 'dice2'"):
        score(names=("dice2",))
    with pytest.raises(InputError, match="`segment` must be a function where 'dice_csf' is among the metrics, got None"):
        score(names=("dice_csf",))
    with pytest.raises(InputError, match="must have labels, got images alone"):
        score(names=("dice",), segment=segment).run(VARIABLES, SAMPLES, LAMS, KEY)
    for samples, lams in ((in_memory(Sample(IMAGES[:0])), LAMS), (SAMPLES, LAMS[:0])):
        with pytest.raises(InputError, match="images and lambdas to score"):
            score().run(VARIABLES, samples, lams, KEY)


def test_reconstructions_have_lambda_first():
    net_input = inputs(PROBLEM, KEY, Sample(IMAGES[:3]), np.arange(3))
    x_hat = reconstructions(MODEL, VARIABLES, net_input, LAMS)
    assert x_hat.shape == (2, 3, 16, 16, 1)
    expected = reconstruct(
        MODEL, VARIABLES, LAMS[1], OPERATOR.to_net_input(awgn(jax.random.fold_in(KEY, 2), IMAGES[2], sigma=0.1))
    )
    np.testing.assert_allclose(x_hat[1, 2], expected, rtol=1e-4, atol=1e-5)
