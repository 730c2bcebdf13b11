"""Loss terms and their lambda-weighted sum, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helper import Net
from random_models import random_model

from hyperrecon_jax import losses
from hyperrecon_jax.losses import metrics
from hyperrecon_jax.losses.objective import Objective, Outcome, make_terms, term_values, weighted_loss
from hyperrecon_jax.models.model import reconstruct
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

    @jax.jit
    def expected(x_hat, x):
        return {
            "mae": losses.mae(x_hat, x),
            "mse": losses.mse(x_hat, x),
            "ssim": 1 - metrics.ssim(x_hat, x),
            "ssim_zero_padded": 1 - losses.ssim(x_hat, x, zero_padded=True),
            "edges": losses.edge_l1(x_hat, x),
            "texture": losses.texture_loss(x_hat, x),
            "data_consistency": jnp.sum((x_hat - x) ** 2),
            "total_variation": losses.total_variation(x_hat),
            "wavelet_l1": losses.wavelet_l1(x_hat),
            "weight_l1": jnp.float32(3.0),
        }

    @jax.jit
    def actual(x_hat, x):
        samples = Sample(x), Sample(x, jnp.zeros((16, 16), jnp.uint8))  # labels change nothing
        terms = make_terms(tuple(values), PROBLEM)
        return [{name: terms[name](Outcome(x_hat, sample, x, theta)) for name in terms} for sample in samples]

    values = expected(Y[0], X[0])
    for terms in actual(Y[0], X[0]):
        for name, value in values.items():
            np.testing.assert_allclose(terms[name], value, rtol=1e-5, err_msg=name)


def test_soft_dice_sees_the_labels_alone():
    """Of a network that makes logits, which have no PSNR."""
    model, variables = random_model(Net("instance", 5), num_terms=1)
    labels = np.random.default_rng(3).integers(0, 5, (3, 16, 16))
    samples = Sample(X, jnp.asarray(labels, jnp.uint8))
    objective = Objective(make_terms(("soft_dice",), PROBLEM), (1.0,))
    step = jax.jit(lambda p: value_and_grad(model, objective, PROBLEM, p, {}, jnp.zeros((3, 0)), samples, X))
    (_, logs, _), _ = step(variables["params"])
    assert logs.keys() == {"loss", "soft_dice"}
    reconstruct_one = jax.jit(lambda x: reconstruct(model, variables, jnp.zeros(0), OPERATOR.to_net_input(x)))
    logits = jnp.stack([reconstruct_one(x) for x in X])
    np.testing.assert_allclose(logs["loss"], jax.jit(losses.soft_dice)(logits, labels).mean(), rtol=1e-5)
    with pytest.raises(InputError, match="must have labels, got images alone"):
        objective.terms["soft_dice"](Outcome(logits[0], Sample(X[0]), X[0], {}))


def test_an_unknown_term_is_named():
    with pytest.raises(InputError, match="among mae, mse, ssim.*got 'l1'"):
        make_terms(("mae", "l1"), PROBLEM)
