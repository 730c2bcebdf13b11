"""Scores over lambda and images against a loop, whatever the chunks."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helper import Net
from random_models import random_model

from hyperrecon_jax import losses
from hyperrecon_jax.data import in_memory
from hyperrecon_jax.evaluation import scores
from hyperrecon_jax.evaluation.scoring import (
    MAX_BATCH,
    Scorer,
    images_that_fit,
    make_net_inputs,
    reconstruct_at_lambdas,
)
from hyperrecon_jax.losses import metrics
from hyperrecon_jax.losses.metric_table import DICE, METRICS, Metric
from hyperrecon_jax.losses.objective import Objective, Outcome, make_terms, term_values, weighted_loss
from hyperrecon_jax.models.model import generate_weights, reconstruct, without_norms
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
MODEL, VARIABLES = random_model(Net("instance"), hyper_width=3)


def make_scorer(**options):
    return Scorer(MODEL, OBJECTIVE, PROBLEM, **options)


def segment(x_hat):
    return jnp.digitize(x_hat[..., 0], jnp.array([0.5, 0.8]))


def dice(labels_hat, labels):
    """The scores of the three regions that `segment` knows."""
    pairs = [(np.asarray(labels_hat) == c, labels == c) for c in range(3)]
    return [2 * np.sum(a & b) / (np.sum(a) + np.sum(b)) for a, b in pairs]


def test_scores_equal_a_loop_and_do_not_depend_on_the_chunk():
    labels = np.digitize(IMAGES[..., 0], [0.5, 0.8])
    samples = in_memory(Sample(IMAGES, labels.astype(np.uint8)))
    names = tuple(METRICS)
    values, input_values = make_scorer(names=names, chunk=2, segment=segment).run(VARIABLES, samples, LAMS, KEY)
    few = ("psnr", "data_consistency", "dice", "loss")
    in_one_batch, _ = make_scorer(names=few, chunk=8, segment=segment).run(VARIABLES, samples, LAMS, KEY)
    assert tuple(values) == names
    assert set(input_values) == {*METRICS} - {"rpsnr", "weight_l1", "loss"}

    @jax.jit
    def score_one(lam, j, x):
        """The zero-filled input, the reconstruction, and the scores of both but for Dice's."""
        y = awgn(jax.random.fold_in(KEY, j), x, sigma=0.1)
        x_input = magnitude(OPERATOR.to_net_input(y))
        x_hat = reconstruct(MODEL, VARIABLES, lam, OPERATOR.to_net_input(y))
        theta = generate_weights(MODEL, VARIABLES["params"], lam)
        expected_input = {"psnr": metrics.psnr(x_input, x), "total_variation": losses.total_variation(x_input)}
        scores = {
            "psnr": metrics.psnr(x_hat, x),
            "ssim": metrics.ssim(x_hat, x),
            "mae": losses.mae(x_hat, x),
            "mse": jnp.mean(jnp.square(x_hat - x)),
            "hfen": metrics.hfen(x_hat, x),
            "edges": losses.edge_l1(x_hat, x),
            "texture": losses.texture_loss(x_hat, x),
            "rpsnr": metrics.psnr(x_hat, x) - expected_input["psnr"],
            "data_consistency": jnp.sum(jnp.square(x_hat - y)),
            "total_variation": losses.total_variation(x_hat),
            "wavelet_l1": losses.wavelet_l1(x_hat),
            "weight_l1": losses.weight_l1(without_norms(theta)),
            "loss": weighted_loss(OBJECTIVE, lam, term_values(OBJECTIVE, Outcome(x_hat, Sample(x), y, theta))),
        }
        return x_input, x_hat, expected_input, scores

    for j, x in enumerate(IMAGES):
        for i, lam in enumerate(LAMS):
            x_input, x_hat, expected_input, expected = score_one(lam, j, x)
            expected_input["dice"] = np.mean(dice(segment(x_input), labels[j]))
            for name, value in expected_input.items():
                np.testing.assert_allclose(input_values[name][j], value, rtol=1e-4, err_msg=name)
            regions = dice(segment(x_hat), labels[j])
            expected |= dict(zip(DICE, [np.mean(regions), *regions, np.nan, np.nan], strict=True))
            assert values.keys() == expected.keys()
            for name, value in expected.items():
                np.testing.assert_allclose(values[name][i, j], value, rtol=1e-4, atol=1e-4, err_msg=name)
                if name in few:
                    np.testing.assert_allclose(in_one_batch[name][i, j], value, rtol=1e-4, atol=1e-4, err_msg=name)


