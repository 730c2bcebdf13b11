"""What the measurement contradicts, and J of noise alone, against NumPy and simulations."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from hyperrecon_jax.explorer import measurement_band as band
from hyperrecon_jax.explorer.measurement_band import Noise, expected_j
from hyperrecon_jax.physics import masks, operators
from hyperrecon_jax.physics.problem import measured, simulated
from hyperrecon_jax.physics.sample import Coils, Sample

SIDE, SIGMA, DRAWS = 48, 0.1, 200
IMAGE = jnp.asarray(ndimage.gaussian_filter(np.random.default_rng(0).random((SIDE, SIDE)), 2)[..., None], jnp.float32)
MASK = jnp.asarray(masks.make("random_lines", (SIDE, SIDE), acceleration=3.0, seed=0))
MAPS = jnp.asarray(np.stack([np.cos(np.mgrid[:SIDE, :SIDE][k] / SIDE) for k in (0, 1)]), jnp.complex64)
MAPS = MAPS / jnp.linalg.norm(MAPS, axis=0, keepdims=True)


def noisy(operator, noise, *arguments):
    return simulated(operator, lambda key, y: noise(key, y, *arguments, sigma=SIGMA))


NOISES = {
    "complex": noisy(operators.csmri(MASK), operators.complex_noise, MASK),
    "gaussian": noisy(operators.denoising(), operators.awgn),
    "rician": noisy(operators.super_resolution(factor=4), operators.rician),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", NOISES)
def test_j_of_noise_alone_is_that_of_the_true_image(kind):
    """The mean and the standard deviation over many measurements of one image."""
    problem, image = NOISES[kind], IMAGE
    observe = jax.jit(jax.vmap(lambda key: problem.observe(key, Sample(image))))
    ys = observe(jax.random.split(jax.random.key(1), DRAWS))
    js = np.asarray(jax.vmap(lambda y: problem.data_consistency(image, y))(ys))
    mean, spread = expected_j(Noise(SIGMA, kind), ys[0], image)
    assert abs(js.mean() - mean) < 4 * js.std() / np.sqrt(DRAWS)
    if kind != "rician":  # whose spread is that of bright pixels
        np.testing.assert_allclose(js.std(), spread, rtol=0.2)


@pytest.mark.slow
def test_j_of_noise_in_several_coils():
    """Each coil has the noise."""
    problem = measured(MASK, sigma=SIGMA)
    kspace = jnp.fft.fft2(MAPS * IMAGE[None, ..., 0], norm="ortho")
    sample = Sample(IMAGE, coils=Coils(kspace, MAPS))
    ys = jax.vmap(lambda key: problem.observe(key, sample))(jax.random.split(jax.random.key(1), DRAWS))
    js = np.asarray(jax.vmap(lambda y: problem.data_consistency(IMAGE, y))(ys))
    mean, spread = expected_j(Noise(SIGMA, "complex"), jax.tree.map(lambda leaf: leaf[0], ys))
    assert abs(js.mean() - mean) < 4 * js.std() / np.sqrt(DRAWS)
    np.testing.assert_allclose(js.std(), spread, rtol=0.2)


def test_the_contradiction_is_the_residual_of_k_space_as_an_image():
    """A square that the measurement does not have shows where it is; what was not sampled does not show."""
    problem = simulated(operators.csmri(MASK))
    y = problem.observe(jax.random.key(0), Sample(IMAGE))
    wrong = np.zeros((SIDE, SIDE, 1), np.float32)
    wrong[20:30, 8:18] = 0.5
    contradiction = band.compile_band(problem).contradiction
    plane = np.asarray(contradiction(IMAGE + wrong, y))[..., 0]
    residual = np.fft.ifft2(np.asarray(MASK) * np.fft.fft2(wrong[..., 0])).real
    power, share = (ndimage.uniform_filter(a, band.WINDOW, mode="constant") for a in (residual**2, np.ones((SIDE, SIDE))))
    np.testing.assert_allclose(plane, np.sqrt(np.maximum(power / share, 0)), atol=1e-4)
    assert plane[22:28, 10:16].min() > 5 * np.median(plane)
    unsampled = np.fft.ifft2((1 - np.asarray(MASK)) * np.fft.fft2(wrong[..., 0])).real[..., None]
    mask = np.asarray(MASK)
    symmetric = (mask[:, (-np.arange(SIDE)) % SIDE] == mask).all(0)[None] * (1 - mask)  # so that the image stays real
    hidden = np.fft.ifft2(symmetric * np.fft.fft2(unsampled[..., 0])).real[..., None].astype(np.float32)
    assert np.abs(hidden).max() > 0.01
    np.testing.assert_allclose(contradiction(IMAGE + hidden, y), 0, atol=1e-5)


def test_the_difference_of_means_does_not_depend_on_the_factor():
    for factor in (2, 4):
        problem = simulated(operators.super_resolution(factor=factor))
        y = problem.observe(jax.random.key(0), Sample(IMAGE))
        np.testing.assert_allclose(band.compile_band(problem).contradiction(IMAGE + 0.25, y), 0.25, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["complex", "gaussian"])
def test_noise_alone_shows_in_few_images(kind):
    problem, image = NOISES[kind], IMAGE
    y = problem.observe(jax.random.key(0), Sample(image))
    level = SIGMA * band.unit_noise_level(problem, image, y)
    ys = jax.vmap(lambda key: problem.observe(key, Sample(image)))(jax.random.split(jax.random.key(5), DRAWS))
    largest = jax.vmap(lambda y: band.contradiction(problem, image, y).max())(ys)
    share = float((largest > level).mean())
    assert 0 < share < 0.15  # 5 % are meant; the level is that of 40 draws


def test_the_compiler_gets_no_sum_of_constants():
    """It would take seconds to compute the number of pixels in each window itself, and says so on standard error."""
    program = jax.make_jaxpr(partial(band.contradiction, NOISES["complex"]))(
        IMAGE, jnp.zeros((SIDE, SIDE, 1), jnp.complex64)
    )
    assert str(program).count("reduce_window_sum[") == 1
