"""The measurements of the study of real people against NumPy, and what its methods make of them."""

from pathlib import Path

import jax
import numpy as np
import pytest
from helper import small_networks
from random_models import random_variables

from hyperrecon_jax.models.model import reconstruct
from hyperrecon_jax.physics import masks
from hyperrecon_jax.runs.config import complete
from hyperrecon_jax.runs.experiment import make_model
from hyperrecon_jax.runtime.errors import InputError
from hyperrecon_jax.studies import classical
from hyperrecon_jax.studies import reconstruction_methods as methods

SIZE = 32
IMAGES = np.random.default_rng(0).random((3, SIZE, SIZE, 1), np.float32)
TASK = methods.Task("3-fold", "poisson_disc", 3.0, 0.05)
MASK = masks.poisson_disc((SIZE, SIZE), acceleration=3.0)


CONFIG = complete({"model": {"width": 2, "hyper_width": 3}, "task": {"acceleration": 2.0, "mask": "random_lines"}})


def replace_run(patched):
    """Every folder holds a small network, which was not trained, of another task; returns its model and variables."""
    with small_networks():
        model, shapes, _ = make_model(CONFIG)
    variables = random_variables(shapes)
    patched.setattr(methods, "read_config", lambda run: CONFIG)
    patched.setattr(methods, "load", lambda run: (model, variables))
    return model, variables


def test_a_measurement_is_noisy_k_space_where_the_mask_is():
    y = methods.observe(TASK, IMAGES, 1)[..., 0]
    noise = (y - MASK * np.fft.fft2(IMAGES[1, ..., 0], norm="ortho"))[MASK == 1]
    assert not y[MASK == 0].any()
    assert np.sqrt(np.mean(np.abs(noise) ** 2)) == pytest.approx(TASK.sigma, rel=0.1)  # of 341 samples
    assert noise.real.std() == pytest.approx(noise.imag.std(), rel=0.2)


def test_noise_is_fixed_and_differs_between_images():
    y = [methods.observe(TASK, IMAGES[[0, 0, 1]], index) for index in (0, 1)]
    np.testing.assert_array_equal(y[0], methods.observe(TASK, IMAGES, 0))
    assert np.abs(y[0] - y[1])[MASK == 1].min() > 0


def test_zero_filled_is_the_magnitude_of_the_inverse():
    zero_filled = methods.classical_methods()[0]
    y = methods.observe(TASK, IMAGES, 0)
    x_hat, weight = zero_filled.make(TASK, (SIZE, SIZE))(y, IMAGES[0])
    assert weight is None
    np.testing.assert_allclose(x_hat[..., 0], np.abs(np.fft.ifft2(y[..., 0], norm="ortho")), rtol=1e-5)


def test_the_weight_is_the_best_for_the_reference():
    total_variation = methods.classical_methods()[1]
    image = np.zeros((SIZE, SIZE, 1), np.float32)
    image[8:24, 10:20] = 0.7
    y = methods.observe(TASK, image[None], 0)
    x_hat, weight = total_variation.make(TASK, (SIZE, SIZE))(y, image)
    np.testing.assert_array_equal(x_hat[..., 0], classical.total_variation(y[..., 0], MASK, weight=weight))

    def error(weight):
        return np.square(classical.total_variation(y[..., 0], MASK, weight=weight) - image[..., 0]).mean()

    assert error(weight) <= 1.01 * min(map(error, np.geomspace(1e-3, 0.3, 30)))


def test_a_run_gets_the_mask_of_the_study(monkeypatch):
    """Its config has other masks. Its network input is zero-filled with this study's mask."""
    model, variables = replace_run(monkeypatch)
    y = methods.observe(TASK, IMAGES, 0)
    image = np.fft.ifft2(y[..., 0], norm="ortho")
    net_input = np.stack([image.real, image.imag], -1).astype(np.float32)
    rows = methods.run_methods(Path("runs/run"))
    assert [row.name for row in rows] == [f"run, λ = {lam}" for lam in ("0", "0.25", "0.5", "0.75", "1")]
    assert len({row.identity for row in rows}) == 5
    for row, lam in ((rows[1], 0.25), (rows[4], 1.0)):
        x_hat, weight = row.make(TASK, (SIZE, SIZE))(y, IMAGES[0])
        assert weight is None
        expected = jax.jit(reconstruct, static_argnums=0)(model, variables, np.array([lam], np.float32), net_input)
        np.testing.assert_allclose(x_hat, expected, rtol=1e-4, atol=1e-5)


def test_runs_that_do_not_fit(monkeypatch, tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        methods.run_methods(tmp_path)
    for changed, message in (
        ({"task": {"name": "denoising", "sigma": 0.1}}, "'denoising' and the terms mae, ssim"),
        ({"loss": {"terms": ("mae", "ssim", "mse"), "scales": (1.0, 1.0, 1.0)}}, "'csmri' and the terms mae, ssim, mse"),
    ):
        config = complete(changed)
        monkeypatch.setattr(methods, "read_config", lambda run, config=config: config)
        with pytest.raises(InputError, match=message):
            methods.run_methods(tmp_path)
