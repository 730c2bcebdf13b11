"""Total variation and wavelets against sigpy's own solvers, and the search for a weight against closed forms."""

import math
import sys

import numpy as np
import pytest

from hyperrecon_jax.physics import masks
from hyperrecon_jax.runtime.errors import InputError
from hyperrecon_jax.studies import classical

SIZE = 32
RNG = np.random.default_rng(0)
MASK = masks.poisson_disc((SIZE, SIZE), acceleration=3.0)
IMAGE = np.zeros((SIZE, SIZE), np.float32)
IMAGE[12:20, 11:22], IMAGE[14:17, 13:18] = 0.5, 1.0
NOISE = 0.02 * (RNG.normal(size=(2, SIZE, SIZE)) * [[[1]], [[1j]]]).sum(0) / math.sqrt(2)
KSPACE = (MASK * (np.fft.fft2(IMAGE, norm="ortho") + NOISE)).astype(np.complex64)


def centred(kspace):
    """The k-space of the same image for sigpy, whose origins are in the middle."""
    image = np.fft.ifftshift(np.fft.ifft2(kspace, norm="ortho"))
    return np.fft.fftshift(np.fft.fft2(image, norm="ortho")).astype(np.complex64)[None]


def solve_by_sigpy(name, weight, **options):
    from sigpy.mri import app  # here, because it takes seconds, and every process of the tests imports this module

    ones = np.ones((1, SIZE, SIZE), np.complex64)
    solver = getattr(app, name)(centred(KSPACE), ones, weight, weights=np.fft.fftshift(MASK), show_pbar=False, **options)
    return np.abs(solver.run())


@pytest.mark.parametrize("weight", [0.03, pytest.param(0.005, marks=pytest.mark.slow)])
def test_total_variation_is_sigpys(weight):
    step = 10 * weight
    expected = solve_by_sigpy("TotalVariationRecon", weight, sigma=step, tau=1 / (9 * step), max_iter=300)
    x_hat = classical.total_variation(KSPACE, MASK, weight=weight)
    assert x_hat.dtype == np.float32
    np.testing.assert_allclose(x_hat, expected, atol=3e-3)


def test_wavelet_l1_is_sigpys():
    """Not exactly: sigpy's step for the wavelets is only exact where the image is zero near its borders."""
    expected = solve_by_sigpy("L1WaveletRecon", 0.02, alpha=1, max_iter=300)
    x_hat = classical.wavelet_l1(KSPACE, MASK, weight=0.02)
    assert x_hat.dtype == np.float32
    np.testing.assert_allclose(x_hat, expected, atol=1e-2)
    assert np.abs(x_hat - expected).mean() < 1e-3


@pytest.mark.parametrize("solve", [classical.total_variation, classical.wavelet_l1])
def test_a_tiny_weight_keeps_a_full_measurement(solve):
    full = np.ones_like(MASK)
    np.testing.assert_allclose(solve(np.fft.fft2(IMAGE, norm="ortho"), full, weight=1e-6), IMAGE, atol=1e-4)


@pytest.mark.parametrize("best", [0.0011, 0.02, 0.3])
def test_the_best_weight_of_a_parabola_is_exact(best):
    weight, value = classical.find_best_weight(lambda weight: -(math.log(weight / best) ** 2), start=0.01)
    assert weight == pytest.approx(best, rel=1e-9)
    assert value == pytest.approx(0, abs=1e-9)


def test_the_search_for_a_weight_ends_at_the_limits():
    limits = (0.001, 0.1)
    for sign, expected in ((1, 0.08), (-1, 0.00125)):
        assert classical.find_best_weight(lambda w, sign=sign: sign * w, start=0.01, limits=limits)[0] == expected
    assert classical.find_best_weight(lambda weight: 3.0, start=0.01, limits=limits) == (0.01, 3.0)


def test_without_sigpy_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sigpy", None)
    with pytest.raises(InputError, match=r"pip install hyperrecon_jax\[multicoil\]"):
        classical.require_sigpy()
