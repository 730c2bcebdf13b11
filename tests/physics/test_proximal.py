"""The data-consistency step against the dense normal equations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperrecon_jax.physics import masks, operators
from hyperrecon_jax.physics.net_input import PhysicsInput, physics_input
from hyperrecon_jax.physics.proximal import prox
from hyperrecon_jax.runtime.errors import InputError

SIZE = 8
RNG = np.random.default_rng(0)
MASK = jnp.asarray(masks.make("random_lines", (SIZE, SIZE), acceleration=2.0))
Z = RNG.standard_normal((SIZE, SIZE, 2)).astype(np.float32)


def complex_normal(*shape):
    return (RNG.standard_normal(shape) + 1j * RNG.standard_normal(shape)).astype(np.complex64)


def sensitivities(count):
    maps = complex_normal(count, SIZE, SIZE)
    return maps / np.sqrt((np.abs(maps) ** 2).sum(0))


OPERATORS = {
    "one coil": operators.csmri(MASK),
    "four coils": operators.sense(MASK, sensitivities(4)),
    "denoising": operators.denoising(),
    "super-resolution": operators.super_resolution(factor=4),
}


@jax.jit
def solve(net_input, z, weight):
    return prox(net_input, z, weight=weight)


@jax.jit
def gradient(net_input, z, weight):
    return jax.grad(lambda z, weight: jnp.sum(jnp.square(prox(net_input, z, weight=weight))), (0, 1))(z, weight)


def dense(operator):
    """The operator as a matrix, `(measurements, pixels)`."""
    pixels = np.eye(SIZE**2, dtype=np.float32).reshape(-1, SIZE, SIZE, 1)
    return np.asarray(jax.vmap(operator.forward)(pixels)).reshape(SIZE**2, -1).T


@pytest.mark.parametrize("weight", [0.2, 3.0])
@pytest.mark.parametrize("name", OPERATORS)
def test_prox_solves_the_normal_equations(name, weight):
    operator = OPERATORS[name]
    y = operator.forward(jnp.asarray(RNG.random((SIZE, SIZE, 1)), jnp.float32))
    noise = complex_normal(*y.shape) if jnp.iscomplexobj(y) else RNG.standard_normal(y.shape)
    y = jnp.where(y != 0, y + 0.1 * noise, 0).astype(y.dtype)
    x = solve(physics_input(operator, y), Z, jnp.float32(weight))
    a, z = dense(operator).astype(np.complex128), (Z[..., 0] + 1j * Z[..., 1]).ravel()
    normal = a.conj().T @ a + weight * np.eye(SIZE**2)
    expected = np.linalg.solve(normal, a.conj().T @ np.asarray(y).ravel() + weight * z)
    error = np.abs((x[..., 0] + 1j * x[..., 1]).ravel() - expected).max()
    assert error < (0.02 if name == "four coils" and weight < 1 else 1e-4)  # six steps of conjugate gradients


@pytest.mark.parametrize("name", OPERATORS)
def test_an_image_that_explains_the_measurement_stays(name):
    operator = OPERATORS[name]
    x = jnp.asarray(RNG.random((SIZE, SIZE, 1)), jnp.float32)
    z = jnp.concatenate([x, jnp.zeros_like(x)], -1)
    np.testing.assert_allclose(solve(physics_input(operator, operator.forward(x)), z, jnp.float32(0.5)), z, atol=1e-5)


@pytest.mark.parametrize("name", OPERATORS)
def test_gradients_are_finite_and_zero_measurements_are_no_trouble(name):
    operator = OPERATORS[name]
    y = jnp.zeros_like(operator.forward(jnp.zeros((SIZE, SIZE, 1))))
    for z in (Z, np.zeros_like(Z)):
        slopes = gradient(physics_input(operator, y), z, jnp.float32(0.3))
        assert all(np.isfinite(slope).all() for slope in slopes)


def test_every_sample_of_a_batch_may_have_its_own_mask():
    pair = jnp.stack([MASK, MASK[::-1, ::-1].T])
    x = jnp.asarray(RNG.random((2, SIZE, SIZE, 1)), jnp.float32)

    def step(mask, x):
        operator = operators.csmri(mask)
        return prox(physics_input(operator, operator.forward(x)), Z, weight=jnp.float32(0.5))

    batch = jax.jit(jax.vmap(step))(pair, x)
    for i in range(2):
        np.testing.assert_allclose(batch[i], jax.jit(step)(pair[i], x[i]), atol=1e-6)


def test_sides_that_do_not_divide_are_refused():
    with pytest.raises(InputError, match=r"`net_input.y` must have sides that divide those of `z`, got \(3, 3, 1\)"):
        prox(PhysicsInput(Z, np.zeros((3, 3, 1), np.float32)), Z, weight=jnp.float32(1))
