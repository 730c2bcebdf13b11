"""The grid of the training images, against interpolation written out."""

import numpy as np
import pytest
from scipy import ndimage

from hyperrecon_jax.data import grid
from hyperrecon_jax.data.sources.image_files import natural_order, to_grid

RNG = np.random.default_rng(0)


def frequencies(n):
    """The frequencies of a centred Fourier transform: 0 is in its middle."""
    return np.fft.fftshift(np.fft.fftfreq(n, 1 / n))


def triangle(old_side, new_side):
    """The matrix that resamples an axis: weights fall linearly over the wider of both pixels."""
    centres, step = (np.arange(new_side) + 0.5) * old_side / new_side, max(old_side / new_side, 1)
    weights = np.maximum(0, 1 - np.abs(centres[:, None] - np.arange(old_side) - 0.5) / step)
    return weights / weights.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("old_shape", [(6, 9), (7, 8), (10, 3)])
@pytest.mark.parametrize("new_shape", [(8, 8), (5, 5), (4, 11)])
def test_centre_keeps_the_middle_of_a_centred_transform(old_shape, new_shape):
    plane = 100 + frequencies(old_shape[0])[:, None] + 10 * frequencies(old_shape[1])
    (row, column), (inside_rows, inside_columns) = (
        [frequencies(w) for w in new_shape],
        [np.isin(frequencies(w), frequencies(h)) for h, w in zip(old_shape, new_shape, strict=True)],
    )
    expected = (100 + row[:, None] + 10 * column) * (inside_rows[:, None] & inside_columns)
    np.testing.assert_array_equal(grid.centre(np.stack([plane, 2 * plane]), *new_shape), np.stack([expected, 2 * expected]))


@pytest.mark.parametrize("shape", [(5, 8), (8, 5), (6, 6)])
def test_square_pads_with_zeros(shape):
    image = RNG.random((1, *shape))
    squared = grid.square(image)
    assert squared.shape == (1, max(shape), max(shape))
    assert squared.dtype == image.dtype
    assert squared.sum() == pytest.approx(image.sum())
    assert {*squared[squared > 0]} == {*image.ravel()}


@pytest.mark.parametrize("old_shape", [(16, 24), (13, 10)])
@pytest.mark.parametrize("new_shape", [(8, 8), (16, 16), (31, 40)])
def test_resample_is_a_triangle(old_shape, new_shape):
    images = RNG.random((2, *old_shape))
    rows, columns = (triangle(h, w) for h, w in zip(old_shape, new_shape, strict=True))
    resampled = grid.resample(images, *new_shape)
    assert resampled.dtype == np.float32
    np.testing.assert_allclose(resampled, rows @ images @ columns.T, atol=1e-6)
    np.testing.assert_allclose(grid.resample(np.full((1, *old_shape), 0.3), *new_shape), 0.3, atol=1e-6)


def test_finer_grids_interpolate_linearly():
    image = RNG.random((12, 12)).astype(np.float32)
    coordinates = (np.mgrid[:24, :24] + 0.5) / 2 - 0.5
    expected = ndimage.map_coordinates(image, coordinates, order=1, mode="nearest")
    np.testing.assert_allclose(grid.resample(image[None], 24, 24)[0], expected, atol=1e-6)


@pytest.mark.parametrize("factor", [2, 3])
def test_coarser_grids_keep_the_mean_and_the_centre(factor):
    image = np.zeros((1, 12 * factor, 12 * factor))
    image[0, 10:18, 12:20] = RNG.random((8, 8))
    coarse = grid.resample(image, 12, 12)
    assert coarse.mean() == pytest.approx(image.mean(), rel=1e-5)
    for axis in range(2):  # mm from the corner of the field of view
        fine_centre, coarse_centre = (
            (i[0].sum(1 - axis) @ (np.arange(len(i[0])) + 0.5)) * width / i.sum()
            for i, width in ((image, 1), (coarse, factor))
        )
        assert coarse_centre == pytest.approx(fine_centre, rel=1e-5)


def test_labels_are_those_of_the_nearest_pixel():
    labels = RNG.integers(0, 5, (2, 8, 8))
    resampled = grid.resample_labels(labels, 24, 16)
    assert resampled.dtype == np.uint8
    np.testing.assert_array_equal(resampled, labels.repeat(3, axis=1).repeat(2, axis=2))
    coarse = grid.resample_labels(labels.repeat(3, axis=1).repeat(3, axis=2), 8, 8)
    np.testing.assert_array_equal(coarse, labels)


def test_the_same_grid_changes_nothing():
    image = RNG.random((2, 16, 16), np.float32)
    for affine in (None, np.eye(4), np.diag([0.9, 0.905, 4, 1])):
        np.testing.assert_array_equal(to_grid(image, affine, 16), image)


def gaussian(rows, columns, row_spacing, column_spacing):
    """A round Gaussian of 6 mm in the middle, at the centres of pixels."""
    y, x = ((np.arange(n) + 0.5 - n / 2) * spacing for n, spacing in ((rows, row_spacing), (columns, column_spacing)))
    return np.exp(-(y[:, None] ** 2 + x**2) / 2 / 6**2)[None]


@pytest.mark.parametrize(("shape", "spacing"), [((32, 64), (2, 1)), ((64, 64), (0.5, 1)), ((48, 20), (1.0, 3.2))])
@pytest.mark.parametrize("size", [32, 64])
def test_unequal_spacing_becomes_square(shape, spacing, size):
    turned = np.linalg.qr(RNG.normal(size=(3, 3)))[0]  # oblique slices have the same pixels
    affine = np.eye(4)
    affine[:3, :3] = turned * [*spacing, 5]
    resampled = to_grid(gaussian(*shape, *spacing), affine, size)
    width = max(n * mm for n, mm in zip(shape, spacing, strict=True)) / size
    assert resampled.shape == (1, size, size)
    np.testing.assert_allclose(resampled, gaussian(size, size, width, width), atol=0.06)
    labels = to_grid(gaussian(*shape, *spacing) > 0.5, affine, size, grid.resample_labels)
    assert labels.dtype == np.uint8
    assert np.mean(labels != (gaussian(size, size, width, width) > 0.5)) < 0.02


def test_very_long_pixels_cost_no_memory():
    affine = np.diag([1e6, 1, 1, 1])
    assert to_grid(RNG.random((1, 8, 2000)), affine, 16).shape == (1, 16, 16)


def test_names_in_natural_order(tmp_path):
    names = ["a/2.png", "a/10.png", "a/010.png", "b1", "b02x", "b2y", "b10"]
    paths = sorted([tmp_path / name for name in reversed(names)], key=natural_order)
    assert [str(path.relative_to(tmp_path)) for path in paths] == ["a/2.png", "a/010.png", "a/10.png", *names[3:]]
