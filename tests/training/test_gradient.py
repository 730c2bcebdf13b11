"""The gradient of a batch, with UHS and DHS, at once and in microbatches, against a plain loop over samples."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helper import Net
from random_models import random_model

from hyperrecon_jax import losses
from hyperrecon_jax.losses.objective import Objective, Outcome, make_terms, term_values, weighted_loss
from hyperrecon_jax.models.model import generate_weights, only_norms, reconstruct, train_main, without_norms
from hyperrecon_jax.physics import masks
from hyperrecon_jax.physics.operators import csmri, denoising
from hyperrecon_jax.physics.problem import simulated
from hyperrecon_jax.physics.sample import Sample
from hyperrecon_jax.runtime.errors import InputError
from hyperrecon_jax.training import gradient as gradient_module
from hyperrecon_jax.training.dhs import dhs_score, select_lowest
from hyperrecon_jax.training.gradient import BatchPlan, is_separable, value_and_grad

OPERATOR = denoising()
PROBLEM = simulated(OPERATOR)
X = jnp.asarray(np.random.default_rng(0).random((3, 16, 16, 1)), jnp.float32)
Y = X + 0.1 * jnp.asarray(np.random.default_rng(1).standard_normal(X.shape), jnp.float32)
LAM = jnp.array([[0.0], [0.3], [1.0]])
OBJECTIVE = Objective(make_terms(("mae", "ssim"), PROBLEM), (20.0, 3.0))


def test_value_gradient_and_logs_equal_a_loop():
    model, variables = random_model(Net("instance"), hyper_width=3)

    def loss_by_hand(params):
        total = 0.0
        for lam, x, y in zip(LAM, X, Y, strict=True):
            x_hat = reconstruct(model, {"params": params, "batch_stats": {}}, lam, OPERATOR.to_net_input(y))
            total += (1 - lam[0]) * 20 * losses.mae(x_hat, x) + lam[0] * 3 * (1 - losses.ssim(x_hat, x))
        return total / len(X)

    jitted = jax.jit(lambda p: value_and_grad(model, OBJECTIVE, PROBLEM, p, {}, LAM, Sample(X), Y))
    (stats, logs, selected), grad = jitted(variables["params"])
    expected, expected_grad = jax.jit(jax.value_and_grad(loss_by_hand))(variables["params"])
    np.testing.assert_allclose(logs["loss"], expected, rtol=1e-5)
    assert stats == {}
    assert selected.tolist() == [1, 1, 1]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-4), grad, expected_grad)


# Amortized optimization and DHS, on k-space.

MRI = csmri(jnp.asarray(masks.make("poisson_disc", (16, 16), acceleration=4.0)))
MRI_PROBLEM = simulated(MRI)
BATCH = 6
RNG = np.random.default_rng(2)
IMAGES = jnp.asarray(RNG.random((BATCH, 16, 16, 1)) * np.linspace(0.2, 1, BATCH)[:, None, None, None], jnp.float32)
KSPACE = MRI.forward(IMAGES) + 0.05 * jnp.asarray(RNG.standard_normal((BATCH, 16, 16, 1)), jnp.complex64)
LAMS = jnp.asarray(RNG.random((BATCH, 3)), jnp.float32)
PRIORS = ("data_consistency", "weight_l1", "total_variation", "wavelet_l1")
AMORTIZED = Objective(make_terms(PRIORS, MRI_PROBLEM), (0.5, 1e-3, 0.02, 0.01))


@cache
def amortized(norm="instance", hyper_width=3):
    """A model for four terms. With `hyper_width` "film" only the norm is generated, and samples share the convolutions."""
    film = {"generated": only_norms} if hyper_width == "film" else {}
    width = 3 if film else hyper_width
    return random_model(Net(norm), num_terms=4, hyper_width=width, **film)


@cache
def compile_gradient(norm, hyper_width, **options):
    model, variables = amortized(norm, hyper_width)
    return jax.jit(
        lambda p, x: value_and_grad(
            model, AMORTIZED, MRI_PROBLEM, p, variables["batch_stats"], LAMS, Sample(x), KSPACE, **options
        )
    )


def compute_gradient(norm="instance", hyper_width=3, x=IMAGES, **options):
    return jax.device_get(compile_gradient(norm, hyper_width, **options)(amortized(norm, hyper_width)[1]["params"], x))


@cache
def loop_over_samples(hyper_width=3):
    """Loss, J and the gradient of the loss of each sample, by JAX alone."""
    model, variables = amortized("instance", hyper_width)
    sample_value = jax.jit(jax.value_and_grad(lambda p, lam, y: loss_by_hand(p, model, lam, y), has_aux=True))
    values, gradients = zip(
        *[jax.device_get(sample_value(variables["params"], lam, y)) for lam, y in zip(LAMS, KSPACE, strict=True)],
        strict=True,
    )
    return np.array(values), gradients


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def assert_close(a, b):
    """Equal to float32 precision, relative to the largest entry of the gradient: zeros in theory are round-off in both."""
    scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(b))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5 * scale), a, b)


def loss_by_hand(params, model, lam, y):
    """Eq. 10 continued to four terms, written out for one sample: the loss and J."""
    theta = generate_weights(model, params, lam)
    x_hat = reconstruct(model, {"params": params, "batch_stats": {}}, lam, MRI.to_net_input(y))
    cost = jnp.sum(jnp.abs(MRI.forward(x_hat) - y) ** 2)
    # not jnp.abs: its gradient at 0, where every bias starts, is 1
    weights = sum(jnp.sum(leaf * jnp.sign(leaf)) for leaf in jax.tree.leaves(without_norms(theta)))
    variation = jnp.sum(jnp.abs(x_hat[1:] - x_hat[:-1])) + jnp.sum(jnp.abs(x_hat[:, 1:] - x_hat[:, :-1]))
    a, b, c = lam
    priors = b * 1e-3 * weights + (1 - b) * (c * 0.02 * variation + (1 - c) * 0.01 * losses.wavelet_l1(x_hat))
    return a * 0.5 * cost + (1 - a) * priors, cost


def rank_by_hand(rank):
    """The samples, lowest score first."""
    energy = np.sum(np.abs(KSPACE) ** 2, (1, 2, 3)) if rank == "relative" else 1
    return np.argsort(loop_over_samples()[0][:, 1] / energy)


@pytest.mark.parametrize(("keep", "rank"), [pytest.param(4, "absolute", marks=pytest.mark.slow), (2, "relative")])
def test_dhs_is_the_mean_over_the_best_by_hand(keep, rank):
    """Algorithm 1, lines 8 and 9: a loop, NumPy's sort, and JAX's own gradient of the selected samples."""
    (_, logs, selected), grad = compute_gradient(keep=keep, rank=rank)
    values, gradients = loop_over_samples()
    rows = rank_by_hand(rank)[:keep]
    assert np.flatnonzero(selected).tolist() == sorted(rows.tolist())
    np.testing.assert_allclose([logs["loss"], logs["data_consistency"]], values[rows].mean(0), rtol=1e-4)
    assert_close(grad, jax.tree.map(lambda *leaves: sum(leaves) / keep, *[gradients[i] for i in rows]))


def test_the_two_ranks_differ_on_dark_and_bright_images():
    """Otherwise the two cases above would test the same."""
    rows = [set(rank_by_hand(rank)[:2].tolist()) for rank in ("absolute", "relative")]
    assert rows[0] != rows[1]


def test_pulling_back_the_best_is_the_masked_full_backward(monkeypatch):
    (_, logs, selected), grad = compute_gradient(keep=4)
    monkeypatch.setattr(gradient_module, "is_separable", lambda model, batch_stats: False)
    compile_gradient.cache_clear()
    (_, masked_logs, masked_selected), masked = compute_gradient(keep=4)
    compile_gradient.cache_clear()
    assert selected.tolist() == masked_selected.tolist()
    np.testing.assert_allclose(logs["loss"], masked_logs["loss"], rtol=1e-6)
    assert_close(grad, masked)


def test_which_models_are_separable():
    for norm, expected in (("instance", True), ("none", True), ("batch", False)):
        model, variables = amortized(norm)
        assert is_separable(model, variables["batch_stats"]) == expected
    assert not is_separable(amortized(hyper_width=None)[0], {})


@pytest.mark.parametrize("norm", ["instance", pytest.param("batch", marks=pytest.mark.slow)])
def test_uhs_is_dhs_that_keeps_all(norm):
    (_, logs, selected), grad = compute_gradient(norm, keep=BATCH)
    assert_equal((logs, selected, grad), (compute_gradient(norm)[0][1], np.ones(BATCH), compute_gradient(norm)[1]))
    if norm == "instance":
        values, gradients = loop_over_samples()
        np.testing.assert_allclose(logs["loss"], values[:, 0].mean(), rtol=1e-4)
        assert_close(grad, jax.tree.map(lambda *leaves: sum(leaves) / BATCH, *gradients))


@pytest.mark.slow
def test_with_batch_norm_the_others_shape_the_statistics_but_not_the_loss():
    """The best three of six: JAX's gradient of their summed loss, under the statistics of all six."""
    model, variables = amortized("batch")
    (stats, logs, selected), grad = compute_gradient("batch", keep=3)

    def outcomes(params):
        def sample_value(lam, y):
            theta = generate_weights(model, params, lam)
            x_hat, new = train_main(model, theta, variables["batch_stats"], MRI.to_net_input(y), batch_axes=("sample",))
            outcome = Outcome(x_hat, Sample(x_hat), y, theta)
            return weighted_loss(AMORTIZED, lam, term_values(AMORTIZED, outcome)), dhs_score(MRI_PROBLEM, x_hat, y), new

        return jax.vmap(sample_value, out_axes=(0, 0, None), axis_name="sample")(LAMS, KSPACE)

    values, costs, new_stats = jax.jit(outcomes)(variables["params"])
    rows = np.argsort(costs)[:3]
    assert np.flatnonzero(selected).tolist() == sorted(rows.tolist())
    np.testing.assert_allclose(logs["loss"], values[rows].mean(), rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), stats, new_stats)
    assert_close(grad, jax.jit(jax.grad(lambda p: outcomes(p)[0][rows].mean()))(variables["params"]))


