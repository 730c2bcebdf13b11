"""The operators against NumPy and against the identities that define them; the noise against its distribution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from hyperrecon_jax.physics.operators import (
    awgn,
    complex_noise,
    csmri,
    denoising,
    magnitude,
    rician,
    sense,
    super_resolution,
)
from hyperrecon_jax.runtime.errors import InputError

MASK = (np.random.default_rng(0).random((40, 24)) < 0.4).astype(np.float32)
KEY = jax.random.key(0)


def image(*b, dtype=np.float32, seed=0):
    real, imaginary = np.random.default_rng(seed).standard_normal((2, *b, 40, 24, 1))
    return (real + 1j * imaginary).astype(dtype) if dtype == np.complex64 else real.astype(dtype)


def inner(a, b):
    return np.vdot(np.asarray(a), np.asarray(b))


OPERATORS = {"csmri": csmri(MASK), "denoising": denoising(), "super_resolution": super_resolution(factor=4)}


@pytest.mark.parametrize("b", [(), (2, 3)])
def test_csmri_equals_numpy(b):
    x = np.asarray(image(*b))
    y = MASK[..., None] * np.fft.fft2(x, axes=(-3, -2), norm="ortho")
    zero_filled = np.fft.ifft2(y, axes=(-3, -2), norm="ortho")
    op = csmri(MASK)
    assert op.forward(x).dtype == jnp.complex64
    np.testing.assert_allclose(op.forward(x), y, atol=1e-5)
    np.testing.assert_allclose(op.to_net_input(y), np.concatenate([zero_filled.real, zero_filled.imag], -1), atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.complex64])
def test_csmri_net_input_is_the_adjoint_of_forward(dtype):
    """<A u, v> = <u, A^H v>, whatever v holds where nothing is sampled."""
    u, v = image(dtype=dtype), image(dtype=np.complex64, seed=1)
    real, imaginary = np.moveaxis(csmri(MASK).to_net_input(v), -1, 0)
    np.testing.assert_allclose(inner(csmri(MASK).forward(u), v), inner(u, real + 1j * imaginary), rtol=1e-4)


def test_csmri_with_all_of_kspace_is_unitary():
    op, x = csmri(np.ones((40, 24))), image(2)
    y = op.forward(x)
    np.testing.assert_allclose(np.linalg.norm(y), np.linalg.norm(x), rtol=1e-5)
    np.testing.assert_allclose(op.to_net_input(y), np.concatenate([x, 0 * x], -1), atol=1e-5)


def test_csmri_zero_frequency_is_in_the_corner():
    corner = np.zeros((40, 24)).astype(bool)
    corner[0, 0] = True
    x = image()
    np.testing.assert_allclose(csmri(corner).to_net_input(csmri(corner).forward(x))[..., 0], x.mean(), atol=1e-5)


def test_gradient_of_the_data_term_is_the_adjoint_of_the_residual():
    op, x = csmri(MASK), image()
    y = np.asarray(op.forward(image(seed=1)))
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(jnp.abs(op.forward(x) - y) ** 2)))(x)
    np.testing.assert_allclose(gradient, 2 * np.asarray(op.to_net_input(op.forward(x) - y))[..., :1], atol=1e-4)


MAPS = image(3, dtype=np.complex64, seed=2)[..., 0]
MAPS /= np.linalg.norm(MAPS, axis=0)  # sum |maps|^2 = 1


@pytest.mark.parametrize("b", [(), (2, 2)])
@pytest.mark.parametrize("dtype", [np.float32, np.complex64])
def test_sense_equals_a_loop_over_coils(b, dtype):
    x, op = image(*b, dtype=dtype), sense(MASK, MAPS)
    y = np.stack([MASK * np.fft.fft2(m * x[..., 0], norm="ortho") for m in MAPS], axis=-3)
    combined = sum(np.conj(m) * np.fft.ifft2(MASK * y[..., k, :, :], norm="ortho") for k, m in enumerate(MAPS))
    assert op.forward(x).dtype == jnp.complex64
    np.testing.assert_allclose(op.forward(x), y, atol=1e-5)
    np.testing.assert_allclose(op.to_net_input(y), np.stack([combined.real, combined.imag], -1), atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.complex64])
def test_sense_net_input_is_the_adjoint_of_forward(dtype):
    """<A u, v> = <u, A^H v>, whatever v holds where nothing is sampled."""
    u, op = image(dtype=dtype), sense(MASK, MAPS)
    v = image(3, dtype=np.complex64, seed=1)[..., 0]
    real, imaginary = np.moveaxis(op.to_net_input(v), -1, 0)
    np.testing.assert_allclose(inner(op.forward(u), v), inner(u[..., 0], real + 1j * imaginary), rtol=1e-4)


def test_sense_of_one_coil_that_sees_everything_is_csmri():
    x, op, single_coil = image(2), sense(MASK, np.ones((1, 40, 24))), csmri(MASK)
    np.testing.assert_allclose(op.forward(x)[:, 0], single_coil.forward(x)[..., 0], atol=1e-6)
    np.testing.assert_allclose(op.to_net_input(op.forward(x)), single_coil.to_net_input(single_coil.forward(x)), atol=1e-6)


def test_sense_increases_no_norm_and_preserves_it_if_all_is_sampled():
    x = image(5)
    for mask, bound in ((MASK, np.less), (np.ones((40, 24)), np.isclose)):
        lengths = np.sqrt(np.sum(np.abs(sense(mask, MAPS).forward(x)) ** 2, (1, 2, 3)))
        assert bound(lengths, np.linalg.norm(x[..., 0], axis=(1, 2))).all()
    full = sense(np.ones((40, 24)), MAPS)
    np.testing.assert_allclose(full.to_net_input(full.forward(x)), np.concatenate([x, 0 * x], -1), atol=1e-5)


def test_sense_with_other_maps_for_every_image():
    x, maps = image(2), np.stack([MAPS, MAPS[::-1]])
    y = jax.jit(jax.vmap(lambda x, m: sense(MASK, m).forward(x)))(x, maps)
    np.testing.assert_allclose(y[1], sense(MASK, maps[1]).forward(x[1]), atol=1e-5)
    net_input = jax.jit(jax.vmap(lambda y, m: sense(MASK, m).to_net_input(y)))(y, maps)
    np.testing.assert_allclose(net_input[1], sense(MASK, maps[1]).to_net_input(y[1]), atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.complex64])
def test_denoising_keeps_the_image_and_splits_real_and_imaginary_part(dtype):
    x = image(2, dtype=dtype)
    np.testing.assert_array_equal(denoising().forward(x), x)
    np.testing.assert_array_equal(denoising().to_net_input(x), np.concatenate([np.real(x), np.imag(x)], -1))


def test_super_resolution_equals_numpy():
    x = np.arange(16, dtype=np.float32).reshape(4, 4, 1)
    op = super_resolution(factor=2)
    np.testing.assert_allclose(op.forward(x)[..., 0], [[2.5, 4.5], [10.5, 12.5]])
    np.testing.assert_allclose(op.to_net_input(op.forward(x))[..., 0], np.kron([[2.5, 4.5], [10.5, 12.5]], np.ones((2, 2))))
    np.testing.assert_allclose(op.to_net_input(op.forward(x))[..., 1], 0)


@pytest.mark.parametrize("factor", [1, 4])
def test_super_resolution_net_input_is_pseudo_inverse_and_scaled_adjoint(factor):
    op, u = super_resolution(factor=factor), image(2)
    y = image(2, seed=1)[:, : 40 // factor, : 24 // factor]
    up = np.asarray(op.to_net_input(y))[..., :1]
    np.testing.assert_allclose(op.forward(up), y, atol=1e-6)
    np.testing.assert_allclose(inner(op.forward(u), y), inner(u, up) / factor**2, rtol=1e-4)


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_under_jit_vmap_and_grad(name):
    op, x = OPERATORS[name], image(3)
    y = op.forward(x)
    np.testing.assert_allclose(jax.jit(jax.vmap(op.forward))(x), y, atol=1e-5)
    np.testing.assert_allclose(jax.jit(jax.vmap(op.to_net_input))(y), op.to_net_input(y), atol=1e-5)
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(op.to_net_input(op.forward(x)) ** 2) / 2))(x)
    # A^H A and its like are symmetric, so the gradient of |A^H A x|^2 / 2 along x is the square itself
    np.testing.assert_allclose(inner(gradient, x), np.sum(np.square(op.to_net_input(y))), rtol=1e-4)


# Compiled once, for one shape: 10 images, 9600 pixels. XLA takes seconds to compile random 16 x 12 images on a CPU.
ZEROS = np.zeros((10, 40, 24, 1), np.float32)
compiled_complex_noise = jax.jit(lambda key, y, mask, sigma: complex_noise(key, y, mask, sigma=sigma))
NOISES = {
    "awgn": jax.jit(lambda key, x, sigma: awgn(key, x, sigma=sigma)),
    "complex_noise": lambda key, x, sigma, mask=MASK: compiled_complex_noise(key, x + 0j, mask, sigma),
    "rician": jax.jit(lambda key, x, sigma: rician(key, x, sigma=sigma)),
}


def test_awgn_has_the_standard_deviation_sigma():
    noise = NOISES["awgn"](KEY, ZEROS + 0.5, 0.1)
    assert scipy.stats.kstest(np.ravel(noise), scipy.stats.norm(0.5, 0.1).cdf).pvalue > 0.01


def test_complex_noise_has_the_power_sigma_squared_is_circular_and_as_strong_in_the_image():
    ones = np.ones((40, 24), np.float32)
    noise = NOISES["complex_noise"](KEY, ZEROS, 0.3, ones)
    np.testing.assert_allclose(np.mean(np.abs(noise) ** 2), 0.3**2, rtol=0.03)
    np.testing.assert_allclose(np.mean(np.square(noise)), 0, atol=0.003)
    for part in (np.real(noise), np.imag(noise)):
        assert scipy.stats.kstest(np.ravel(part), scipy.stats.norm(0, 0.3 / np.sqrt(2)).cdf).pvalue > 0.01
    in_the_image = np.asarray(csmri(ones).to_net_input(noise))
    np.testing.assert_allclose(np.mean(np.sum(in_the_image**2, -1)), 0.3**2, rtol=0.03)


def test_complex_noise_leaves_zero_what_is_not_sampled():
    """So the data term of the perfect image is the noise on the samples alone."""
    clean = np.asarray(csmri(MASK).forward(image(10)))
    noisy = np.asarray(compiled_complex_noise(KEY, clean, MASK, 0.2))
    assert not noisy[:, MASK == 0].any()
    assert noisy[:, MASK == 1].all()
    residual = np.sum(np.abs(noisy - clean) ** 2, (1, 2, 3))
    np.testing.assert_allclose(residual.mean(), 0.2**2 * MASK.sum(), rtol=0.05)


@pytest.mark.parametrize("level", [0.0, 0.1, 1.0])
def test_rician_has_the_rice_distribution(level):
    drawn = np.ravel(NOISES["rician"](KEY, ZEROS + np.float32(level), 0.1))
    rice = scipy.stats.rice(level / 0.1, scale=0.1)
    np.testing.assert_allclose(drawn.mean(), rice.mean(), atol=4 * rice.std() / np.sqrt(drawn.size))
    assert scipy.stats.kstest(drawn, rice.cdf).pvalue > 0.01


@pytest.mark.parametrize("name", NOISES)
def test_noise_is_a_function_of_its_key_and_differs_from_image_to_image(name):
    first, same, other = (np.asarray(NOISES[name](jax.random.key(k), ZEROS, 0.1)) for k in (0, 0, 1))
    np.testing.assert_array_equal(first, same)
    assert (first != other).any()
    assert (first[0] != first[1]).any()


@pytest.mark.parametrize("name", NOISES)
def test_noise_under_jit_vmap_and_grad(name):
    """Also where `sigma` is traced and 0 and the image is 0."""
    sigma = np.array([0.0, 0.1], np.float32)

    def total(x, key, sigma):
        noise = NOISES[name](key, x, sigma)
        return jnp.sum(jnp.abs(noise)), noise

    mapped = jax.jit(jax.vmap(jax.grad(total, has_aux=True)))
    gradient, noise = mapped(np.zeros((2, 40, 24, 1), np.float32), jax.random.split(KEY, 2), sigma)
    np.testing.assert_array_equal(noise[0], 0)
    assert np.any(noise[1])
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize(
    "noise",
    [
        lambda key, sigma: awgn(key, image(), sigma=sigma),
        lambda key, sigma: complex_noise(key, image(dtype=np.complex64), MASK, sigma=sigma),
        lambda key, sigma: rician(key, image(), sigma=sigma),
    ],
    ids=["awgn", "complex_noise", "rician"],
)
@pytest.mark.parametrize("sigma", [-0.1, -1, float("nan"), np.float32(-0.1)])
def test_noise_names_a_negative_sigma(noise, sigma):
    with pytest.raises(InputError, match="`sigma` must be at least 0, got"):
        noise(KEY, sigma)


def test_noise_names_the_wrong_kind_of_number():
    y = image(dtype=np.complex64)
    with pytest.raises(InputError, match="`y` must be real, got complex64"):
        awgn(KEY, y, sigma=0.1)
    with pytest.raises(InputError, match="`x` must be real, got complex64"):
        rician(KEY, y, sigma=0.1)
    with pytest.raises(InputError, match="`y` must be complex k-space, got float32"):
        complex_noise(KEY, image(), MASK, sigma=0.1)


def test_csmri_names_a_wrong_mask_and_a_wrong_image():
    with pytest.raises(InputError, match=r"`mask` must have shape \(h, w\), got \(40, 24, 1\)"):
        csmri(MASK[..., None])
    with pytest.raises(InputError, match=r"`x` must have shape \(\*b, 24, 40, 1\) as the mask, got \(40, 24, 1\)"):
        csmri(MASK.T).forward(image())
    with pytest.raises(InputError, match=r"`x` must have shape \(\*b, h, w, 1\), got \(40, 24\)"):
        csmri(MASK).forward(image()[..., 0])
    with pytest.raises(InputError, match=r"`y` must have shape \(\*b, 24, 40, 1\) as the mask"):
        complex_noise(KEY, image(dtype=np.complex64), MASK.T, sigma=0.1)


def test_sense_names_wrong_maps_and_wrong_kspace():
    for maps in (MAPS[0], MAPS[None], MAPS.swapaxes(1, 2)):
        with pytest.raises(InputError, match=r"`maps` must have shape \(c, 40, 24\) as the mask, got \("):
            sense(MASK, maps)
    with pytest.raises(InputError, match=r"`mask` must have shape \(h, w\), got \(40, 24, 1\)"):
        sense(MASK[..., None], MAPS)
    with pytest.raises(InputError, match=r"`x` must have shape \(\*b, 40, 24, 1\) as the mask, got \(2, 24, 40, 1\)"):
        sense(MASK, MAPS).forward(image(2).swapaxes(1, 2))
    with pytest.raises(InputError, match=r"`y` must have shape \(\*b, 3, 40, 24\) as the maps, got \(2, 40, 24\)"):
        sense(MASK, MAPS).to_net_input(image(2, dtype=np.complex64)[..., 0])


def test_super_resolution_names_a_wrong_factor_and_a_wrong_size():
    with pytest.raises(InputError, match="`x` must have sides that `factor` 3 divides, got 40 x 24"):
        super_resolution(factor=3).forward(image())
    for factor in (0, -4, 1.5):
        with pytest.raises(InputError, match=f"`factor` must be a whole number of at least 1, got {factor}"):
            super_resolution(factor=factor)


def test_magnitude_is_the_modulus_with_a_finite_gradient_at_zero():
    net_input = np.random.default_rng(0).standard_normal((2, 5, 4, 2)).astype(np.float32)
    expected = np.abs(net_input[..., 0] + 1j * net_input[..., 1])[..., None]
    np.testing.assert_allclose(magnitude(net_input), expected, rtol=1e-6)
    np.testing.assert_array_equal(jax.grad(lambda a: jnp.sum(magnitude(a)))(jnp.zeros((3, 2, 2))), 0)
