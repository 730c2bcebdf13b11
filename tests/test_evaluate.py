"""Scores over lambda and images against a loop, whatever the chunks."""

import jax
import jax.numpy as jnp
import numpy as np

from hyperrecon_jax import losses, metrics
from hyperrecon_jax.evaluate import make_score, measure, reconstructions
from hyperrecon_jax.model import init, reconstruct
from hyperrecon_jax.objective import Objective, Outcome, make_terms, term_values, weighted_loss
from hyperrecon_jax.operators import awgn, denoising, magnitude
from hyperrecon_jax.unet import UNet

OPERATOR = denoising()
IMAGES = np.random.default_rng(0).random((5, 16, 16, 1), np.float32)
LAMS = np.array([[0.0], [0.6]], np.float32)
KEY = jax.random.key(5)
OBJECTIVE = Objective(make_terms(("mae", "mse"), OPERATOR), (2.0, 3.0))
MODEL, VARIABLES = init(jax.random.key(0), UNet(width=2), jnp.zeros((16, 16, 2)), num_terms=2, hyper_width=3)


def observe(key, x):
    return awgn(key, x, sigma=0.1)


def test_scores_equal_a_loop_and_do_not_depend_on_the_chunk():
    scores, of_input = make_score(MODEL, OBJECTIVE, OPERATOR, observe, chunk=2)(VARIABLES, IMAGES, LAMS, KEY)
    whole, _ = make_score(MODEL, OBJECTIVE, OPERATOR, observe, chunk=8)(VARIABLES, IMAGES, LAMS, KEY)
    one = jax.jit(lambda lam, y: reconstruct(MODEL, VARIABLES, lam, OPERATOR.lift(y)))
    for j, x in enumerate(IMAGES):
        y = observe(jax.random.fold_in(KEY, j), x)
        np.testing.assert_allclose(of_input["psnr"][j], metrics.psnr(magnitude(OPERATOR.lift(y)), x), rtol=1e-4)
        for i, lam in enumerate(LAMS):
            x_hat = one(lam, y)
            expected = {
                "psnr": metrics.psnr(x_hat, x),
                "ssim": metrics.ssim(x_hat, x),
                "mae": losses.mae(x_hat, x),
                "hfen": metrics.hfen(x_hat, x),
                "rpsnr": metrics.psnr(x_hat, x) - of_input["psnr"][j],
                "loss": weighted_loss(OBJECTIVE, lam, term_values(OBJECTIVE, Outcome(x_hat, x, y, {}))),
            }
            assert scores.keys() == expected.keys()
            for name, value in expected.items():
                np.testing.assert_allclose(scores[name][i, j], value, rtol=1e-4, atol=1e-4, err_msg=name)
                np.testing.assert_allclose(whole[name][i, j], value, rtol=1e-4, atol=1e-4, err_msg=name)


def test_reconstructions_have_lambda_first():
    y = measure(observe, KEY, IMAGES[:3], np.arange(3))
    x_hat = reconstructions(MODEL, OPERATOR, VARIABLES, y, LAMS)
    assert x_hat.shape == (2, 3, 16, 16, 1)
    expected = reconstruct(MODEL, VARIABLES, LAMS[1], OPERATOR.lift(y[2]))
    np.testing.assert_allclose(x_hat[1, 2], expected, rtol=1e-4, atol=1e-5)
