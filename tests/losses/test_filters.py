"""The filters against SciPy, PyWavelets and their definitions."""

import numpy as np
import pytest
import pywt
from scipy import ndimage

from hyperrecon_jax.losses import filters

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("size", [1, 5, 12, 31])
@pytest.mark.parametrize("step", [None, 2, 4])
@pytest.mark.parametrize("count", [7, 8])
def test_mirrored_correlation_equals_scipy(size, step, count):
    signal, taps = RNG.standard_normal(size), RNG.standard_normal((2, count))
    pixels = np.arange(size) if step is None else np.arange(-6, size + 6, step)
    matrices = filters.mirrored_correlation(size, taps, centres=None if step is None else pixels)
    mirrored = np.pad(signal, 12, mode="symmetric")
    expected = [ndimage.correlate1d(mirrored, row, mode="constant")[pixels + 12] for row in taps]
    np.testing.assert_allclose(matrices @ signal, expected, atol=1e-5)


def test_zero_padded_convolution_equals_numpy():
    signal, taps = RNG.standard_normal(9), RNG.standard_normal(4)
    np.testing.assert_allclose(
        filters.zero_padded_convolution(9, taps) @ signal, np.convolve(signal, taps), rtol=1e-5, atol=1e-6
    )


def test_filter_axes_filters_each_channel_with_a_window():
    image = RNG.random((2, 20, 17, 3)).astype(np.float32)
    taps = filters.gaussian_taps(1.2, 4)
    rows, columns = (filters.mirrored_correlation(size, taps[None])[0] for size in (20, 17))
    expected = ndimage.gaussian_filter(image, 1.2, radius=4, axes=(1, 2))
    np.testing.assert_allclose(filters.filter_axes(rows, image, columns), expected, atol=1e-6)


@pytest.mark.parametrize(("mirrored", "mode"), [(False, "zero"), (True, "symmetric")])
def test_db4_bands_equal_pywavelets(mirrored, mode):
    image = RNG.random((24, 18, 1)).astype(np.float32)
    bands = np.asarray(filters.db4_bands(image, mirrored=mirrored))[..., 0]
    low, (horizontal, vertical, diagonal) = pywt.dwt2(image[..., 0], "db4", mode=mode)
    for (i, j), expected in {(0, 0): low, (1, 0): horizontal, (0, 1): vertical, (1, 1): diagonal}.items():
        np.testing.assert_allclose(bands[i, j], expected, atol=1e-5)


def test_mirrored_db4_bands_of_a_flat_image():
    bands = filters.db4_bands(np.full((13, 10, 1), 0.3, np.float32), mirrored=True)
    assert bands.shape == (2, 2, 10, 8, 1)
    np.testing.assert_allclose(bands[0, 0], np.full((10, 8, 1), 0.6), rtol=1e-5)
    np.testing.assert_allclose(bands[1, 1], np.zeros((10, 8, 1)), atol=1e-6)


def test_laplacian_of_gaussian_of_a_point_and_of_a_flat_image():
    """The response to a point is the kernel, symmetric and with the sum 0; its shape is SciPy's to 2 per cent."""
    point = np.zeros((31, 31, 1), np.float32)
    point[15, 15] = 1
    kernel = np.asarray(filters.laplacian_of_gaussian(point))[..., 0]
    np.testing.assert_allclose(kernel, kernel.T, atol=1e-7)
    np.testing.assert_allclose(kernel.sum(), 0, atol=1e-6)
    expected = ndimage.gaussian_laplace(point[..., 0].astype(float), 1.5, radius=7)
    np.testing.assert_allclose(kernel, expected, atol=0.02 * np.abs(kernel).max())
    np.testing.assert_allclose(
        filters.laplacian_of_gaussian(np.ones((9, 12, 2), np.float32)), np.zeros((9, 12, 2)), atol=1e-6
    )