@pytest.mark.parametrize(("norm", "keep"), [("instance", BATCH), ("instance", 4), ("batch", 3)])
def test_no_ground_truth_reaches_the_gradient(norm, keep):
    """The loss and the gradient are the same, bit for bit, whatever the reference image is."""
    (stats, logs, selected), grad = compute_gradient(norm, keep=keep)
    for garbage in (1e6, np.nan):
        (other_stats, other_logs, other_selected), other = compute_gradient(
            norm, x=jnp.full_like(IMAGES, garbage), keep=keep
        )
        assert_equal((stats, selected, grad), (other_stats, other_selected, other))
        assert_equal({**logs, "psnr": 0}, {**other_logs, "psnr": 0})


def test_a_network_without_lambda_ranks_its_images():
    (_, _, selected), grad = compute_gradient(hyper_width=None, keep=2)
    values, gradients = loop_over_samples(None)
    rows = np.argsort(values[:, 1])[:2]
    assert np.flatnonzero(selected).tolist() == sorted(rows.tolist())
    assert_close(grad, jax.tree.map(lambda a, b: (a + b) / 2, *[gradients[i] for i in rows]))


def test_lowest_come_in_order_and_of_equals_the_first():
    cost = jnp.array([3.0, 1.0, 2.0, 1.0, 1.0])
    assert select_lowest(cost, 2).tolist() == [1, 3]
    assert select_lowest(cost, 4).tolist() == [1, 3, 4, 2]
    assert select_lowest(jnp.array([3.0, jnp.nan, 1.0, -jnp.nan]), 2).tolist() == [1, 3]  # NaN is selected
    many = jnp.asarray(RNG.random(50))
    np.testing.assert_array_equal(select_lowest(many, 7), np.argsort(many)[:7])


