"""Acquisitions as conditions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperrecon_jax.physics.acquisition import (
    ACCELERATIONS,
    Acquisition,
    AcquisitionRange,
    describe_excess,
    encode,
    sample_conditions,
    simulated_range,
)
from hyperrecon_jax.physics.sample import Sample
from hyperrecon_jax.runtime.errors import InputError

RANGES = AcquisitionRange((2.0, 8.0), (0.0, 0.1), ("poisson_disc", "random_lines"))
SIZE = 24
IMAGE = np.random.default_rng(0).random((SIZE, SIZE, 1)).astype(np.float32)
PROBLEM = simulated_range(RANGES, (SIZE, SIZE))
OBSERVE = jax.jit(PROBLEM.observe)


def test_conditions_are_in_order_of_the_range():
    np.testing.assert_allclose(encode(RANGES, Acquisition(2.0, 0.0, "poisson_disc")), [0, 0, 1, 0])
    np.testing.assert_allclose(encode(RANGES, Acquisition(4.0, 0.025, "random_lines")), [0.5, 0.5, 0, 1], rtol=1e-6)
    np.testing.assert_allclose(encode(RANGES, RANGES.middle), [0.5, 0.5, 1, 0], rtol=1e-6)
    fixed = AcquisitionRange((4.0, 4.0), (0.1, 0.1), ("random_lines",))
    np.testing.assert_allclose(encode(fixed, Acquisition(4.0, 0.1, "random_lines")), [0, 0, 1])


def test_an_acquisition_outside_is_the_nearest_inside_and_is_told():
    outside = Acquisition(16.0, 0.2, "random_lines")
    np.testing.assert_allclose(encode(RANGES, outside), [1, 1, 0, 1])
    assert describe_excess(RANGES, outside) == [
        "The network was trained for acceleration from 2 to 8, this is 16.",
        "The network was trained for noise from 0 to 0.1, this is 0.2.",
    ]
    assert describe_excess(RANGES, RANGES.middle) == []
    with pytest.raises(InputError, match="`mask` must be one of poisson_disc, random_lines, got 'equispaced_lines'"):
        encode(RANGES, Acquisition(4.0, 0.0, "equispaced_lines"))


@pytest.mark.parametrize("name", RANGES.masks)
@pytest.mark.parametrize("acceleration", [2.0, 4.0, 8.0])
def test_samples_are_measured_as_their_condition_says(name, acceleration):
    condition = jnp.asarray(encode(RANGES, Acquisition(acceleration, 0.0, name)))
    y = np.asarray(OBSERVE(jax.random.key(0), Sample(IMAGE), condition))[..., 0]
    mask = y != 0
    size = round(SIZE / acceleration) * SIZE if name == "random_lines" else round(SIZE**2 / acceleration)
    assert mask.sum() == size
    np.testing.assert_allclose(y, mask * np.fft.fft2(IMAGE[..., 0], norm="ortho"), atol=1e-5)
    assert (mask.all(0) == mask.any(0)).all() == (name == "random_lines")
    assert float(PROBLEM.data_consistency(jnp.asarray(IMAGE), y[..., None])) < 1e-6
    np.testing.assert_array_equal(PROBLEM.to_physics_input(jnp.asarray(y[..., None])).mask, mask)


def test_noise_has_the_strength_of_the_condition():
    condition = jnp.asarray(encode(RANGES, Acquisition(2.0, 0.064, "poisson_disc")))
    keys = jax.random.split(jax.random.key(1), 40)
    y = jax.vmap(OBSERVE, (0, None, None))(keys, Sample(IMAGE), condition)[..., 0]
    y = np.asarray(y)
    noise = (y - np.fft.fft2(IMAGE[..., 0], norm="ortho"))[y != 0]
    np.testing.assert_allclose(np.sqrt(np.mean(np.abs(noise) ** 2)), 0.064, rtol=0.02)


def test_random_conditions_cover_the_range():
    conditions = np.asarray(sample_conditions(jax.random.key(0), RANGES, 2000))
    assert conditions.shape == (2000, RANGES.size)
    values, counts = np.unique(conditions[:, 0].round(4), return_counts=True)
    np.testing.assert_allclose(values, np.linspace(0, 1, ACCELERATIONS), atol=1e-3)
    assert counts.min() > 150
    np.testing.assert_allclose(conditions[:, 1].mean(), 0.5, atol=0.03)
    np.testing.assert_allclose(conditions[:, 2:].mean(0), 0.5, atol=0.04)
    assert (conditions[:, 2:].sum(1) == 1).all()
