"""Loss terms and their lambda-weighted sum, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helper import Net

from hyperrecon_jax import losses
from hyperrecon_jax.losses import metrics
from hyperrecon_jax.losses.objective import Objective, Outcome, make_terms, term_values, weighted_loss
from hyperrecon_jax.models.model import init, reconstruct
from hyperrecon_jax.physics.operators import denoising
from hyperrecon_jax.physics.problem import simulated
from hyperrecon_jax.physics.sample import Sample
from hyperrecon_jax.runtime.errors import InputError
from hyperrecon_jax.training.gradient import value_and_grad

OPERATOR = denoising()
PROBLEM = simulated(OPERATOR)
X = jnp.asarray(np.random.default_rng(0).random((3, 16, 16, 1)), jnp.float32)
Y = X + 0.1 * jnp.asarray(np.random.default_rng(1).standard_normal(X.shape), jnp.float32)
OBJECTIVE = Objective(make_terms(("mae", "ssim"), PROBLEM), (20.0, 3.0))


def test_the_ends_are_the_single_terms():
    values = term_values(OBJECTIVE, Outcome(Y[0], Sample(X[0]), Y[0], {}))
    np.testing.assert_allclose(weighted_loss(OBJECTIVE, jnp.array([0.0]), values), 20 * losses.mae(Y[0], X[0]), rtol=1e-6)
    np.testing.assert_allclose(
        weighted_loss(OBJECTIVE, jnp.array([1.0]), values), 3 * losses.ssim_loss(Y[0], X[0]), rtol=1e-6
    )


def test_every_term_has_its_function():
    theta = {"kernel": jnp.array([1.0, -2.0])}
    outcome = Outcome(Y[0], Sample(X[0]), X[0], theta)
    expected = {
        "mae": losses.mae(Y[0], X[0]),
        "mse": losses.mse(Y[0], X[0]),
        "ssim": 1 - metrics.ssim(Y[0], X[0]),
        "ssim_zero_padded": 1 - losses.ssim(Y[0], X[0], zero_padded=True),
        "edges": losses.edge_l1(Y[0], X[0]),
        "texture": losses.texture_loss(Y[0], X[0]),
        "data_consistency": jnp.sum((Y[0] - X[0]) ** 2),
        "total_variation": losses.total_variation(Y[0]),
        "wavelet_l1": losses.wavelet_l1(Y[0]),
        "weight_l1": 3.0,
    }
    for name, value in expected.items():
        term = make_terms((name,), PROBLEM)[name]
        np.testing.assert_allclose(term(outcome), value, rtol=1e-5, err_msg=name)
        with_labels = outcome._replace(sample=Sample(X[0], jnp.zeros((16, 16), jnp.uint8)))
        np.testing.assert_array_equal(term(with_labels), term(outcome), err_msg=name)


def test_soft_dice_sees_the_labels_alone():
    """Of a network that makes logits, which have no PSNR."""
    model, variables = init(jax.random.key(0), Net("instance", 5), jnp.zeros((16, 16, 2)), num_terms=1, hyper_width=None)
    labels = np.random.default_rng(3).integers(0, 5, (3, 16, 16))
    samples = Sample(X, jnp.asarray(labels, jnp.uint8))
    objective = Objective(make_terms(("soft_dice",), PROBLEM), (1.0,))
    step = jax.jit(lambda p: value_and_grad(model, objective, PROBLEM, p, {}, jnp.zeros((3, 0)), samples, X))
    (_, logs, _), _ = step(variables["params"])
    assert logs.keys() == {"loss", "soft_dice"}
    logits = jnp.stack([reconstruct(model, variables, jnp.zeros(0), OPERATOR.to_net_input(x)) for x in X])
    np.testing.assert_allclose(logs["loss"], losses.soft_dice(logits, labels).mean(), rtol=1e-5)
    with pytest.raises(InputError, match="must have labels, got images alone"):
        objective.terms["soft_dice"](Outcome(logits[0], Sample(X[0]), X[0], {}))


def test_an_unknown_term_is_named():
    with pytest.raises(InputError, match="among mae, mse, ssim.*got 'l1'"):
        make_terms(("mae", "l1"), PROBLEM)