def test_an_unknown_rank_is_named():
    with pytest.raises(InputError, match="one of absolute, relative, got 'best'"):
        dhs_score(MRI_PROBLEM, IMAGES[0], KSPACE[0], rank="best")


def test_relative_misfit_ignores_brightness_and_bears_black():
    x_hat, y = IMAGES[0], KSPACE[1]
    np.testing.assert_allclose(dhs_score(MRI_PROBLEM, 3 * x_hat, 3 * y), 9 * dhs_score(MRI_PROBLEM, x_hat, y), rtol=1e-5)
    relative = dhs_score(MRI_PROBLEM, x_hat, y, rank="relative")
    np.testing.assert_allclose(dhs_score(MRI_PROBLEM, 3 * x_hat, 3 * y, rank="relative"), relative, rtol=1e-5)
    np.testing.assert_allclose(dhs_score(MRI_PROBLEM, jnp.zeros_like(x_hat), y, rank="relative"), 1, rtol=1e-5)
    assert dhs_score(MRI_PROBLEM, jnp.zeros_like(x_hat), jnp.zeros_like(y), rank="relative") == 0


# Microbatches.


def assert_agree(a, b):
    """Two results of `value_and_grad` are equal to float32 precision."""
    (stats, logs, selected), grad = a
    (other_stats, other_logs, other_selected), other = b
    np.testing.assert_array_equal(selected, other_selected)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), (stats, logs), (other_stats, other_logs))
    assert_close(grad, other)


