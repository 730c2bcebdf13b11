"""Drawing in a plane: splines and textures against SciPy and their formulas, shapes against their areas."""

import numpy as np
import pytest
from scipy import ndimage

from hyperrecon_jax.data import plane


def test_a_lattice_is_a_cubic_spline():
    coefficients = np.random.default_rng(0).standard_normal((2, 8, 8)).astype(np.float32)
    index = (plane.pixel_centres(20) + 1) * 5 / 2 + 1  # of 5 cells; one coefficient lies before the first
    grid = np.stack(np.meshgrid(index, index, indexing="ij"))
    expected = [ndimage.map_coordinates(c, grid, order=3, prefilter=False) for c in coefficients]
    np.testing.assert_allclose(plane.evaluate_lattice(coefficients, 20), expected, atol=1e-5)


def test_a_lattice_keeps_linear_functions():
    ticks = plane.lattice_points(6)
    values = plane.evaluate_lattice(2 * ticks[None, :] - 3 * ticks[:, None] + 1, 15)
    pixels = plane.pixel_centres(15)
    np.testing.assert_allclose(values, 2 * pixels[None, :] - 3 * pixels[:, None] + 1, atol=1e-5)


def test_smooth_fields_have_unit_standard_deviation():
    field = plane.smooth_field(np.random.default_rng(0), 128, cells=60)
    assert abs(field.mean()) < 0.1
    np.testing.assert_allclose(field.std(), 1, rtol=0.06)


@pytest.mark.parametrize("exponent", [0.5, 1.5])
def test_the_spectrum_of_a_texture_is_a_power_law(exponent):
    texture = plane.power_law_texture(np.random.default_rng(0), 256, exponent=exponent)
    amplitude = np.abs(np.fft.fft2(texture))
    radius = np.hypot(*np.meshgrid(*2 * [np.fft.fftfreq(256)]))
    coarse, fine = (amplitude[(radius > low) & (radius < 1.2 * low)].mean() for low in (0.1, 0.4))
    np.testing.assert_allclose(coarse / fine, 4**exponent, rtol=0.1)
    np.testing.assert_allclose(texture.std(), 1, rtol=1e-3)


def test_a_texture_has_nothing_finer_than_asked_for():
    texture = plane.power_law_texture(np.random.default_rng(0), 64, exponent=0.5, finest=8)
    energy = np.abs(np.fft.fft2(texture)) ** 2
    radius = np.hypot(*np.meshgrid(*2 * [np.fft.fftfreq(64)]))
    assert energy[radius > 0.25].sum() < 1e-3 * energy.sum()


@pytest.mark.parametrize(
    ("distance", "area"),
    [
        (plane.ellipse((0.4, 0.2), 0.7), np.pi * 0.4 * 0.2),
        (plane.polygon(0.3 + np.pi / 2 * np.arange(4), np.array([0.4, 0.1, 0.4, 0.1])), 0.8 * 0.2),
        (plane.line((0.3, 0.1), 0.05), 4 * 0.05 * np.hypot(0.3, 0.1) + np.pi * 0.05**2),
    ],
)
def test_a_shape_covers_its_area(distance, area):
    image = np.zeros((200, 200), np.float32)
    plane.paint(image, distance, 1, centre=(0.1, -0.2), reach=0.6)
    np.testing.assert_allclose(image.sum() * (2 / 200) ** 2, area, rtol=0.01)
    rows, columns = np.nonzero(image)
    np.testing.assert_allclose(
        (plane.pixel_centres(200)[columns].mean(), plane.pixel_centres(200)[rows].mean()), (0.1, -0.2), atol=0.01
    )
    assert ((image > 0) & (image < 1)).any()  # the edge is soft


def test_a_shape_outside_the_plane_changes_nothing():
    image = np.zeros((16, 16), np.float32)
    plane.paint(image, plane.ellipse((0.2, 0.2), 0), 1, centre=(1.5, 0), reach=0.2)
    assert not image.any()


def test_opacity_mixes():
    image = np.full((16, 16), 0.5, np.float32)
    plane.paint(image, plane.ellipse((3, 3), 0), 1, centre=(0, 0), reach=3, opacity=0.25)
    np.testing.assert_allclose(image, 0.625)
