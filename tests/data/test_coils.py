"""Coils: known noise, known sensitivities, and a real image that explains the measurement."""

import sys

import numpy as np
import pytest

from hyperrecon_jax.data import coils, population
from hyperrecon_jax.physics.operators import sense
from hyperrecon_jax.runtime.errors import InputError

SIZE = 64
RNG = np.random.default_rng(0)


def normal(*shape, seed=0):
    """Circular complex noise, E |n|^2 = 1."""
    real, imaginary = np.random.default_rng(seed).standard_normal((2, *shape))
    return (real + 1j * imaginary) / np.sqrt(2)


def smooth_coils(count, h, w):
    """Loops around the object, each with a phase of its own that varies; sum |maps|^2 = 1."""
    y, x = np.meshgrid(np.linspace(-1, 1, h), np.linspace(-1, 1, w), indexing="ij")
    angles = 2 * np.pi * np.arange(count)[:, None, None] / count
    across = np.hypot(x - 1.3 * np.cos(angles), y - 1.3 * np.sin(angles))
    maps = np.exp(-((across / 1.4) ** 2) + 1j * (angles + 0.8 * x * np.cos(angles) - 0.6 * y))
    return maps / np.linalg.norm(maps, axis=0)


def slow_phase(h, w):
    y, x = np.meshgrid(np.linspace(-1, 1, h), np.linspace(-1, 1, w), indexing="ij")
    return np.exp(1j * (1.0 + 0.9 * x - 0.7 * y + 0.8 * x * y))


def fft(images):
    return np.fft.fft2(images, norm="ortho")


IMAGE = population.synthesize_subject(5, size=SIZE, slices=3).images[1, ..., 0].astype(float)
TRUE = smooth_coils(6, SIZE, SIZE)
KSPACE = fft(TRUE * slow_phase(SIZE, SIZE) * IMAGE) + 2e-3 * normal(6, SIZE, SIZE)
MIXING = np.linalg.cholesky(np.array([[1, 0.3j, 0], [-0.3j, 2, 0.5], [0, 0.5, 0.7]]))


