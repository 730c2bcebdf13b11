"""The metrics against scikit-image, SciPy and plain loops."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from hyperrecon_jax.losses import metrics
from hyperrecon_jax.runtime.errors import InputError


def images(*shape, seed=0):
    rng = np.random.default_rng(seed)
    x = ndimage.gaussian_filter(rng.random(shape), 1.0, axes=(-3, -2))
    return np.clip(x + 0.1 * rng.standard_normal(shape), 0, 1).astype(np.float32), x.astype(np.float32)


def laplacian_of_gaussian(plane):
    """SciPy's filter with the kernel of fspecial("log", 15, 1.5), written as MATLAB's source does."""
    v, u = np.mgrid[-7:8, -7:8]
    h = np.exp(-(u * u + v * v) / (2 * 1.5**2))
    h = h / h.sum()
    h = h * (u * u + v * v - 2 * 1.5**2) / 1.5**4
    return ndimage.correlate(plane.astype(np.float64), h - h.sum() / h.size, mode="reflect")


METRICS = [metrics.nmae, metrics.mse, metrics.psnr, metrics.ssim, metrics.hfen, metrics.nhfen]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("lead", [(), (2, 3)])
def test_a_metric_is_one_value_per_image_however_it_is_mapped(metric, lead):
    x_hat, x = images(*lead, 20, 16, 2)
    value = jax.jit(metric)(x_hat, x)
    assert value.shape == lead
    mapped = functools.reduce(lambda f, _: jax.vmap(f), lead, metric)
    np.testing.assert_allclose(jax.jit(mapped)(x_hat, x), value, rtol=1e-5)


def test_errors_and_psnr_equal_numpy_and_scikit_image():
    x_hat, x = images(20, 16, 1)
    np.testing.assert_allclose(metrics.nmae(x_hat, x), -np.abs(x_hat - x).mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics.mse(x_hat, x), np.square(x_hat - x).mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics.psnr(x_hat, x), peak_signal_noise_ratio(x, x_hat, data_range=1), rtol=1e-5)
    assert metrics.psnr(x, x) == np.inf


def test_ssim_equals_scikit_image():
    x_hat, x = images(20, 16, 1)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1}
    expected = structural_similarity(x_hat[..., 0], x[..., 0], **options)
    np.testing.assert_allclose(metrics.ssim(x_hat, x), expected, atol=2e-6)


def test_rpsnr_is_the_gain_over_the_input():
    x_hat, x = images(3, 20, 16, 1)
    x_input = np.clip(x + 2 * (x_hat - x), -1, 2)  # twice the error is 20 log10 2 dB
    np.testing.assert_allclose(metrics.rpsnr(x_hat, x, x_input), np.full(3, 20 * np.log10(2)), rtol=1e-4)
    np.testing.assert_allclose(metrics.rpsnr(x_hat, x, x_hat), np.zeros(3), atol=1e-6)


@pytest.mark.parametrize("shape", [(40, 33, 1), (16, 20, 2)])
def test_hfen_equals_scipy(shape):
    x_hat, x = images(*shape)
    filtered_hat, filtered = (
        np.stack([laplacian_of_gaussian(image[..., c]) for c in range(shape[-1])], axis=-1) for image in (x_hat, x)
    )
    expected = np.linalg.norm(filtered_hat - filtered)
    np.testing.assert_allclose(metrics.hfen(x_hat, x), expected, rtol=1e-4)
    np.testing.assert_allclose(metrics.nhfen(x_hat, x), -expected, rtol=1e-4)
    normalized = metrics.hfen(x_hat, x, normalized=True)
    np.testing.assert_allclose(normalized, expected / np.linalg.norm(filtered), rtol=1e-4)
    np.testing.assert_allclose(metrics.nhfen(x_hat, x, normalized=True), -normalized)


def test_hfen_is_near_the_authors_laplacian_of_gaussian():
    """SciPy's gaussian_laplace, truncated as in their code, is another kernel for the same filter."""
    x_hat, x = images(40, 33, 1)
    filtered = [ndimage.gaussian_laplace(image[..., 0], sigma=1.5, truncate=6.5 / 1.5) for image in (x_hat, x)]
    expected = np.linalg.norm(filtered[0] - filtered[1]) / np.linalg.norm(filtered[1])
    np.testing.assert_allclose(metrics.hfen(x_hat, x, normalized=True), expected, rtol=0.02)


def test_hfen_sees_no_constant_error():
    _, x = images(20, 16, 1)
    np.testing.assert_allclose(metrics.hfen(x + 0.1, x), 0, atol=1e-5)


def test_dice_equals_a_loop():
    rng = np.random.default_rng(0)
    labels, labels_hat = rng.integers(0, 4, (2, 3, 8, 9))
    score = metrics.dice(labels_hat, labels, num_classes=4)
    assert score.shape == (3, 4)
    for b, k in np.ndindex(3, 4):
        predicted, true = set(np.flatnonzero(labels_hat[b] == k)), set(np.flatnonzero(labels[b] == k))
        np.testing.assert_allclose(score[b, k], 2 * len(predicted & true) / (len(predicted) + len(true)), rtol=1e-6)


def test_dice_of_absent_classes():
    labels = jnp.asarray([[0, 0], [1, 1]])
    score = metrics.dice(jnp.asarray([[0, 0], [2, 2]]), labels, num_classes=4)
    np.testing.assert_array_equal(score, [1.0, 0.0, 0.0, np.nan])
    np.testing.assert_array_equal(metrics.dice(labels, labels, num_classes=2), [1.0, 1.0])


def test_wrong_input_is_named():
    image = jnp.zeros((20, 16, 1))
    for metric in METRICS:
        with pytest.raises(InputError, match=r"`x` must have the shape of `x_hat`, \(20, 16, 1\), got \(1, 20, 16, 1\)"):
            metric(image, image[None])
    with pytest.raises(InputError, match="`x_input` must have the shape of `x_hat`"):
        metrics.rpsnr(image, image, image[:10])
    labels = jnp.zeros((4, 4), jnp.int32)
    with pytest.raises(InputError, match=r"`labels_hat` must be integers \(\*b, h, w\), got float32 of shape \(4, 4\)"):
        metrics.dice(labels * 1.0, labels, num_classes=2)
    with pytest.raises(InputError, match=r"`labels` must have the shape of `labels_hat`, \(4, 4\), got \(3, 4\)"):
        metrics.dice(labels, labels[:3], num_classes=2)