def test_dice_of_a_network_that_segments():
    """Of each region, NaN where it is in neither map; of all that are in one; none of the input, which is an image."""
    model, variables = random_model(Net("instance", 5), num_terms=1)
    objective = Objective(make_terms(("soft_dice",), PROBLEM), (1.0,))

    def three(logits):
        return jnp.argmax(logits[..., :3], -1)

    scorer = Scorer(model, objective, simulated(OPERATOR), names=(*DICE, "loss"), segment=three)
    labels = np.random.default_rng(1).integers(0, 3, (5, 16, 16))
    samples = in_memory(Sample(IMAGES, labels.astype(np.uint8)))
    values, input_values = scorer.run(variables, samples, np.zeros((1, 0), np.float32), KEY)
    assert input_values == {}
    reconstruct_one = jax.jit(lambda x: reconstruct(model, variables, jnp.zeros(0), OPERATOR.to_net_input(x)))
    for j, x in enumerate(IMAGES):
        logits = reconstruct_one(x)
        expected = dice(three(logits), labels[j])
        np.testing.assert_allclose([values[name][0, j] for name in DICE[1:]], [*expected, np.nan, np.nan], rtol=1e-5)
        np.testing.assert_allclose(values["dice"][0, j], np.mean(expected), rtol=1e-5)
        np.testing.assert_allclose(values["loss"][0, j], losses.soft_dice(logits, labels[j]), rtol=1e-5)


def test_as_many_images_as_memory_holds(monkeypatch):
    """An upper bound of one image's share: the network's activations, counted by hand to a factor."""
    args = MODEL, PROBLEM, VARIABLES, SAMPLES.example, LAMS[0]
    assert images_that_fit(*args) == MAX_BATCH  # a small network on any machine
    activations = 4 * 16 * 16 * 3  # bytes of the one layer of three channels
    monkeypatch.setattr("hyperrecon_jax.runtime.memory.free_bytes", lambda: 4 * 100 * activations)
    assert 5 < images_that_fit(*args) < MAX_BATCH
    monkeypatch.setattr("hyperrecon_jax.runtime.memory.free_bytes", lambda: 0)
    assert images_that_fit(*args) == 1


def test_what_cannot_be_scored():
    with pytest.raises(InputError, match="must be one of psnr.*got 'dice2'"):
        make_scorer(names=("dice2",))
    with pytest.raises(InputError, match="`segment` must be a function where 'dice_csf' is among the metrics, got None"):
        make_scorer(names=("dice_csf",))
    with pytest.raises(InputError, match="must have labels, got images alone"):
        make_scorer(names=("dice",), segment=segment).run(VARIABLES, SAMPLES, LAMS, KEY)
    for samples, lams in ((in_memory(Sample(IMAGES[:0])), LAMS), (SAMPLES, LAMS[:0])):
        with pytest.raises(InputError, match="images and lambdas to score"):
            make_scorer().run(VARIABLES, samples, lams, KEY)


def test_reconstructions_have_lambda_first():
    net_input = make_net_inputs(PROBLEM, KEY, Sample(IMAGES[:3]), np.arange(3))
    x_hat = reconstruct_at_lambdas(MODEL, VARIABLES, net_input, LAMS)
    assert x_hat.shape == (2, 3, 16, 16, 1)
    y = awgn(jax.random.fold_in(KEY, 2), IMAGES[2], sigma=0.1)
    expected = jax.jit(partial(reconstruct, MODEL))(VARIABLES, LAMS[1], OPERATOR.to_net_input(y))
    np.testing.assert_allclose(x_hat[1, 2], expected, rtol=1e-4, atol=1e-5)


def test_a_new_metric_is_one_row_of_the_table(monkeypatch):
    def worst_pixel(x_hat, x):
        return jnp.abs(x_hat - x).max((-3, -2, -1))

    row = Metric("worst", "largest absolute error", higher_is_better=False, needs_reference=True, compare=worst_pixel)
    monkeypatch.setitem(METRICS, "worst", row)
    values, input_values = make_scorer(names=("worst", "mae")).run(VARIABLES, SAMPLES, LAMS, KEY)
    assert np.all(values["worst"] > values["mae"])
    axes, index = [np.array([0.0, 0.6], np.float32)], np.arange(5)
    ds = scores.make_dataset(axes, values, input_values=input_values, subjects=index, index=index, attrs={})
    lowest = values["worst"].mean(1).argmin()
    assert scores.find_best(scores.summarize(ds), "worst")[0] == (float(ds["lam_1"][lowest]),)