@pytest.mark.parametrize(
    ("keep", "microbatch"),
    [
        (4, 1),
        pytest.param(BATCH, 4, marks=pytest.mark.slow),
        pytest.param(BATCH, 1, marks=pytest.mark.slow),
        pytest.param(4, 4, marks=pytest.mark.slow),
    ],
)
def test_microbatches_change_nothing_where_samples_are_separable(keep, microbatch):
    """Also if the last microbatch is smaller than the others."""
    assert_agree(compute_gradient(keep=keep, plan=BatchPlan(microbatch=microbatch)), compute_gradient(keep=keep))


@pytest.mark.slow
def test_microbatches_have_batch_norm_statistics_of_their_own():
    """Two halves, each computed as a batch: the mean of their gradients, running statistics and logs."""
    in_halves = compute_gradient("batch", plan=BatchPlan(microbatch=BATCH // 2))
    model, variables = amortized("batch")
    halves = [
        jax.jit(
            lambda p, part=part: value_and_grad(
                model,
                AMORTIZED,
                MRI_PROBLEM,
                p,
                variables["batch_stats"],
                LAMS[part],
                Sample(IMAGES[part]),
                KSPACE[part],
            )
        )(variables["params"])
        for part in (slice(0, BATCH // 2), slice(BATCH // 2, BATCH))
    ]
    mean = partial(jax.tree.map, lambda a, b: (a + b) / 2)
    (stats, logs, _), grad = (mean(a, b) for a, b in zip(*jax.device_get(halves), strict=True))
    assert_agree(in_halves, ((stats, logs, np.ones(BATCH)), grad))
    assert not np.allclose(stats["norm"]["mean"], 0)


@pytest.mark.parametrize(
    ("keep", "microbatch"),
    [
        pytest.param(4, None, marks=pytest.mark.slow),
        pytest.param(BATCH, None, marks=pytest.mark.slow),
        pytest.param(BATCH, 4, marks=pytest.mark.slow),
        pytest.param(4, 1, marks=pytest.mark.slow),
    ],
)
def test_film_has_the_gradient_of_a_loop(keep, microbatch):
    """All samples share the convolutions, and each has its own norms; at once and in microbatches, UHS and DHS."""
    assert is_separable(amortized("instance", "film")[0], {})
    (_, logs, selected), grad = compute_gradient(hyper_width="film", keep=keep, plan=BatchPlan(microbatch=microbatch))
    values, gradients = loop_over_samples("film")
    rows = np.argsort(values[:, 1])[:keep]
    assert np.flatnonzero(selected).tolist() == sorted(rows.tolist())
    np.testing.assert_allclose(logs["loss"], values[rows, 0].mean(), rtol=1e-4)
    assert_close(grad, jax.tree.map(lambda *leaves: sum(leaves) / keep, *[gradients[i] for i in rows]))


@pytest.mark.slow
def test_a_network_without_lambda_in_microbatches():
    assert_agree(compute_gradient(hyper_width=None, plan=BatchPlan(microbatch=2)), compute_gradient(hyper_width=None))


@pytest.mark.parametrize(
    ("norm", "plan", "keep", "message"),
    [
        ("batch", BatchPlan(microbatch=4), BATCH, "`microbatch` must divide the 6 samples of a device"),
        ("batch", BatchPlan(microbatch=3), 3, "be all of them where DHS masks samples; got 3"),
        ("instance", BatchPlan(rank_over="host"), 3, "`rank_over` must be one of batch, device, got 'host'"),
        ("batch", BatchPlan(norm_over="all"), 3, "`norm_over` must be one of batch, device, got 'all'"),
    ],
)
def test_plans_that_cannot_be(norm, plan, keep, message):
    with pytest.raises(InputError, match=message):
        compute_gradient(norm, keep=keep, plan=plan)