def relative(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


def test_noise_covariance_and_whitening_on_known_noise():
    """The same noise everywhere, an image in the low frequencies, and lines that the scanner filled with zeros."""
    noise = np.einsum("ij,njhw->nihw", MIXING, normal(4, 3, 96, 80))
    signal = np.zeros_like(noise)
    signal[..., :12, :12] = 1e3 * normal(4, 3, 12, 12, seed=1)
    kspace = (noise + signal) * (np.abs(np.fft.fftfreq(80)) < 0.45)
    covariance = coils.noise_covariance(kspace)  # from the frequencies: this signal fills the field of view
    np.testing.assert_allclose(covariance, MIXING @ MIXING.conj().T, atol=0.15)
    assert covariance.dtype == np.complex128
    # from the corners: an object in the middle whose edges reach the highest frequencies
    image = np.zeros((96, 80))
    image[30:60, 20:60] = 1e3 * np.random.default_rng(2).random((30, 40))
    np.testing.assert_allclose(coils.noise_covariance(noise + fft(image)), MIXING @ MIXING.conj().T, atol=0.15)
    # lines of zeros make neither estimate smaller
    half = noise * (np.abs(np.fft.fftfreq(80)) < 0.25)
    np.testing.assert_allclose(coils.noise_covariance(half), MIXING @ MIXING.conj().T, atol=0.15)
    white = coils.whiten(noise, coils.noise_covariance(kspace))
    flat = white.swapaxes(0, 1).reshape(3, -1)
    np.testing.assert_allclose(flat @ flat.conj().T / flat.shape[1], np.eye(3), atol=0.1)
    # with the true covariance only chance remains
    flat = coils.whiten(noise, MIXING @ MIXING.conj().T).swapaxes(0, 1).reshape(3, -1)
    np.testing.assert_allclose(flat @ flat.conj().T / flat.shape[1], np.eye(3), atol=0.03)


def test_a_dead_coil_is_whitened_to_zeros():
    kspace = normal(4, 3, 64, 64).astype(np.complex64)
    kspace[:, 1] = 0
    white = coils.whiten(kspace, coils.noise_covariance(kspace))
    assert white.dtype == np.complex64
    assert not white[:, 1].any()
    np.testing.assert_allclose(np.mean(np.abs(white[:, [0, 2]]) ** 2), 1, atol=0.1)


def test_without_noise_nothing_can_be_whitened():
    with pytest.raises(InputError, match=r"`kspace` must have measured samples, got zeros of shape \(1, 2, 8, 8\)"):
        coils.noise_covariance(np.zeros((1, 2, 8, 8), np.complex64))
    with pytest.raises(InputError, match="`covariance` must be positive, got eigenvalues"):
        coils.whiten(normal(1, 2, 8, 8), np.zeros((2, 2)))


def test_compression_keeps_all_of_a_rank_deficient_set():
    """Nine coils that are mixtures of three."""
    three, mixture = normal(2, 3, 16, 24), normal(9, 3, seed=1)
    nine = np.einsum("ij,njhw->nihw", mixture, three)
    virtual = coils.compress(nine, 3)
    assert virtual.shape == (2, 3, 16, 24)
    np.testing.assert_allclose(np.sum(np.abs(virtual) ** 2, 1), np.sum(np.abs(nine) ** 2, 1), rtol=1e-9)
    np.testing.assert_allclose(np.sum(np.abs(coils.compress(nine, 5)[:, 3:]) ** 2), 0, atol=1e-9)


def test_compression_keeps_the_most_energy():
    """As much energy as the largest singular values of all samples, in order, and white noise stays white."""
    volume = np.einsum("ij,njhw->nihw", normal(7, 7, seed=1) * np.arange(1, 8), normal(2, 7, 16, 16))
    singular = np.linalg.svd(volume.swapaxes(0, 1).reshape(7, -1), compute_uv=False)
    virtual = coils.compress(volume, 4).swapaxes(0, 1).reshape(4, -1)
    np.testing.assert_allclose(np.linalg.norm(virtual, axis=1), singular[:4], rtol=1e-9)
    np.testing.assert_allclose(virtual @ virtual.conj().T, np.diag(singular[:4] ** 2), atol=1e-6)


def test_few_coils_are_followed_by_zeros():
    volume = normal(2, 5, 16, 16).astype(np.complex64)
    virtual = coils.compress(volume, 8)
    assert (virtual.shape, virtual.dtype) == ((2, 8, 16, 16), np.complex64)
    np.testing.assert_array_equal(virtual[:, :5], volume)
    assert not virtual[:, 5:].any()
    np.testing.assert_array_equal(coils.compress(volume, 5), volume)


@pytest.fixture(scope="module")
def maps():
    return coils.sensitivities(np.concatenate([KSPACE, 0 * KSPACE[:2]]))


def test_espirit_gives_the_sensitivities_up_to_a_phase(maps):
    assert (maps.shape, maps.dtype) == ((8, SIZE, SIZE), np.complex64)
    assert not maps[6:].any()  # coils of zeros
    energy = np.sum(np.abs(maps) ** 2, 0)
    np.testing.assert_allclose(energy, np.rint(energy), atol=1e-5)
    assert energy[IMAGE > 0].mean() > 0.99
    assert energy.mean() < 0.9  # the corners show nothing
    inside = (IMAGE > 0.1) & (energy > 0.5)
    alike = np.abs(np.sum(np.conj(maps[:6]) * TRUE, 0))[inside]  # 1: the same up to a phase
    assert alike.min() > 0.99
    assert alike.mean() > 0.999


def test_a_real_image_explains_what_was_measured(maps):
    """A x of our operator against the k-space. Without the phase in the maps a real image does not explain it."""
    kspace = np.concatenate([KSPACE, 0 * KSPACE[:2]])
    full_mask = np.ones((SIZE, SIZE), np.float32)

    def residual(maps):
        x = np.abs(coils.combine(kspace, maps)).astype(np.float32)
        return relative(np.asarray(sense(full_mask, maps).measure(x[..., None])), kspace)

    with_phase = coils.absorb_phase(kspace, maps)
    assert with_phase.dtype == np.complex64
    np.testing.assert_allclose(np.abs(with_phase), np.abs(maps), atol=1e-6)
    assert residual(with_phase) < 0.04
    assert residual(maps) > 0.3
    image = coils.combine(kspace, with_phase)
    inside = (IMAGE > 0.1) & maps.any(0)
    np.testing.assert_allclose(np.abs(image)[inside], IMAGE[inside], atol=0.03)
    # the phase that maps came with does not matter
    turned = coils.absorb_phase(kspace, maps * np.exp(1j * RNG.uniform(-3, 3, (SIZE, SIZE))))
    np.testing.assert_allclose(turned, with_phase, atol=1e-3)


def test_true_sensitivities_and_a_slow_phase_leave_a_real_image():
    kspace = fft(TRUE * slow_phase(SIZE, SIZE) * IMAGE)
    image = coils.combine(kspace, TRUE)
    np.testing.assert_allclose(image, slow_phase(SIZE, SIZE) * IMAGE, atol=1e-12)
    real = coils.combine(kspace, coils.absorb_phase(kspace, TRUE))
    assert np.linalg.norm(real.imag) < 0.03 * np.linalg.norm(real)


def test_the_map_of_one_coil_is_a_pure_phase():
    kspace = fft(slow_phase(SIZE, SIZE) * IMAGE)[None]
    maps = coils.sensitivities(kspace)
    np.testing.assert_array_equal(maps, 1)
    np.testing.assert_allclose(np.abs(coils.absorb_phase(kspace, maps)), 1, rtol=1e-6)
    assert not coils.sensitivities(np.zeros((3, 32, 32), np.complex64)).any()


def test_slices_of_other_shapes():
    h, w = 65, 78
    image = np.pad(IMAGE, ((1, 0), (9, 5)))
    kspace = fft(smooth_coils(4, h, w) * image)
    maps = coils.sensitivities(kspace)
    inside = (image > 0.1) & maps.any(0)
    assert np.abs(np.sum(np.conj(maps) * smooth_coils(4, h, w), 0))[inside].mean() > 0.995
    with pytest.raises(InputError, match="`kspace` must be at least `calibration` = 24 samples wide, got 16 x 78"):
        coils.sensitivities(kspace[:, :16])


def test_without_sigpy_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sigpy.mri.app", None)
    with pytest.raises(InputError, match=r"pip install hyperrecon_jax\[multicoil\]"):
        coils.sensitivities(KSPACE)
