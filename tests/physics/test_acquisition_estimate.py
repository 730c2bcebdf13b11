"""Acquisitions read off k-space, against those that it was simulated with."""

import itertools

import numpy as np
import pytest

from hyperrecon_jax.physics import masks
from hyperrecon_jax.physics.acquisition_estimate import estimate_acquisition
from hyperrecon_jax.runtime.errors import InputError

KINDS = ("poisson_disc", "random_lines", "equispaced_lines")


def smooth_head(size):
    """Ellipses with soft edges, as skin, brain and ventricles, in [0, 1]."""
    y, x = np.mgrid[:size, :size] / (size - 1) * 2 - 1
    image = np.zeros((size, size))
    for value, x0, a, b in ((0.9, 0, 0.72, 0.9), (-0.5, 0, 0.66, 0.84), (0.3, 0, 0.55, 0.7), (-0.4, 0.2, 0.1, 0.25)):
        image += value / (1 + np.exp((np.hypot((x - x0) / a, y / b) - 1) * min(a, b) * size * 0.6))
    return image / image.max()


def complex_normal(rng, shape):
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)) / np.sqrt(2)


def simulate(size, mask, sigma, seed=0):
    kspace = np.fft.fft2(smooth_head(size), norm="ortho")
    return mask * (kspace + sigma * complex_normal(np.random.default_rng(seed), kspace.shape))


# a Poisson-disc mask of half of 256 x 256 takes seconds to make
CASES = [
    case
    for case in itertools.product((96, 256), KINDS, (2.0, 4.0, 8.0))
    if case not in ((256, "poisson_disc", 2.0), (256, "poisson_disc", 4.0))
]


@pytest.mark.parametrize(("size", "kind", "acceleration"), CASES)
def test_simulated_acquisitions_are_read_off(size, kind, acceleration):
    mask = masks.make(kind, (size, size), acceleration=acceleration, seed=1)
    for sigma in (0.01, 0.03, 0.1):
        kspace = simulate(size, mask, sigma)
        for estimate in (estimate_acquisition(kspace), estimate_acquisition(kspace.T)):  # lines along columns, along rows
            np.testing.assert_allclose(estimate.acceleration, acceleration, rtol=0.03)
            np.testing.assert_allclose(estimate.sigma, sigma, rtol=0.15)
            assert estimate.mask == kind


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_masks_do_not_depend_on_the_seed(kind):
    for seed in range(20):
        mask = masks.make(kind, (64, 80), acceleration=4.0, seed=seed)
        assert estimate_acquisition(simulate(80, np.pad(mask, ((0, 16), (0, 0))), 0.02)).mask == kind


@pytest.mark.parametrize("kind", KINDS)
def test_slices_with_masks_of_their_own(kind):
    """Together they cover more than each of them, and the first one everything."""
    kspace = np.stack(
        [simulate(96, masks.make(kind, (96, 96), acceleration=4.0, seed=seed), 0.03, seed) for seed in range(8)]
    )
    kspace[0], kspace[1:3] = simulate(96, 1, 0.03), 0
    estimate = estimate_acquisition(kspace)
    np.testing.assert_allclose(estimate.acceleration, 4, rtol=0.03)
    np.testing.assert_allclose(estimate.sigma, 0.03, rtol=0.15)
    assert estimate.mask == kind


def test_fastmri_masks_with_one_step_are_equispaced():
    frequencies = np.fft.ifftshift(np.arange(96) - 48)
    columns = (frequencies % 4 == 1) | (np.abs(frequencies) < 4)
    estimate = estimate_acquisition(simulate(96, np.tile(columns, (96, 1)), 0.05))
    assert estimate.mask == "equispaced_lines"
    np.testing.assert_allclose(estimate.acceleration, 96 / columns.sum())


def test_the_noise_of_coils_is_that_of_their_combination():
    mask = masks.make("random_lines", (96, 96), acceleration=4.0)
    y, x = np.mgrid[:96, :96] / 95
    maps = np.stack([1 - x, x, 1 - y, y, 0 * x])
    maps /= np.sqrt((maps**2).sum(0))
    coils = np.fft.fft2(maps * smooth_head(96), norm="ortho")
    noisy = mask * (coils + 0.04 * complex_normal(np.random.default_rng(0), coils.shape))
    noisy[-1] = 0  # a coil of zeros, as it is added to fill up
    np.testing.assert_allclose(estimate_acquisition(noisy).sigma, 0.04, rtol=0.15)


def test_full_kspace_without_noise():
    estimate = estimate_acquisition(simulate(96, np.ones((96, 96)), 0.0))
    assert (estimate.acceleration, estimate.mask) == (1.0, "equispaced_lines")
    assert estimate.sigma < 1e-3


def textured_head(size):
    """A head whose texture is as strong at the highest frequencies as noise of 0.1."""
    return smooth_head(size) * (1 + 0.3 * np.random.default_rng(1).normal(size=(size, size)))


@pytest.mark.parametrize("kind", KINDS)
def test_fine_structures_of_a_head_do_not_count_as_noise(kind):
    """The margins of the field of view show the noise alone."""
    mask = masks.make(kind, (128, 128), acceleration=3.0)
    image = np.pad(textured_head(100), 14)
    kspace = np.fft.fft2(image, norm="ortho") + 0.02 * complex_normal(np.random.default_rng(0), image.shape)
    np.testing.assert_allclose(estimate_acquisition(mask * kspace).sigma, 0.02, rtol=0.2)


def test_fine_structures_everywhere_count_as_noise():
    """As documented: a texture that fills the field of view makes the estimate too high, never too low."""
    rng = np.random.default_rng(0)
    kspace = np.fft.fft2(1 + 0.3 * rng.normal(size=(96, 96)), norm="ortho") + 0.02 * complex_normal(rng, (96, 96))
    assert 0.1 < estimate_acquisition(kspace).sigma < 0.4


def test_padding_with_zeros_does_not_hide_the_noise():
    kspace = np.fft.fftshift(simulate(96, np.ones((96, 96)), 0.03))
    padded = np.fft.ifftshift(np.pad(kspace, ((16, 16), (8, 24))))
    np.testing.assert_allclose(estimate_acquisition(padded).sigma, 0.03, rtol=0.15)


@pytest.mark.parametrize(
    ("kspace", "message"),
    [
        (np.zeros((8, 8), complex), "zeros alone"),
        (np.ones((8, 8)), "complex"),
        (np.full((8, 8), np.nan + 0j), "must hold finite numbers, but it has NaN or infinity"),
        (np.full((8, 8), np.inf + 0j), "must hold finite numbers, but it has NaN or infinity"),
    ],
)
def test_what_is_no_measured_kspace(kspace, message):
    with pytest.raises(InputError, match=message):
        estimate_acquisition(kspace)
