"""Network inputs: their scale, and the zero-filled image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperrecon_jax.physics import masks, operators
from hyperrecon_jax.physics.net_input import divide_by, intensity_scale, physics_input, zero_filled
from hyperrecon_jax.physics.problem import measured, simulated, with_physics_input
from hyperrecon_jax.physics.sample import Coils, Sample

RNG = np.random.default_rng(0)
IMAGE = RNG.random((16, 16, 1)).astype(np.float32)
OPERATOR = operators.csmri(jnp.asarray(masks.make("poisson_disc", (16, 16), acceleration=2.0)))
Y = OPERATOR.forward(IMAGE)


def test_the_scale_is_the_percentile_of_the_magnitude():
    net_input = OPERATOR.to_net_input(Y)
    expected = np.percentile(np.hypot(net_input[..., 0], net_input[..., 1]), 99)
    np.testing.assert_allclose(intensity_scale(net_input), expected, rtol=1e-5)
    np.testing.assert_allclose(intensity_scale(physics_input(OPERATOR, Y)), expected, rtol=1e-5)


def test_the_scale_is_proportional_to_the_measurement_and_ignores_a_hot_pixel():
    net_input = np.asarray(OPERATOR.to_net_input(Y))
    for factor in (1e-3, 1e3):
        np.testing.assert_allclose(intensity_scale(factor * net_input), factor * intensity_scale(net_input), rtol=1e-5)
    hot = net_input.copy()
    hot[3, 5] = 1e4
    np.testing.assert_allclose(intensity_scale(hot), intensity_scale(net_input), rtol=0.05)


def test_the_scale_of_an_image_that_is_nearly_empty_is_its_maximum():
    """Then the scale is still proportional to the measurement; it is 0 for one that is all zero, which is not divided."""
    empty = np.zeros((16, 16, 2), np.float32)
    speck = empty.copy()
    speck[3, 5] = 3, 4
    assert intensity_scale(speck) == 5
    assert intensity_scale(1e-3 * speck) == np.float32(5e-3)
    assert intensity_scale(empty) == 0
    np.testing.assert_array_equal(divide_by(empty, intensity_scale(empty)), empty)


def test_a_divided_input_is_that_of_the_divided_measurement():
    divided = divide_by(physics_input(OPERATOR, Y), jnp.float32(4))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), divided, physics_input(OPERATOR, Y / 4))


def test_problems_give_the_input_of_an_unrolled_network():
    problem = with_physics_input(simulated(OPERATOR))
    net_input = problem.to_net_input(Y)
    np.testing.assert_array_equal(net_input.image, OPERATOR.to_net_input(Y))
    np.testing.assert_array_equal(net_input.mask, OPERATOR.mask)
    np.testing.assert_allclose(zero_filled(net_input), operators.magnitude(OPERATOR.to_net_input(Y)))
    maps = np.ones((2, 16, 16), np.complex64) / np.sqrt(2)
    kspace = (np.fft.fft2(maps * IMAGE[..., 0], norm="ortho") * np.asarray(OPERATOR.mask)).astype(np.complex64)
    problem = with_physics_input(measured(jnp.ones((16, 16))))
    y = jax.jit(problem.observe)(jax.random.key(0), Sample(IMAGE, coils=Coils(kspace, maps)))
    net_input = jax.jit(problem.to_net_input)(y)
    np.testing.assert_array_equal(net_input.mask, np.asarray(kspace[0] != 0, np.float32))
    np.testing.assert_allclose(net_input.maps, maps, rtol=1e-6)


@pytest.mark.parametrize("side", [1, 2, 3, 10, 11, 96])
def test_the_scale_is_numpys_quantile_and_has_its_gradient(side):
    image = np.random.default_rng(side).random((side, side)).astype(np.float32) + 0.1
    net_input = jnp.stack([image, jnp.zeros_like(image)], -1)
    scale, gradient = jax.jit(jax.value_and_grad(intensity_scale))(net_input)
    np.testing.assert_allclose(scale, np.quantile(image.astype(float), 0.99), rtol=1e-6)
    np.testing.assert_allclose(gradient.sum(), 1, rtol=1e-6)  # linear interpolation of the two entries around it
    below = int(0.99 * (side**2 - 1))
    assert set(image[gradient[..., 0] != 0]) <= set(np.sort(image, axis=None)[below : below + 2])


def test_the_scale_of_equal_values():
    """Few values, as in an image of 8 bits, with the quantile inside of a run of equal ones and at its end."""
    for count in range(1, 12):
        image = np.repeat(np.float32([1, 2, 3]), [900 - count, 100, count]).reshape(20, 50)
        net_input = jnp.stack([image, jnp.zeros_like(image)], -1)
        np.testing.assert_allclose(intensity_scale(net_input), np.quantile(image, 0.99), rtol=1e-6)
