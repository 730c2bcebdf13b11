"""The lambda-weighted loss and its gradient against a plain loop over samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperrecon_jax import losses, metrics
from hyperrecon_jax.errors import InputError
from hyperrecon_jax.model import init, reconstruct
from hyperrecon_jax.objective import Objective, Outcome, make_terms, value_and_grad, weighted_loss
from hyperrecon_jax.operators import denoising
from hyperrecon_jax.unet import UNet

OPERATOR = denoising()
X = jnp.asarray(np.random.default_rng(0).random((3, 16, 16, 1)), jnp.float32)
Y = X + 0.1 * jnp.asarray(np.random.default_rng(1).standard_normal(X.shape), jnp.float32)
LAM = jnp.array([[0.0], [0.3], [1.0]])
OBJECTIVE = Objective(make_terms(("mae", "ssim"), OPERATOR), (20.0, 3.0))


def test_value_gradient_and_logs_equal_a_loop():
    model, variables = init(jax.random.key(0), UNet(width=2), jnp.zeros((16, 16, 2)), num_terms=2, hyper_width=3)

    def by_hand(params):
        total = 0.0
        for lam, x, y in zip(LAM, X, Y, strict=True):
            x_hat = reconstruct(model, {"params": params, "batch_stats": {}}, lam, OPERATOR.lift(y))
            total += (1 - lam[0]) * 20 * losses.mae(x_hat, x) + lam[0] * 3 * (1 - losses.ssim(x_hat, x))
        return total / len(X)

    ours = jax.jit(lambda p: value_and_grad(model, OBJECTIVE, OPERATOR, p, {}, LAM, X, Y))
    (loss, stats, logs), grad = ours(variables["params"])
    expected, expected_grad = jax.jit(jax.value_and_grad(by_hand))(variables["params"])
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(logs["loss"], expected, rtol=1e-5)
    assert stats == {}
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-4), grad, expected_grad)


def test_the_ends_are_the_single_terms():
    outcome = Outcome(Y[0], X[0], Y[0], {})
    np.testing.assert_allclose(weighted_loss(OBJECTIVE, jnp.array([0.0]), outcome), 20 * losses.mae(Y[0], X[0]), rtol=1e-6)
    np.testing.assert_allclose(
        weighted_loss(OBJECTIVE, jnp.array([1.0]), outcome), 3 * losses.ssim_loss(Y[0], X[0]), rtol=1e-6
    )


def test_every_term_has_its_function():
    theta = {"kernel": jnp.array([1.0, -2.0])}
    outcome = Outcome(Y[0], X[0], X[0], theta)
    expected = {
        "mae": losses.mae(Y[0], X[0]),
        "mse": losses.mse(Y[0], X[0]),
        "ssim": 1 - metrics.ssim(Y[0], X[0]),
        "ssim_zero_padded": 1 - losses.ssim(Y[0], X[0], zero_padded=True),
        "data_consistency": jnp.sum((Y[0] - X[0]) ** 2),
        "total_variation": losses.total_variation(Y[0]),
        "wavelet_l1": losses.wavelet_l1(Y[0]),
        "weight_l1": 3.0,
    }
    for name, value in expected.items():
        np.testing.assert_allclose(make_terms((name,), OPERATOR)[0](outcome), value, rtol=1e-5, err_msg=name)


def test_an_unknown_term_is_named():
    with pytest.raises(InputError, match="among mae, mse, ssim.*got 'l1'"):
        make_terms(("mae", "l1"), OPERATOR)
