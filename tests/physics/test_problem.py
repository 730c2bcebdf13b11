"""Simulated and measured problems against NumPy, coil by coil."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperrecon_jax.physics import masks, operators
from hyperrecon_jax.physics.problem import measured, simulated
from hyperrecon_jax.physics.sample import Coils, Sample
from hyperrecon_jax.runtime.errors import InputError

RNG = np.random.default_rng(0)
IMAGE = RNG.random((16, 16, 1)).astype(np.float32)
MASK = masks.make("poisson_disc", (16, 16), acceleration=4.0)
KEY = jax.random.key(3)


def normal(*shape):
    return (RNG.standard_normal(shape) + 1j * RNG.standard_normal(shape)).astype(np.complex64)


def sensitivities(count):
    maps = normal(count, 16, 16)
    return maps / np.sqrt((np.abs(maps) ** 2).sum(0))


@pytest.fixture
def sample():
    """The k-space of three coils with noise; the two columns of the highest frequencies were not measured."""
    maps = sensitivities(3)
    kspace = np.fft.fft2(maps * IMAGE[..., 0], norm="ortho") + 0.01 * normal(3, 16, 16)
    kspace[..., 7:9] = 0
    return Sample(IMAGE, None, Coils(kspace.astype(np.complex64), maps))


def test_simulated_is_the_operator_and_its_noise():
    operator = operators.csmri(jnp.asarray(MASK))
    problem = simulated(operator, lambda key, y: y + 2)
    y = problem.observe(KEY, Sample(IMAGE))
    np.testing.assert_allclose(y, operator.forward(IMAGE) + 2, rtol=1e-6)
    np.testing.assert_allclose(problem.to_net_input(y), operator.to_net_input(y), atol=1e-6)
    expected = np.sum(np.abs(MASK[..., None] * np.fft.fft2(0.5 * IMAGE, axes=(0, 1), norm="ortho") - y) ** 2)
    np.testing.assert_allclose(problem.data_consistency(0.5 * IMAGE, y), expected, rtol=1e-5)


def test_measured_applies_the_mask_to_k_space(sample):
    y = jax.jit(measured(jnp.asarray(MASK)).observe)(KEY, sample)
    np.testing.assert_array_equal(y.kspace, MASK * sample.coils.kspace)
    np.testing.assert_array_equal(y.maps, sample.coils.maps)


def test_measured_combines_coils_by_the_conjugate_maps(sample):
    problem = measured(jnp.asarray(MASK))
    net_input = problem.to_net_input(problem.observe(KEY, sample))
    combined = sum(
        np.conj(m) * np.fft.ifft2(MASK * k, norm="ortho")
        for k, m in zip(sample.coils.kspace, sample.coils.maps, strict=True)
    )
    np.testing.assert_allclose(net_input, np.stack([combined.real, combined.imag], -1), atol=1e-6)


def test_measured_ignores_frequencies_that_were_not_measured(sample):
    """A loop over coils; the columns that the scanner left out do not count, whatever the image has there."""
    problem = measured(jnp.asarray(MASK))
    y = problem.observe(KEY, sample)
    x_hat = RNG.random((16, 16, 1)).astype(np.float32)
    sampled = MASK.astype(bool) & (np.arange(16) != 7) & (np.arange(16) != 8)
    expected = 0.0
    for k, m in zip(sample.coils.kspace, sample.coils.maps, strict=True):
        expected += np.sum(np.abs(np.fft.fft2(m * x_hat[..., 0], norm="ortho") - k)[sampled] ** 2)
    np.testing.assert_allclose(problem.data_consistency(x_hat, y), expected, rtol=1e-5)
    # for the reference image, J is the noise: 0.01^2, twice, for each coil and frequency
    noise = float(problem.data_consistency(IMAGE, y))
    np.testing.assert_allclose(noise, 2e-4 * 3 * sampled.sum(), rtol=0.3)


def test_measured_adds_noise_where_it_measured(sample):
    quiet, noisy = (measured(jnp.asarray(MASK), sigma=s).observe(KEY, sample).kspace for s in (0.0, 0.5))
    difference = np.asarray(noisy - quiet)
    sampled = np.asarray(quiet) != 0
    np.testing.assert_array_equal(difference[~sampled], 0)
    np.testing.assert_allclose(np.mean(np.abs(difference[sampled]) ** 2), 0.25, rtol=0.3)


def test_maps_go_with_their_sample(sample):
    """Mapped over samples, each is measured through its own coils."""
    other = Sample(IMAGE, None, Coils(sample.coils.kspace, sensitivities(3)))
    samples = jax.tree.map(lambda a, b: jnp.stack([a, b]), sample, other)
    problem = measured(jnp.asarray(MASK))

    @jax.jit
    def measure(key, sample):
        return problem.data_consistency(sample.image, problem.observe(key, sample))

    costs = jax.jit(jax.vmap(measure))(jax.random.split(KEY, 2), samples)
    for i, single in enumerate((sample, other)):
        np.testing.assert_allclose(costs[i], measure(KEY, single), rtol=1e-5)
    assert costs[1] > 100 * costs[0]


def test_a_sample_without_coils_was_not_measured():
    with pytest.raises(InputError, match="must have the k-space of coils"):
        measured(jnp.asarray(MASK)).observe(KEY, Sample(IMAGE))
